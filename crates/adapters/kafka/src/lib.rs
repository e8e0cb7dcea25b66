//! The Kafka adapter: topics, the schema store, transactional publishing, consuming, offsets and lag.
//!
//! This is the only crate that uses rdkafka. librdkafka's calls block, and its clients must be polled. So
//! each client runs on its own thread, and callers use an async API.
//!
//! Guarantees:
//!
//! - Consumers read only committed records. An offset that the log no longer holds is an error: no consumer
//!   ever resets itself to the earliest or the latest record.
//! - A record counts as written only after all in-sync replicas have acknowledged it.
//! - Queues are bounded by bytes.
//! - An unavailable broker is not an error after the start. librdkafka retries without limit. `last_error()`
//!   of each client returns the last problem, and roles show it.
//!
//! ```no_run
//! # async fn example() -> Result<(), tandem_kafka::ConsumeError> {
//! use std::time::Duration;
//! use tandem_kafka::{GroupConsumer, KafkaConfig};
//!
//! let config = KafkaConfig::new("localhost:9092", "tandem");
//! let topics = ["tandem.changes.shop.orders".to_owned()];
//! let mut consumer = GroupConsumer::start(&config, "example", &topics).await?;
//! let records = consumer.next_batch(500, Duration::from_secs(1)).await?;
//! // Store the records durably first, then mark them as done.
//! consumer.done(&records)?;
//! consumer.close().await;
//! # Ok(())
//! # }
//! ```

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
    Admission, Admitted, Decide, GroupConsumer, GroupMember, GroupMembers, GroupOffsets, PartitionLag,
    StartOffsets, TailReader, Unapplied, partition_lags, read_all, read_at, read_last, read_unapplied,
};
pub use error::{BoxError, ConsumeError, PublishError};
pub use produce::{Producer, TransactionalPublisher};
pub use registry::{HeldSubject, RegistryConfig, SchemaStore, http_tls};
