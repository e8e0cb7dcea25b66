//! What an expression may use.

use std::sync::{Arc, LazyLock};

use cel::Env;

/// What expressions may use: CEL's standard functions, all of them pure, without its macros and
/// optional values. The check of types allows fewer still.
pub(super) static ENV: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));
