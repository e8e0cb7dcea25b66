//! The apply loop.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tandem_cassandra::{Target, WriteError};
use tandem_kafka::{GroupConsumer, KafkaConfig, SchemaStore};
use tandem_mapping::{OnBadRow, TablePlan, fold};
use tandem_model::{Change, Disposition, Mutation, Op};
use tandem_runtime::now_us;
use tandem_wire::log::InRecord;
use tokio_util::sync::CancellationToken;

use crate::dead_letters::{BadRow, DeadLetterBox};
use crate::error::ApplyError;
use crate::metrics::Metrics;
use crate::plans::Plans;

/// The settings of apply.
#[derive(Debug, Clone)]
pub struct ApplyConfig {
    /// Records folded and written together at most.
    pub max_records: usize,
    /// Dead letters of one table within a minute at most. Apply stops at more.
    pub max_dead_letters_per_minute: usize,
}

/// The reason of a dead letter that Cassandra refused.
const REFUSED: &str = "refused-by-cassandra";

/// Changes that are written alone at a time, to find those that Cassandra refuses.
const ALONE: usize = 64;

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
    /// The rows of copies.
    copied: u64,
    /// The changes that the mapping cannot convert.
    bad: Vec<BadRow>,
}

impl Apply {
    /// Applies changes until `stop`, then finishes the batch that is being written.
    ///
    /// # Errors
    ///
    /// Fails if Kafka cannot be read or written, if Cassandra cannot be written, and on a record that neither can be
    /// applied nor may become a dead letter.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), ApplyError> {
        let topics = self.kafka.topics();
        let tables = self.plans.iter().map(|plan| &plan.source().name);
        let names = topics.of_tables(tables);
        let limit = self.config.max_dead_letters_per_minute;
        let mut letters = DeadLetterBox::open(&self.kafka, limit, self.metrics.clone()).await?;
        let consumer = GroupConsumer::start(&self.kafka, &topics.apply_group(), &names).await?;
        let outcome = self.consume(&consumer, &mut letters, &stop).await;
        consumer.close().await;
        outcome
    }

    async fn consume(
        &self,
        consumer: &GroupConsumer,
        letters: &mut DeadLetterBox,
        stop: &CancellationToken,
    ) -> Result<(), ApplyError> {
        let (mut plans, mut plans_alone) = (self.plans(), self.plans());
        let mut next: Option<Mapped> = None;
        loop {
            // While one batch is being written, the next one is fetched and mapped. What is written is done at once: the
            // next records may be long in coming, and clients wait for these offsets.
            let written = async {
                if let Some(batch) = next.take() {
                    let records = self.write(batch, &mut plans_alone, letters).await?;
                    consumer.done(&records)?;
                }
                Ok::<(), ApplyError>(())
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
            written?;
            match fetched? {
                Some(batch) => next = Some(batch),
                None => return Ok(()),
            }
        }
    }

    fn plans(&self) -> Plans {
        Plans::new(self.kafka.clone(), self.schemas.clone(), self.plans.iter().cloned())
    }

    /// Writes a batch. When this returns, each of its changes is in Cassandra or is a dead letter that Kafka has
    /// acknowledged.
    async fn write(
        &self,
        batch: Mapped,
        plans: &mut Plans,
        letters: &mut DeadLetterBox,
    ) -> Result<Vec<InRecord>, ApplyError> {
        let Mapped { records, mutations, commits_us, copied, mut bad } = batch;
        let count = mutations.len() as u64;
        match self.target.write(mutations).await {
            Ok(()) => {}
            Err(error) if error.retry() == Disposition::Refuse => {
                bad.extend(self.refused(plans, &records, &error).await?);
            }
            Err(error) => return Err(error.into()),
        }
        letters.put(bad).await?;
        let now = now_us();
        for commit in &commits_us {
            self.metrics.latency.observe((now - commit).max(0) as f64 / 1e6);
        }
        self.metrics.mutations.inc_by(count);
        self.metrics.rows.inc_by(commits_us.len() as u64);
        self.metrics.backfill_rows.inc_by(copied);
        Ok(records)
    }

    /// Finds the changes that Cassandra refuses, by writing each change alone that concerns one of the refused tables.
    ///
    /// All other writes of the batch are in Cassandra. A change that is written again carries the same version, so it
    /// does no harm.
    async fn refused(
        &self,
        plans: &mut Plans,
        records: &[InRecord],
        error: &WriteError,
    ) -> Result<Vec<BadRow>, ApplyError> {
        let concerned = |mutation: &Mutation| error.failed.iter().any(|f| f.target == mutation.target);
        let mut suspects = Vec::new();
        for record in records {
            let mapped = decode(plans, record).await.map_err(|source| at(record, source))?;
            let Some((change, plan)) = mapped else { continue };
            let mut mutations = Vec::new();
            // A change that cannot be converted is a dead letter already.
            if plan.mutations(&change, &mut mutations).is_ok() && mutations.iter().any(concerned) {
                suspects.push((record, plan, fold(mutations)));
            }
        }
        let mut bad = Vec::new();
        while !suspects.is_empty() {
            let some: Vec<_> = suspects.drain(..suspects.len().min(ALONE)).collect();
            let written = some
                .into_iter()
                .map(async |(record, plan, mutations)| (record, plan, self.target.write(mutations).await));
            for (record, plan, outcome) in join_all(written).await {
                let Err(error) = outcome else { continue };
                let table = &plan.source().name;
                let letter = BadRow::new(record, table, REFUSED, error.to_string());
                match letter.filter(|_| may_be_put_aside(&plan) && error.retry() == Disposition::Refuse) {
                    Some(letter) => bad.push(letter),
                    None => return Err(at(record, error.into())),
                }
            }
        }
        Ok(bad)
    }
}

fn may_be_put_aside(plan: &TablePlan) -> bool {
    plan.on_bad_row() == OnBadRow::DeadLetter
}

/// Decodes and maps records, and folds the changes of each target row.
async fn map(plans: &mut Plans, records: Vec<InRecord>) -> Result<Mapped, ApplyError> {
    let mut mutations = Vec::with_capacity(records.len() * 2);
    let mut commits_us = Vec::with_capacity(records.len());
    let (mut copied, mut bad) = (0, Vec::new());
    for record in &records {
        let decoded = decode(plans, record).await.map_err(|source| at(record, source))?;
        let Some((change, plan)) = decoded else { continue };
        if let Err(error) = plan.mutations(&change, &mut mutations) {
            let letter = BadRow::new(record, &plan.source().name, error.reason(), error.to_string());
            match letter.filter(|_| may_be_put_aside(&plan)) {
                Some(letter) => bad.push(letter),
                None => return Err(at(record, error.into())),
            }
        } else if matches!(change.op, Op::Snapshot | Op::Resnapshot) {
            copied += 1;
        } else {
            commits_us.push(change.source.ts_us);
        }
    }
    Ok(Mapped { mutations: fold(mutations), records, commits_us, copied, bad })
}

/// Decodes a change and finds its plan.
async fn decode(
    plans: &mut Plans,
    record: &InRecord,
) -> Result<Option<(Change, Arc<TablePlan>)>, ApplyError> {
    // A record without a value is a tombstone for other consumers. The delete itself came in the record before it.
    match &record.value {
        Some(value) => plans.decode(value, record.version).await,
        None => Ok(None),
    }
}

fn at(record: &InRecord, source: ApplyError) -> ApplyError {
    ApplyError::At {
        topic: Arc::clone(&record.topic),
        partition: record.partition,
        offset: record.offset,
        source: Box::new(source),
    }
}
