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
mod connect;
mod consume;
mod error;
mod message;
mod produce;
mod registry;

pub use admin::{AclReport, Admin, Cleanup, EnsuredTopic, MissingAcl, TopicSpec, missing_acls, topic_specs};
pub use connect::{KafkaConfig, KafkaSecurity, Refusals, Sasl, SaslMechanism, TlsFiles};
pub use consume::{
    GroupConsumer, GroupOffsets, PartitionLag, TailReader, oldest_record, partition_lags, read_all, read_last,
};
pub use error::{BoxError, ConsumeError, PublishError};
pub use produce::{Producer, TransactionalPublisher};
pub use registry::{HeldSubject, RegistryConfig, SchemaStore, http_tls};
