//! The second leg of a dual write: what MySQL has committed, written to Cassandra.
//!
//! - It carries the version of a watermark that was taken before the COMMIT, and writes the image read
//!   back under the row's lock. A change that comes later in the log has a higher version and wins.
//! - It is early, the log is right: what fails here is brought by the log. The client has its success,
//!   and the failure is recorded and counted.

use std::sync::Arc;
use std::time::Duration;

use tandem_cassandra_target::Target;
use tandem_event_log::{KafkaConfig, OutRecord, Producer, PublishError, Topics};
use tandem_mapping::RowError;
use tandem_model::{DualWriteMode, Mutation, Row, TargetKey, Value, Version};
use tandem_watermarks::Watermarks;
use tandem_wire::control::{DualWriteFailure, encode_control};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::clock::now_us;
use crate::entity::Entity;
use crate::gateway::GatewayConfig;
use crate::health::Health;
use crate::metrics::Metrics;

/// Failures on their way to Kafka at most.
const RECORDS: usize = 1000;
/// How long a stop waits for them.
const LINGER: Duration = Duration::from_secs(3);

/// What one row's change writes, once it is committed.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) entity: Arc<Entity>,
    pub(crate) key: Vec<Value>,
    /// The version borrowed, if there was a watermark.
    version: Option<Version>,
    mutations: Vec<Mutation>,
}

impl Leg {
    /// `after` is the row as it will be committed, `gone` are the target keys that it had before.
    pub(crate) fn new(
        entity: Arc<Entity>,
        key: Vec<Value>,
        after: Option<&Row>,
        gone: &[(usize, TargetKey)],
        version: Option<Version>,
    ) -> Result<Self, RowError> {
        let mutations = entity.plan.repair(after, gone, version.unwrap_or_default())?;
        Ok(Self { entity, key, version, mutations })
    }

    #[cfg(test)]
    pub(crate) fn mutations(&self) -> &[Mutation] {
        &self.mutations
    }
}

/// Writes second legs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DualWriter {
    pub(crate) target: Target,
    watermarks: Watermarks,
    pub(crate) health: Arc<Health>,
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

impl DualWriter {
    /// `config` bounds how long Cassandra may take and how many writes may be behind.
    pub(crate) async fn start(
        kafka: &KafkaConfig,
        target: Target,
        watermarks: Watermarks,
        metrics: Metrics,
        config: &GatewayConfig,
        tasks: TaskTracker,
    ) -> Result<Self, PublishError> {
        Ok(Self {
            target,
            watermarks,
            health: Arc::new(Health::default()),
            metrics,
            limit: config.cassandra_write,
            behind: Arc::new(Semaphore::new(config.max_behind)),
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

    /// Writes the legs of a committed transaction: before it returns, or behind it.
    pub(crate) async fn write(&self, legs: Vec<Leg>, gtid: String, mode: DualWriteMode) {
        match mode {
            DualWriteMode::InRequest => self.write_now(legs, gtid).await,
            DualWriteMode::Behind => match Arc::clone(&self.behind).try_acquire_owned() {
                Ok(permit) => {
                    let this = self.clone();
                    self.tasks.spawn(async move {
                        this.write_now(legs, gtid).await;
                        drop(permit);
                    });
                }
                Err(_) => self.failed(&legs, &gtid, "behind", "too many writes are behind"),
            },
        }
    }

    async fn write_now(&self, mut legs: Vec<Leg>, gtid: String) {
        if legs.iter().any(|leg| leg.version.is_none()) {
            return self.failed(
                &legs,
                &gtid,
                "no-watermark",
                "no watermark that knows the table was there to borrow",
            );
        }
        let begun = Instant::now();
        if !self.health.ask(begun) {
            return self.failed(&legs, &gtid, "down", "Cassandra has failed again and again");
        }
        let mutations = legs.iter_mut().flat_map(|leg| std::mem::take(&mut leg.mutations)).collect();
        let written = tokio::time::timeout(self.limit, self.target.write(mutations)).await;
        // A rejection is an answer: Cassandra is there.
        self.health.note(written.is_ok(), Instant::now());
        let outcome = match written {
            Ok(Ok(())) => "ok",
            Ok(Err(error)) => {
                self.failed(&legs, &gtid, "rejected", &error.to_string());
                "rejected"
            }
            Err(_) => {
                self.failed(
                    &legs,
                    &gtid,
                    "late",
                    &format!("Cassandra did not answer within {:?}", self.limit),
                );
                "late"
            }
        };
        self.metrics.leg("write", "cassandra", outcome, begun.elapsed());
    }

    /// Counts and records a failure. Nobody waits for it.
    fn failed(&self, legs: &[Leg], gtid: &str, kind: &'static str, reason: &str) {
        let mut records = Vec::with_capacity(legs.len());
        for leg in legs {
            Metrics::count(&self.metrics.dual_write_failures, &leg.entity.name, kind);
            let key = leg.entity.framed_key(&leg.key);
            let record = key.and_then(|source_key| {
                let failure = DualWriteFailure {
                    table: leg.entity.table().name.to_string(),
                    source_key: source_key.clone(),
                    gtid: gtid.to_owned(),
                    version: leg.version.unwrap_or_default().0,
                    reason: reason.to_owned(),
                    at_us: now_us(),
                };
                Ok(OutRecord {
                    topic: Arc::clone(&self.topic),
                    partition: 0,
                    key: source_key,
                    value: Some(encode_control(&failure)?),
                    version: None,
                    timestamp_ms: None,
                })
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
