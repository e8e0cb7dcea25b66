//! The configuration of clients and of new topics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use tandem_model::TableName;
use tandem_wire::log::Topics;

use crate::connect::health::Refusals;
use crate::connect::security::KafkaSecurity;
use crate::registry::client::RegistryConfig;

/// The largest record and the largest batch, in bytes. A MySQL row can hold large values, and an update
/// contains the row twice.
pub(crate) const MAX_BATCH_BYTES: usize = 64 << 20;

/// The Kafka settings of one log.
#[derive(Clone)]
pub struct KafkaConfig {
    /// The bootstrap brokers: `host:port`, separated by commas.
    pub brokers: String,
    /// The first part of every topic's name.
    pub prefix: String,
    /// The tables with topics of their own. All others share topics.
    pub own_topics: Arc<BTreeSet<TableName>>,
    /// The number of partitions of a new change topic or backfill topic.
    pub partitions: i32,
    /// The replication factor of a new topic; −1 means the brokers' `default.replication.factor`.
    pub replication_factor: i32,
    /// How long new change topics keep records.
    pub retention: Duration,
    /// How connections are secured.
    pub security: KafkaSecurity,
    /// The schema registry. Without one, a topic of the log holds the schemas.
    pub registry: Option<RegistryConfig>,
    /// The refusals that the clients of this configuration meet.
    pub refusals: Refusals,
    /// Further librdkafka properties for every client.
    pub properties: BTreeMap<String, String>,
}

impl KafkaConfig {
    /// A configuration with shared topics, 6 partitions, the brokers' replication factor and 7 days of retention.
    pub fn new(brokers: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            prefix: prefix.into(),
            own_topics: Arc::default(),
            partitions: 6,
            replication_factor: -1,
            retention: Duration::from_hours(7 * 24),
            security: KafkaSecurity::default(),
            registry: None,
            refusals: Refusals::default(),
            properties: BTreeMap::new(),
        }
    }

    /// The names of the log's topics.
    pub fn topics(&self) -> Topics {
        Topics::with_own(&self.prefix, Arc::clone(&self.own_topics))
    }

    /// The properties that all clients share. `own` overrides them, and the configured properties override
    /// all.
    pub(crate) fn client(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "tandem")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "2000")
            .set("log.connection.close", "false");
        self.security.apply(&mut config);
        for (key, value) in own {
            config.set(*key, *value);
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config
    }

    /// A consumer's properties. The consumer may commit the offsets of `group`.
    pub(crate) fn consumer(&self, group: &str, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.client(&[
            ("group.id", group),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("isolation.level", "read_committed"),
            ("auto.offset.reset", "error"),
            // Not cooperative: in that mode a member without partitions closes without leaving the group
            // (librdkafka 2.12), and the group waits for its session timeout.
            ("partition.assignment.strategy", "roundrobin"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "1000"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.queue.backoff.ms", "10"),
            ("queued.max.messages.kbytes", "16384"),
            ("check.crcs", "true"),
        ]);
        for (key, value) in own {
            config.set(*key, *value);
        }
        config
    }

    /// A producer's properties. The producer is idempotent, and every in-sync replica acknowledges.
    pub(crate) fn producer(&self, own: &[(&str, &str)]) -> ClientConfig {
        let max_batch = MAX_BATCH_BYTES.to_string();
        let mut config = self.client(&[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("compression.type", "lz4"),
            ("linger.ms", "1"),
            ("message.max.bytes", &max_batch),
            ("queue.buffering.max.kbytes", "262144"),
        ]);
        for (key, value) in own {
            config.set(*key, *value);
        }
        config
    }

    /// The properties of a transactional producer.
    pub(crate) fn transactional(&self, id: &str) -> ClientConfig {
        self.producer(&[
            ("transactional.id", id),
            ("transaction.timeout.ms", "60000"),
            ("message.timeout.ms", "50000"),
        ])
    }
}

impl fmt::Debug for KafkaConfig {
    /// Omits the values of `properties`, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("prefix", &self.prefix)
            .field("own_topics", &self.own_topics)
            .field("partitions", &self.partitions)
            .field("replication_factor", &self.replication_factor)
            .field("retention", &self.retention)
            .field("security", &self.security)
            .field("registry", &self.registry)
            .field("properties", &self.properties.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let mut config = KafkaConfig::new("localhost:9092", "tandem");
        config.properties.insert("sasl.password".into(), "hunter2".into());
        let text = format!("{config:?}");
        assert!(text.contains("sasl.password") && !text.contains("hunter2"));
        assert_eq!(config.client(&[]).get("sasl.password"), Some("hunter2"));
    }
}
