//! The secondary write of a dual write: what MySQL has committed, written to Cassandra.
//!
//! - It carries the version of a watermark that was taken before the COMMIT, and writes the image read
//!   back under the row's lock. A change that comes later in the log has a higher version and wins.
//! - It is early, the log is right: what fails here is brought by the log. The client has its success,
//!   and the failure is recorded and counted.

use std::sync::Arc;
use std::time::Duration;

use tandem_cassandra::Target;
use tandem_kafka::{KafkaConfig, Producer, PublishError};
use tandem_model::{DualWriteMode, Value, Version};
use tandem_protocol::dual_write::SecondaryWrite;
use tandem_watermarks::Watermarks;
use tandem_wire::control::{DualWriteFailure, encode_control};
use tandem_wire::log::{OutRecord, Topics};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::cassandra_health::CassandraHealth;
use crate::entity::Entity;
use crate::metrics::Metrics;
use tandem_runtime::now_us;

/// Failures on their way to Kafka at most.
const RECORDS: usize = 1000;
/// How long a stop waits for them.
const LINGER: Duration = Duration::from_secs(3);

/// A secondary write of one row, with what its failure is recorded by.
#[derive(Debug)]
pub(crate) struct EntityWrite {
    pub(crate) entity: Arc<Entity>,
    pub(crate) key: Vec<Value>,
    pub(crate) write: SecondaryWrite,
}

/// Makes secondary writes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SecondaryWriter {
    pub(crate) target: Target,
    watermarks: Watermarks,
    pub(crate) health: Arc<CassandraHealth>,
    metrics: Metrics,
    /// How long Cassandra may take.
    limit: Duration,
    /// Writes that may be behind at once.
    behind: Arc<Semaphore>,
    pub(crate) producer: Producer,
    topic: Arc<str>,
    recording: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl SecondaryWriter {
    /// Cassandra may take `limit` for a write; `max_async` writes may run after their answers.
    pub(crate) async fn start(
        kafka: &KafkaConfig,
        target: Target,
        watermarks: Watermarks,
        metrics: Metrics,
        limit: Duration,
        max_async: usize,
        tasks: TaskTracker,
    ) -> Result<Self, PublishError> {
        Ok(Self {
            target,
            watermarks,
            health: Arc::new(CassandraHealth::default()),
            metrics,
            limit,
            behind: Arc::new(Semaphore::new(max_async)),
            producer: Producer::start(kafka).await?,
            topic: Topics::new(&kafka.prefix).dual_write_failures().into(),
            recording: Arc::new(Semaphore::new(RECORDS)),
            tasks,
        })
    }

    /// Waits a little until the failures on their way are recorded: Kafka may be down.
    pub(crate) async fn settle(&self) {
        let all = self.recording.acquire_many(RECORDS as u32);
        if tokio::time::timeout(LINGER, all).await.is_err() {
            tracing::warn!("failures of dual writes were not all recorded; the change log brings the rows");
        }
    }

    /// The version of the newest watermark that knows the entity. Ask before the COMMIT.
    pub(crate) fn borrow(&self, entity: &Entity) -> Option<Version> {
        self.watermarks.newest_knowing(&entity.topic).map(|w| w.version)
    }

    /// Makes the writes of a committed transaction: before it returns, or behind it.
    pub(crate) async fn write(&self, writes: Vec<EntityWrite>, gtid: String, mode: DualWriteMode) {
        match mode {
            DualWriteMode::InRequest => self.write_now(writes, gtid).await,
            DualWriteMode::Behind => match Arc::clone(&self.behind).try_acquire_owned() {
                Ok(permit) => {
                    let this = self.clone();
                    self.tasks.spawn(async move {
                        this.write_now(writes, gtid).await;
                        drop(permit);
                    });
                }
                Err(_) => self.failed(&writes, &gtid, "behind", "too many writes are behind"),
            },
        }
    }

    async fn write_now(&self, mut writes: Vec<EntityWrite>, gtid: String) {
        if writes.iter().any(|one| one.write.version.is_none()) {
            return self.failed(
                &writes,
                &gtid,
                "no-watermark",
                "no watermark that knows the table was there to borrow",
            );
        }
        let begun = Instant::now();
        if !self.health.ask(begun) {
            return self.failed(&writes, &gtid, "down", "Cassandra has failed again and again");
        }
        let mutations = writes.iter_mut().flat_map(|one| std::mem::take(&mut one.write.mutations)).collect();
        let written = tokio::time::timeout(self.limit, self.target.write(mutations)).await;
        // A rejection is an answer: Cassandra is there.
        self.health.note(written.is_ok(), Instant::now());
        let outcome = match written {
            Ok(Ok(())) => "ok",
            Ok(Err(error)) => {
                self.failed(&writes, &gtid, "rejected", &error.to_string());
                "rejected"
            }
            Err(_) => {
                self.failed(
                    &writes,
                    &gtid,
                    "late",
                    &format!("Cassandra did not answer within {:?}", self.limit),
                );
                "late"
            }
        };
        self.metrics.store_request("write", "cassandra", outcome, begun.elapsed());
    }

    /// Counts and records a failure. Nobody waits for it.
    fn failed(&self, writes: &[EntityWrite], gtid: &str, kind: &'static str, reason: &str) {
        let mut records = Vec::with_capacity(writes.len());
        for one in writes {
            Metrics::count(&self.metrics.dual_write_failures, &one.entity.name, kind);
            let key = one.entity.framed_key(&one.key);
            let record = key.and_then(|source_key| {
                let failure = DualWriteFailure {
                    table: one.entity.table().name.to_string(),
                    source_key: source_key.clone(),
                    gtid: gtid.to_owned(),
                    version: one.write.version.unwrap_or_default().0,
                    reason: reason.to_owned(),
                    at_us: now_us(),
                };
                Ok(OutRecord::control(Arc::clone(&self.topic), source_key, encode_control(&failure)?))
            });
            match record {
                Ok(record) => records.push(record),
                Err(_) => drop(self.metrics.failures_lost.inc()),
            }
        }
        let Ok(permit) = Arc::clone(&self.recording).try_acquire_owned() else {
            self.metrics.failures_lost.inc_by(records.len() as u64);
            return;
        };
        let (producer, lost) = (self.producer.clone(), self.metrics.failures_lost.clone());
        tokio::spawn(async move {
            let count = records.len() as u64;
            if producer.send(records).await.is_err() {
                lost.inc_by(count);
            }
            drop(permit);
        });
    }
}
