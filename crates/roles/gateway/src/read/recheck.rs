//! Differences that reads met: looked at again before they count as mismatches.
//!
//! A read asks both stores at about the same time, so a row that changes meanwhile differs, and so does
//! one that apply has not brought yet. Neither is a fault. What a difference is, is found out behind the
//! answer, by the row check of verification: at a watermark, with Cassandra read once that is applied,
//! and void if the log holds a change of the key since. What it confirms is counted under the read's own
//! reason and published as a mismatch, which reconcile repairs and by which the controller steps back.
//!
//! The change topics are followed only while there are differences.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tandem_cassandra::Target;
use tandem_dead_letters::DeadLetters;
use tandem_kafka::{KafkaConfig, Producer};
use tandem_model::{Phase, TableName};
use tandem_mysql::{Mysql, Reader};
use tandem_protocol::mapping_in_use::Layouts;
use tandem_protocol::route::Reason;
use tandem_protocol::table_state::is_captured;
use tandem_row_check::{ChangeTracker, CheckError, CheckMetrics, CheckedTable, Checker, Outcome, Suspect};
use tandem_runtime::Backoff;
use tandem_table_states::TableStates;
use tandem_watermarks::{Applied, Watermarks};
use tandem_wire::WireError;
use tandem_wire::control::FoundBy;
use tokio::sync::Notify;

use crate::entity::Entity;
use crate::metrics::Metrics;

/// Differences that wait at most; more are counted as not checked.
const ROOM: usize = 1000;
/// Suspect rows of one read at most.
const SUSPECTS: usize = 64;
/// How long Cassandra may take to catch up before a difference is left at that.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long after the last difference the change topics are no longer followed.
const IDLE: Duration = Duration::from_secs(30);
/// The longest pause after an error, before the next differences are looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// What came of a difference that is no mismatch: a later look found the stores equal, or Cassandra
/// did not catch up in time.
pub(crate) const LAGGING: &str = "lagging";
/// The row kept changing.
pub(crate) const CHANGING: &str = "changing";
/// Too many differences waited, or a store or Kafka failed. A lasting one is met by the next read.
pub(crate) const NOT_CHECKED: &str = "not-checked";
/// The tables may not be copied yet, so that a difference says nothing.
pub(crate) const NOT_BACKFILLED: &str = "not-backfilled";

/// Which reads met a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DivergenceSource {
    /// Those that Cassandra should have served.
    Validated,
    /// Those of which nobody waited for Cassandra.
    Shadow,
}

impl DivergenceSource {
    fn found_by(self) -> FoundBy {
        match self {
            Self::Validated => FoundBy::CanaryRead,
            Self::Shadow => FoundBy::ShadowRead,
        }
    }
}

/// How Cassandra's rows differ from MySQL's in one read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Divergence {
    /// The first difference.
    pub(crate) reason: Reason,
    /// The rows to look at.
    pub(crate) suspects: Vec<Suspect>,
}

/// Differences of the same rows are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Difference {
    entity: String,
    source: DivergenceSource,
    /// The rows' keys, framed.
    keys: Vec<Vec<u8>>,
}

/// What is known of a difference.
#[derive(Debug)]
struct Waiting {
    reason: Reason,
    suspects: Vec<Suspect>,
    /// Reads that met it.
    reads: u64,
}

/// The differences that wait.
#[derive(Default)]
struct Queue {
    waiting: Mutex<HashMap<Difference, Waiting>>,
    more: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, HashMap<Difference, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False where there is no room.
    fn add(&self, difference: Difference, differs: Divergence) -> bool {
        let mut waiting = self.lock();
        let full = waiting.len() >= ROOM;
        match waiting.get_mut(&difference) {
            Some(known) => known.reads += 1,
            None if full => return false,
            None => {
                let Divergence { reason, suspects } = differs;
                waiting.insert(difference, Waiting { reason, suspects, reads: 1 });
            }
        }
        drop(waiting);
        self.more.notify_one();
        true
    }

    /// All that wait, by entity.
    fn take(&self) -> BTreeMap<String, Vec<(DivergenceSource, Waiting)>> {
        let mut taken: BTreeMap<String, Vec<(DivergenceSource, Waiting)>> = BTreeMap::new();
        for (difference, known) in self.lock().drain() {
            taken.entry(difference.entity).or_default().push((difference.source, known));
        }
        taken
    }
}

