//! The CEL environment of filters.

use std::sync::{Arc, LazyLock};

use cel::Env;

/// The CEL environment of filters: the standard functions, all of them pure, without macros and optional
/// values. The type check restricts expressions further.
pub(super) static ENV: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));
