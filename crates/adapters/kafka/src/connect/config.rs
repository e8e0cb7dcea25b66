//! How to reach Kafka, and how topics are made.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;

use crate::connect::health::Refusals;
use crate::connect::security::KafkaSecurity;
use crate::registry::client::RegistryConfig;

/// The largest record, and the largest batch of records, in bytes. A row of MySQL may hold large
/// values, and an update carries it twice.
pub(crate) const MAX_BATCH_BYTES: usize = 64 << 20;

/// Kafka as one log of Tandem uses it.
#[derive(Clone)]
pub struct KafkaConfig {
    /// The brokers to ask first: `host:port`, separated by commas.
    pub brokers: String,
    /// The first part of every topic's name.
    pub prefix: String,
    /// Partitions of a new change topic.
    pub partitions: i32,
    /// Replicas of a new topic; −1: as many as the brokers' `default.replication.factor`.
    pub replication_factor: i32,
    /// How long new change topics keep records.
    pub retention: Duration,
    /// How connections are secured.
    pub security: KafkaSecurity,
    /// Where schemas are kept; none: in a topic of the log.
    pub registry: Option<RegistryConfig>,
    /// Whether the brokers refuse our clients.
    pub refusals: Refusals,
    /// Further librdkafka properties for every client.
    pub properties: BTreeMap<String, String>,
}

impl KafkaConfig {
    /// 6 partitions, the brokers' number of replicas, 7 days.
    pub fn new(brokers: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            prefix: prefix.into(),
            partitions: 6,
            replication_factor: -1,
            retention: Duration::from_hours(7 * 24),
            security: KafkaSecurity::default(),
            registry: None,
            refusals: Refusals::default(),
            properties: BTreeMap::new(),
        }
    }

    /// What all clients have in common. The caller's own properties come last and win.
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

    /// A consumer's properties. `group` names the group whose offsets it may commit.
    pub(crate) fn consumer(&self, group: &str, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.client(&[
            ("group.id", group),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("isolation.level", "read_committed"),
            ("auto.offset.reset", "error"),
            // Not cooperative: there a member without partitions closes without leaving (librdkafka
            // 2.12), and the group waits for its session to time out.
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

    /// A producer's properties: idempotent, every in-sync replica acknowledges.
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

    /// A producer's properties with which it publishes in transactions.
    pub(crate) fn transactional(&self, id: &str) -> ClientConfig {
        self.producer(&[
            ("transactional.id", id),
            ("transaction.timeout.ms", "60000"),
            ("message.timeout.ms", "50000"),
        ])
    }
}

impl fmt::Debug for KafkaConfig {
    /// Without the values of `properties`, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("prefix", &self.prefix)
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