/// Takes differences in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rechecks {
    queue: Arc<Queue>,
    metrics: Metrics,
}

impl Rechecks {
    /// Starts to look at what comes, until the last clone is gone.
    pub(crate) fn start<'a>(
        stores: (Mysql, Target),
        log: (&KafkaConfig, Producer),
        (watermarks, applied): (Watermarks, Applied),
        letters: DeadLetters,
        (states, layouts): (TableStates, Arc<Layouts>),
        entities: impl Iterator<Item = &'a Arc<Entity>>,
        metrics: Metrics,
    ) -> Result<Self, WireError> {
        let topics = log.0.topics();
        let tables = entities.map(|entity| {
            let table = CheckedTable::new(Arc::clone(&entity.plan), &topics)?;
            Ok((entity.name.clone(), table))
        });
        let queue = Arc::new(Queue::default());
        let rechecker = Rechecker {
            tables: tables.collect::<Result<_, WireError>>()?,
            mysql: stores.0,
            target: stores.1,
            kafka: log.0.clone(),
            producer: log.1,
            watermarks,
            applied,
            letters,
            states,
            layouts,
            metrics: metrics.clone(),
        };
        tokio::spawn(rechecker.run(Arc::clone(&queue)));
        Ok(Self { queue, metrics })
    }

    /// A read in `phase` met a difference.
    pub(crate) fn add(
        &self,
        source: DivergenceSource,
        phase: Phase,
        entity: &Entity,
        mut differs: Divergence,
    ) {
        let count = |outcome| count_reads(&self.metrics, source, &entity.name, outcome, 1);
        if phase < Phase::Verify {
            return count(NOT_BACKFILLED);
        }
        differs.suspects.truncate(SUSPECTS);
        let keys: Result<Vec<_>, WireError> =
            differs.suspects.iter().map(|suspect| entity.framed_key(&suspect.key)).collect();
        let Ok(keys) = keys else { return count(NOT_CHECKED) };
        if !self.queue.add(Difference { entity: entity.name.clone(), source, keys }, differs) {
            count(NOT_CHECKED);
        }
    }
}

fn count_reads(metrics: &Metrics, source: DivergenceSource, entity: &str, outcome: &'static str, reads: u64) {
    let family = match source {
        DivergenceSource::Validated => &metrics.validated,
        DivergenceSource::Shadow => &metrics.shadowed,
    };
    Metrics::add(family, entity, outcome, reads);
}

/// What a difference came to, by what its rows came to.
fn outcome(reason: Reason, rows: &[Outcome]) -> &'static str {
    if rows.iter().any(|row| matches!(row, Outcome::Mismatch(_))) {
        reason.name()
    } else if rows.iter().any(|row| matches!(row, Outcome::PutAside | Outcome::Unmappable)) {
        Reason::DeadLetter.name()
    } else if rows.iter().any(|row| matches!(row, Outcome::Undecided)) {
        CHANGING
    } else {
        LAGGING
    }
}

/// Looks at differences again.
struct Rechecker {
    tables: BTreeMap<String, CheckedTable>,
    mysql: Mysql,
    target: Target,
    kafka: KafkaConfig,
    producer: Producer,
    watermarks: Watermarks,
    applied: Applied,
    letters: DeadLetters,
    states: TableStates,
    layouts: Arc<Layouts>,
    metrics: Metrics,
}

impl Rechecker {
    async fn run(self, queue: Arc<Queue>) {
        let mut backoff = Backoff::new(PAUSE, PAUSE);
        loop {
            // This is the last one when no gateway is left to meet differences.
            while queue.lock().is_empty() {
                if Arc::strong_count(&queue) == 1 {
                    return;
                }
                let _ = tokio::time::timeout(IDLE, queue.more.notified()).await;
            }
            if let Err(error) = self.follow(&queue).await {
                tracing::warn!(%error, "differences between the stores could not be looked at again");
                backoff.pause().await;
                for (entity, differences) in queue.take() {
                    self.leave(&entity, &differences, NOT_CHECKED);
                }
            }
        }
    }

