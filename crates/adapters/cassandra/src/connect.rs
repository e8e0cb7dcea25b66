//! The configuration and the session with the cluster.

mod config;
pub(crate) mod target;

pub use config::{CassandraConfig, Consistency};
pub use target::Target;
