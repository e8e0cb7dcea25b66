//! Connections: configuration, security, shared client code and health.

pub(crate) mod bootstrap;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod health;
pub(crate) mod rebootstrap;
pub(crate) mod requests;
mod security;

pub use config::KafkaConfig;
pub use health::Refusals;
pub use security::{KafkaSecurity, Sasl, SaslMechanism, TlsFiles};