    /// Follows the change topics while there are differences.
    async fn follow(&self, queue: &Queue) -> Result<(), CheckError> {
        let topics = self.tables.values().map(|table| table.topic.clone()).collect();
        let states = self.states.now()?;
        let names = self.tables.values().map(|table| &table.source().name);
        let newest = self.watermarks.newest();
        let captured =
            |table: &TableName| newest.as_ref().is_none_or(|w| w.tables.captured.contains_key(table));
        let known: Vec<&TableName> =
            names.filter(|table| is_captured(states.get(table)) && captured(table)).collect();
        let from = self.watermarks.knowing(&known).await?;
        let checker = Checker {
            mysql: self.mysql.clone(),
            target: self.target.clone(),
            watermarks: self.watermarks.clone(),
            applied: self.applied.clone(),
            tracker: ChangeTracker::start(&self.kafka, &topics, &from, None).await?,
            letters: self.letters.clone(),
            states: self.states.clone(),
            layouts: Arc::clone(&self.layouts),
            metrics: CheckMetrics::default(),
        };
        loop {
            if queue.lock().is_empty() {
                if tokio::time::timeout(IDLE, queue.more.notified()).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            let (mut reader, mut failed) = (self.mysql.reader().await?, None);
            for (entity, differences) in queue.take() {
                let looked = self.look(&checker, &mut reader, &entity, &differences);
                let left_at = match tokio::time::timeout(PATIENCE, looked).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => {
                        failed = Some(error);
                        NOT_CHECKED
                    }
                    Err(_) => LAGGING,
                };
                self.leave(&entity, &differences, left_at);
                // It was left in the middle of something.
                reader = self.mysql.reader().await?;
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    async fn look(
        &self,
        checker: &Checker,
        reader: &mut Reader,
        entity: &str,
        differences: &[(DivergenceSource, Waiting)],
    ) -> Result<(), CheckError> {
        let Some(table) = self.tables.get(entity) else { return Ok(()) };
        let (found_by, suspects): (Vec<FoundBy>, Vec<Suspect>) = differences
            .iter()
            .flat_map(|(source, known)| {
                known.suspects.iter().map(|suspect| (source.found_by(), suspect.clone()))
            })
            .unzip();
        let outcomes = checker.settle(reader, table, &suspects).await?;
        let checked = suspects.iter().zip(&outcomes).zip(found_by);
        let checked = checked.map(|((suspect, outcome), found_by)| (suspect, outcome, found_by));
        checker.publish_mismatches(&self.kafka, &self.producer, table, checked).await?;
        let mut rest = outcomes.as_slice();
        for (source, known) in differences {
            let (rows, others) = rest.split_at(known.suspects.len());
            rest = others;
            count_reads(&self.metrics, *source, entity, outcome(known.reason, rows), known.reads);
        }
        Ok(())
    }

    fn leave(&self, entity: &str, differences: &[(DivergenceSource, Waiting)], left_at: &'static str) {
        for (source, known) in differences {
            count_reads(&self.metrics, *source, entity, left_at, known.reads);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::Value;

    fn difference(n: usize) -> (Difference, Divergence) {
        let suspects = vec![Suspect { key: vec![Value::Int(n as i64)], candidates: vec![] }];
        let keys = vec![n.to_be_bytes().to_vec()];
        let difference = Difference { entity: "e".into(), source: DivergenceSource::Validated, keys };
        (difference, Divergence { reason: Reason::Missing, suspects })
    }

    #[test]
    fn reads_that_meet_the_same_are_counted_and_the_queue_is_bounded() {
        let queue = Queue::default();
        let add = |n| {
            let (difference, differs) = difference(n);
            queue.add(difference, differs)
        };
        assert!((0..ROOM).all(add));
        assert!(!add(ROOM), "no room for another one");
        assert!(add(0), "but for one that waits already");
        let taken = queue.take().remove("e").unwrap();
        assert_eq!(taken.len(), ROOM);
        assert_eq!(taken.iter().map(|(_, known)| known.reads).sum::<u64>(), ROOM as u64 + 1);
        assert!(queue.take().is_empty() && add(ROOM));
    }

    #[test]
    fn what_is_not_decided_is_no_mismatch() {
        use Outcome::{Match, Undecided};
        for (rows, expected) in [
            (&[Match, Match][..], LAGGING),
            (&[Match, Undecided], CHANGING),
            (&[Undecided], CHANGING),
            (&[], LAGGING),
        ] {
            assert_eq!(outcome(Reason::Different, rows), expected);
        }
    }
}
