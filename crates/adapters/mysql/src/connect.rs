//! Connections: configuration, TLS, timeouts and pooling.

mod config;
mod killer;
mod lease;
mod server;
mod tls;

pub use config::{MysqlConfig, split_password};
pub(crate) use killer::Killer;
pub(crate) use lease::Lease;
pub(crate) use server::{Server, left};
pub use tls::{MysqlTls, TlsMode};
