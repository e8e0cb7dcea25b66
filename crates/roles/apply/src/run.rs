//! The apply loop.

use std::sync::Arc;
use std::time::Duration;

use tandem_cassandra::{Target, WriteError};
use tandem_kafka::{GroupConsumer, KafkaConfig, SchemaStore};
use tandem_mapping::{TablePlan, fold};
use tandem_model::{Mutation, Op};
use tandem_runtime::now_us;
use tandem_wire::log::InRecord;
use tokio_util::sync::CancellationToken;

use crate::error::ApplyError;
use crate::metrics::Metrics;
use crate::plans::Plans;

/// The settings of apply.
#[derive(Debug, Clone)]
pub struct ApplyConfig {
    /// Records folded and written together at most.
    pub max_records: usize,
}

/// Applies changes to Cassandra.
pub struct Apply {
    /// The log.
    pub kafka: KafkaConfig,
    /// Where schemas are read.
    pub schemas: SchemaStore,
    /// Cassandra, with statements prepared for the plans' tables.
    pub target: Target,
    /// The mapped tables.
    pub plans: Vec<Arc<TablePlan>>,
    /// The settings.
    pub config: ApplyConfig,
    /// The metrics.
    pub metrics: Metrics,
}

/// A mapped batch.
struct Mapped {
    records: Vec<InRecord>,
    mutations: Vec<Mutation>,
    /// The commit times of its live changes, in microseconds since the epoch.
    commits_us: Vec<i64>,
}

impl Apply {
    /// Applies changes until `stop`, then finishes the batch that is being written.
    ///
    /// # Errors
    ///
    /// Fails on a record that cannot be applied, and if Kafka cannot be read or Cassandra cannot be written.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), ApplyError> {
        let topics = self.kafka.topics();
        let tables = self.plans.iter().map(|plan| &plan.source().name);
        let names = topics.of_tables(tables);
        let mut consumer = GroupConsumer::start(&self.kafka, &topics.apply_group(), &names).await?;
        let outcome = self.consume(&mut consumer, &stop).await;
        consumer.close().await;
        outcome
    }

    async fn consume(
        &self,
        consumer: &mut GroupConsumer,
        stop: &CancellationToken,
    ) -> Result<(), ApplyError> {
        let mut plans = Plans::new(self.kafka.clone(), self.schemas.clone(), self.plans.iter().cloned());
        let mut next: Option<Mapped> = None;
        loop {
            // While one batch is being written, the next one is fetched and mapped.
            let written = async {
                match next.take() {
                    Some(batch) => self.write(batch).await.map(Some),
                    None => Ok(None),
                }
            };
            let fetched = async {
                if stop.is_cancelled() {
                    return Ok(None);
                }
                let records = tokio::select! {
                    records = consumer.next_batch(self.config.max_records, Duration::from_millis(100)) => records?,
                    () = stop.cancelled() => return Ok(None),
                };
                map(&mut plans, records).await.map(Some)
            };
            let (written, fetched) = tokio::join!(written, fetched);
            if let Some(records) = written? {
                consumer.done(&records)?;
            }
            match fetched? {
                Some(batch) => next = Some(batch),
                None => return Ok(()),
            }
        }
    }

    async fn write(&self, batch: Mapped) -> Result<Vec<InRecord>, WriteError> {
        let count = batch.mutations.len() as u64;
        self.target.write(batch.mutations).await?;
        let now = now_us();
        for commit in &batch.commits_us {
            self.metrics.latency.observe((now - commit).max(0) as f64 / 1e6);
        }
        self.metrics.mutations.inc_by(count);
        self.metrics.rows.inc_by(batch.commits_us.len() as u64);
        self.metrics.backfill_rows.inc_by((batch.records.len() - batch.commits_us.len()) as u64);
        Ok(batch.records)
    }
}

/// Decodes and maps records, and folds the changes of each target row.
async fn map(plans: &mut Plans, records: Vec<InRecord>) -> Result<Mapped, ApplyError> {
    let mut mutations = Vec::with_capacity(records.len() * 2);
    let mut commits_us = Vec::with_capacity(records.len());
    for record in &records {
        map_one(plans, record, &mut mutations, &mut commits_us).await.map_err(|source| ApplyError::At {
            topic: Arc::clone(&record.topic),
            partition: record.partition,
            offset: record.offset,
            source: Box::new(source),
        })?;
    }
    Ok(Mapped { records, mutations: fold(mutations), commits_us })
}

async fn map_one(
    plans: &mut Plans,
    record: &InRecord,
    mutations: &mut Vec<Mutation>,
    commits_us: &mut Vec<i64>,
) -> Result<(), ApplyError> {
    // A record without a value is a tombstone for other consumers. The delete itself came in the record before it.
    let Some(value) = &record.value else { return Ok(()) };
    let Some((change, plan)) = plans.decode(value, record.version).await? else { return Ok(()) };
    plan.mutations(&change, mutations)?;
    if !matches!(change.op, Op::Snapshot | Op::Resnapshot) {
        commits_us.push(change.source.ts_us);
    }
    Ok(())
}
