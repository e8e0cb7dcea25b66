//! Kafka: topics, the schema store, transactional publishing, consuming, offsets and lag.
//!
//! This is the only crate that knows rdkafka. librdkafka's calls block and its clients must be
//! polled, so each client here lives on a thread of its own; callers are async and never see it.
//!
//! What holds everywhere:
//!
//! - Consumers read committed records only, and an offset that the log no longer holds is an error:
//!   nothing is ever reset to the earliest or the latest record by itself.
//! - Nothing counts as written before all in-sync replicas have acknowledged it.
//! - Queues are bounded by bytes.
//! - A broker that is down is no error. librdkafka tries again for ever; `last_error()` of each
//!   client says what it last met, for roles to show.

mod admin;
mod change_topic;
mod client;
mod config;
mod error;
mod fetch;
mod group;
mod group_offsets;
mod health;
mod lag;
mod partition;
mod permissions;
mod producer;
mod progress;
mod publisher;
mod read;
mod record;
mod registry;
mod registry_client;
mod schema_store;
mod schema_topic;
mod security;
mod tail;
mod topics;

pub use admin::{Admin, EnsuredTopic};
pub use change_topic::ChangeTopic;
pub use config::KafkaConfig;
pub use error::{BoxError, ConsumeError, PublishError};
pub use group::GroupConsumer;
pub use group_offsets::GroupOffsets;
pub use health::Refusals;
pub use lag::{PartitionLag, oldest_record, partition_lags};
pub use partition::partition_of;
pub use permissions::{AclReport, MissingAcl, missing_acls};
pub use producer::Producer;
pub use publisher::TransactionalPublisher;
pub use read::{read_all, read_last};
pub use record::{EndOffsets, InRecord, OutRecord, VERSION_HEADER};
pub use registry::HeldSubject;
pub use registry_client::{RegistryConfig, http_tls};
pub use schema_store::SchemaStore;
pub use security::{KafkaSecurity, Sasl, SaslMechanism, TlsFiles};
pub use tail::TailReader;
pub use topics::{Cleanup, TopicSpec, Topics};
