//! The secondary write of a dual write: it writes to Cassandra what MySQL has committed.
//!
//! - It writes the row image that was read back under the row's lock, at the version of a watermark taken
//!   before the COMMIT. A later change in the log has a higher version and wins.
//! - A table that has halted gets none. Its changes wait on the log, or it is copied again.
//! - It only makes the row visible earlier. If it fails, the log still brings the row: the client gets
//!   success, and the gateway records and counts the failure.

use std::sync::Arc;
use std::time::Duration;

use tandem_cassandra::Target;
use tandem_kafka::{KafkaConfig, Producer, PublishError};
use tandem_model::{DualWriteMode, Value, Version};
use tandem_protocol::dual_write::SecondaryWrite;
use tandem_protocol::table_state::is_applied;
use tandem_table_states::TableStates;
use tandem_watermarks::Watermarks;
use tandem_wire::control::{DualWriteFailure, encode_control};
use tandem_wire::log::OutRecord;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::circuit_breaker::CircuitBreaker;
use crate::entity::Entity;
use crate::metrics::Metrics;
use tandem_runtime::now_us;

/// Failure records in flight to Kafka at most.
const MAX_RECORDS: usize = 1000;
/// How long a stop waits for failure records in flight.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

/// The secondary write of one row, and the fields that identify it in a failure record.
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
    pub(crate) health: Arc<CircuitBreaker>,
    metrics: Metrics,
    /// How long Cassandra may take for a write.
    limit: Duration,
    /// Permits for the writes that run after their responses.
    behind: Arc<Semaphore>,
    pub(crate) producer: Producer,
    topic: Arc<str>,
    recording: Arc<Semaphore>,
    tasks: TaskTracker,
    states: TableStates,
}

impl SecondaryWriter {
    /// Starts the writer. Cassandra may take `limit` for a write. Up to `max_async` writes may run after their
    /// responses.
    pub(crate) async fn start(
        kafka: &KafkaConfig,
        target: Target,
        (watermarks, states): (Watermarks, TableStates),
        metrics: Metrics,
        limit: Duration,
        max_async: usize,
        tasks: TaskTracker,
    ) -> Result<Self, PublishError> {
        Ok(Self {
            target,
            watermarks,
            health: Arc::new(CircuitBreaker::default()),
            metrics,
            limit,
            behind: Arc::new(Semaphore::new(max_async)),
            producer: Producer::start(kafka).await?,
            topic: kafka.topics().dual_write_failures().into(),
            recording: Arc::new(Semaphore::new(MAX_RECORDS)),
            tasks,
            states,
        })
    }

    /// Waits until the failures in flight are recorded. The wait is limited because Kafka may be down.
    pub(crate) async fn settle(&self) {
        let all = self.recording.acquire_many(MAX_RECORDS as u32);
        if tokio::time::timeout(SETTLE_TIMEOUT, all).await.is_err() {
            tracing::warn!("not all failed dual writes were recorded; the change log brings their rows");
        }
    }

    /// The version of the newest watermark that knows the entity's table. Call this before the COMMIT.
    pub(crate) fn borrow(&self, entity: &Entity) -> Option<Version> {
        self.watermarks.newest_knowing(&entity.table().name).map(|w| w.version)
    }

    /// Makes the writes of a committed transaction, before this returns or in the background, by `mode`.
    pub(crate) async fn write(&self, mut writes: Vec<EntityWrite>, gtid: String, mode: DualWriteMode) {
        if let Ok(states) = self.states.now() {
            writes.retain(|one| is_applied(states.get(&one.entity.table().name)));
        }
        if writes.is_empty() {
            return;
        }
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
                Err(_) => self.failed(&writes, &gtid, "behind", "too many asynchronous writes are in flight"),
            },
        }
    }

    async fn write_now(&self, mut writes: Vec<EntityWrite>, gtid: String) {
        if writes.iter().any(|one| one.write.version.is_none()) {
            return self.failed(
                &writes,
                &gtid,
                "no-watermark",
                "no watermark covered the table yet, so there was no version to write at",
            );
        }
        let begun = Instant::now();
        if !self.health.ask(begun) {
            return self.failed(&writes, &gtid, "down", "Cassandra has failed repeatedly");
        }
        let mutations = writes.iter_mut().flat_map(|one| std::mem::take(&mut one.write.mutations)).collect();
        let written = tokio::time::timeout(self.limit, self.target.write(mutations)).await;
        // A rejection is an answer too: Cassandra is up.
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

    /// Counts a failure and records it in the background.
    fn failed(&self, writes: &[EntityWrite], gtid: &str, kind: &'static str, reason: &str) {
        let mut records = Vec::with_capacity(writes.len());
        for one in writes {
            Metrics::count(&self.metrics.dual_write_failures, &one.entity.name, kind);
            self.metrics.tally.dual_write_failed();
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
