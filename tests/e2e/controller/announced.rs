//! A gateway that only announces itself, under the control of a test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tandem_kafka::{Admin, KafkaConfig, Producer, topic_specs};
use tandem_wire::control::{Announcement, GATEWAY_ROLE, counter};

/// How often it announces itself.
const EACH: Duration = Duration::from_millis(200);

/// What the gateway announces.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Gateway {
    pub(super) generation: i64,
    /// Successful writes, and by how many they grow with each announcement.
    pub(super) writes: i64,
    pub(super) writes_each: i64,
    /// Reads that Cassandra served, and by how many they grow with each announcement.
    pub(super) reads: i64,
    pub(super) reads_each: i64,
    pub(super) fallbacks: i64,
    /// It says nothing.
    pub(super) silent: bool,
}

impl Gateway {
    fn announcement(&self) -> Announcement {
        let counters = [
            (counter::DUAL_WRITES, self.writes),
            (counter::CASSANDRA_READS, self.reads),
            (counter::FALLBACKS, self.fallbacks),
            (counter::ROUTED_READS, self.reads + self.fallbacks),
            (counter::ROUTED_READS_BY_CASSANDRA, self.reads),
        ];
        let counters: BTreeMap<String, i64> =
            counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        Announcement {
            role: GATEWAY_ROLE.into(),
            name: "test".into(),
            address: String::new(),
            version: "0".into(),
            started_at_us: 1,
            generation: Some(self.generation),
            counters,
            at_us: 1,
        }
    }
}

/// Announces the gateway until it is dropped.
pub(super) struct Announced {
    gateway: Arc<Mutex<Gateway>>,
    task: tokio::task::JoinHandle<()>,
}

impl Announced {
    pub(super) async fn start(kafka: &KafkaConfig) -> anyhow::Result<Self> {
        Admin::connect(kafka).await?.ensure_topics(&topic_specs(kafka, &[])).await?;
        let (producer, topic) = (Producer::start(kafka).await?, kafka.topics().announcements());
        let gateway = Arc::new(Mutex::new(Gateway::default()));
        let shown = Arc::clone(&gateway);
        let task = tokio::spawn(async move {
            loop {
                let said = {
                    let mut gateway = shown.lock().unwrap_or_else(PoisonError::into_inner);
                    gateway.writes += gateway.writes_each;
                    gateway.reads += gateway.reads_each;
                    (!gateway.silent).then(|| gateway.announcement())
                };
                if let Some(record) = said.and_then(|said| said.record(&topic).ok()) {
                    // Kafka may be away in a test.
                    let _ = producer.send(vec![record]).await;
                }
                tokio::time::sleep(EACH).await;
            }
        });
        Ok(Self { gateway, task })
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Gateway)) {
        change(&mut self.gateway.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.task.abort();
    }
}
