//! The schema store: a topic of the log, or a registry with Confluent's API.

pub(crate) mod client;
mod confluent;
mod schema_store;
mod schema_topic;

pub use client::{RegistryConfig, http_tls};
pub use confluent::HeldSubject;
pub use schema_store::SchemaStore;
