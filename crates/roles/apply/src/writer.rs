//! Maps records and writes them.

use std::sync::Arc;

use futures::future::join_all;
use tandem_cassandra::{Target, WriteError};
use tandem_mapping::{OnBadRow, TablePlan, fold};
use tandem_model::{Change, Disposition, Mutation, Op};
use tandem_runtime::now_us;
use tandem_table_states::States;
use tandem_wire::log::InRecord;

use crate::dead_letters::{BadRow, DeadLetterBox};
use crate::error::ApplyError;
use crate::metrics::Metrics;
use crate::plans::Plans;

/// The reason of a dead letter, or of a halted table, that Cassandra refused.
const REFUSED: &str = "refused-by-cassandra";

/// Changes that are written alone at a time, to find those that Cassandra refuses.
const ALONE: usize = 64;

/// A mapped batch.
pub(crate) struct Mapped {
    pub(crate) records: Vec<InRecord>,
    mutations: Vec<Mutation>,
    /// The commit times of its live changes, in microseconds since the epoch.
    commits_us: Vec<i64>,
    /// The rows of copies.
    copied: u64,
    /// The changes that the mapping cannot convert.
    bad: Vec<BadRow>,
    /// The states by which changes were skipped.
    skipped_by: Arc<States>,
}

/// Writes mapped batches.
pub(crate) struct Writer<'a> {
    pub(crate) target: &'a Target,
    pub(crate) plans: Plans,
    pub(crate) letters: DeadLetterBox,
    pub(crate) metrics: &'a Metrics,
}

impl Writer<'_> {
    /// Writes a batch. When this returns, each of its changes is in Cassandra or is a dead letter that Kafka has
    /// acknowledged, or was skipped when it was mapped.
    ///
    /// # Errors
    /// Returns the error with the batch's records, which can be mapped and written again.
    pub(crate) async fn write(
        &mut self,
        batch: Mapped,
    ) -> Result<Vec<InRecord>, (ApplyError, Vec<InRecord>)> {
        let Mapped { records, mutations, commits_us, copied, mut bad, skipped_by } = batch;
        let count = mutations.len() as u64;
        let refused = match self.target.write(mutations).await {
            Ok(()) => Ok(Vec::new()),
            Err(error) if error.failed.iter().all(|failed| failed.rejection.concerns_table().is_some()) => {
                self.refused(&records, &error, &skipped_by).await
            }
            Err(error) => Err(error.into()),
        };
        match refused {
            Ok(refused) => bad.extend(refused),
            Err(error) => return Err((error, records)),
        }
        if let Err(error) = self.letters.put(bad).await {
            return Err((error, records));
        }
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
        &mut self,
        records: &[InRecord],
        error: &WriteError,
        skipped_by: &States,
    ) -> Result<Vec<BadRow>, ApplyError> {
        let concerned = |mutation: &Mutation| error.failed.iter().any(|f| f.target == mutation.target);
        let mut suspects = Vec::new();
        for record in records {
            let mapped =
                decode(&mut self.plans, record, skipped_by).await.map_err(|source| at(record, source))?;
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
                    None => return Err(at(record, ApplyError::of_table(table, REFUSED, error.into()))),
                }
            }
        }
        Ok(bad)
    }
}

fn may_be_put_aside(plan: &TablePlan) -> bool {
    plan.on_bad_row() == OnBadRow::DeadLetter
}

/// Decodes and maps records, and folds the changes of each target row. Skips the changes of halted tables: the caller has
/// read these states after it fetched the records.
///
/// # Errors
/// Returns the error with the records.
pub(crate) async fn map(
    plans: &mut Plans,
    records: Vec<InRecord>,
    states: &Arc<States>,
) -> Result<Mapped, (ApplyError, Vec<InRecord>)> {
    let mut mapped = Mapped {
        records: Vec::new(),
        mutations: Vec::new(),
        commits_us: Vec::new(),
        copied: 0,
        bad: Vec::new(),
        skipped_by: Arc::clone(states),
    };
    mapped.mutations.reserve(records.len() * 2);
    for record in &records {
        if let Err(error) = map_one(plans, record, states, &mut mapped).await {
            return Err((at(record, error), records));
        }
    }
    mapped.mutations = fold(mapped.mutations);
    Ok(Mapped { records, ..mapped })
}

async fn map_one(
    plans: &mut Plans,
    record: &InRecord,
    states: &States,
    into: &mut Mapped,
) -> Result<(), ApplyError> {
    let Some((change, plan)) = decode(plans, record, states).await? else { return Ok(()) };
    if let Err(error) = plan.mutations(&change, &mut into.mutations) {
        let (table, reason) = (&plan.source().name, error.reason());
        let letter = BadRow::new(record, table, reason, error.to_string());
        match letter.filter(|_| may_be_put_aside(&plan)) {
            Some(letter) => into.bad.push(letter),
            None => return Err(ApplyError::of_table(table, reason, error.into())),
        }
    } else if matches!(change.op, Op::Snapshot | Op::Resnapshot) {
        into.copied += 1;
    } else {
        into.commits_us.push(change.source.ts_us);
    }
    Ok(())
}

/// Decodes a change and finds its plan.
async fn decode(
    plans: &mut Plans,
    record: &InRecord,
    states: &States,
) -> Result<Option<(Change, Arc<TablePlan>)>, ApplyError> {
    // A record without a value is a tombstone for other consumers. The delete itself came in the record before it.
    match &record.value {
        Some(value) => plans.decode(value, record.version, states).await,
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
