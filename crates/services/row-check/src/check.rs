//! The check of rows.

use std::collections::HashMap;
use std::sync::Arc;

use tandem_cassandra::{ReadError, Target, WriteError};
use tandem_kafka::ConsumeError;
use tandem_mapping::{RowError, TablePlan, differences};
use tandem_model::{Cell, Row, TableDef, TargetKey, Value, Watermark};
use tandem_mysql::{Mysql, MysqlError, Reader};
use tandem_protocol::row_check::{TargetDifference, Verdict, judge};
use tandem_watermarks::{Applied, WatermarkError, Watermarks};
use tandem_wire::{ReadKeySchema, TableSchema, WireError};

use crate::metrics::CheckMetrics;
use crate::tracker::{ChangeTracker, TrackerError};

/// How often a check is begun again while its key keeps changing.
const ROUNDS: usize = 10;

/// Why rows could not be checked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each variant is the error of the part it names
pub enum CheckError {
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    #[error(transparent)]
    Tracker(#[from] TrackerError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Publish(#[from] tandem_kafka::PublishError),
    #[error("the backfill of {0} is not complete: its rows can be checked once it is")]
    NotBackfilled(String),
}

impl CheckError {
    /// Whether a new connection and another attempt may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Mysql(error) | Self::Watermark(WatermarkError::Mysql(error)) => error.is_transient(),
            Self::Watermark(WatermarkError::Late { .. }) | Self::Read(ReadError::Unavailable { .. }) => true,
            Self::Consume(error) => error.is_retriable(),
            Self::Publish(error) => error.is_retriable(),
            Self::Watermark(_)
            | Self::Tracker(_)
            | Self::Read(_)
            | Self::Write(_)
            | Self::Row(_)
            | Self::Wire(_)
            | Self::NotBackfilled(_) => false,
        }
    }
}

/// A mapped table with what a check of it needs.
pub struct CheckedTable {
    /// Its plan.
    pub plan: Arc<TablePlan>,
    /// Its change topic.
    pub topic: String,
    schema: TableSchema,
    key_schema: ReadKeySchema,
}

impl CheckedTable {
    /// Prepares the check of a table whose changes are in `topic`.
    pub fn new(plan: Arc<TablePlan>, topic: String, prefix: &str) -> Result<Self, WireError> {
        let schema = TableSchema::new(Arc::clone(plan.source()), prefix);
        let key_schema = ReadKeySchema::parse(schema.key_json())?;
        Ok(Self { plan, topic, schema, key_schema })
    }

    /// The table in MySQL.
    pub fn source(&self) -> &Arc<TableDef> {
        self.plan.source()
    }

    /// A key as the change topic's records carry it.
    pub fn framed_key(&self, key: &[Value]) -> Result<Vec<u8>, WireError> {
        let mut out = Vec::new();
        self.schema.encode_key_values(key, &mut out)?;
        Ok(out)
    }

    /// The key's values.
    pub fn key_values(&self, framed: &[u8]) -> Result<Vec<Value>, WireError> {
        self.key_schema.decode(framed)
    }
}

/// A source key to check.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspect {
    /// The primary key in MySQL.
    pub key: Vec<Value>,
    /// Target keys (by the target's number) that exist or existed, besides those of the row itself:
    /// they must hold the row or nothing.
    pub candidates: Vec<(usize, TargetKey)>,
}

/// A confirmed mismatch of one source row.
#[derive(Debug, Clone)]
pub struct Confirmed {
    /// The row as MySQL has it.
    pub row: Option<Row>,
    /// W₁: what may be borrowed for the repair.
    pub lower: Arc<Watermark>,
    /// W₃.
    pub upper: Arc<Watermark>,
    /// What differs, target row by target row.
    pub differences: Vec<TargetDifference>,
}

/// What the check of one suspect came to.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Both stores agree.
    Match,
    /// The key kept changing.
    Undecided,
    /// They differ.
    Mismatch(Confirmed),
}

/// Checks rows. Cheap to clone but for its connections, which its callers hold.
#[derive(Clone)]
pub struct Checker {
    /// The source.
    pub mysql: Mysql,
    /// The target; the plans' tables are prepared.
    pub target: Target,
    /// The watermarks of the source.
    pub watermarks: Watermarks,
    /// What has been applied.
    pub applied: Applied,
    /// What changed when.
    pub tracker: ChangeTracker,
    /// What is counted.
    pub metrics: CheckMetrics,
}

impl Checker {
    /// Checks suspects of one table, again and again while their keys keep changing, ten times at
    /// most. The outcomes are in the order of the suspects.
    pub async fn settle(
        &self,
        reader: &mut Reader,
        table: &CheckedTable,
        suspects: &[Suspect],
    ) -> Result<Vec<Outcome>, CheckError> {
        let mut outcomes: Vec<Outcome> = suspects.iter().map(|_| Outcome::Undecided).collect();
        for _ in 0..ROUNDS {
            let open: Vec<usize> =
                (0..suspects.len()).filter(|&i| matches!(outcomes[i], Outcome::Undecided)).collect();
            if open.is_empty() {
                break;
            }
            let lower = self.watermarks.borrow(reader, &table.topic).await?;
            let keys: Vec<Vec<Value>> = open.iter().map(|&i| suspects[i].key.clone()).collect();
            let rows = reader.read_keys(table.source(), &keys).await?;
            let read = open.iter().zip(rows).map(|(&i, row)| (&suspects[i], row)).collect();
            for (&i, outcome) in open.iter().zip(self.compare(reader, table, lower, read).await?) {
                outcomes[i] = outcome;
            }
        }
        let undecided = outcomes.iter().filter(|o| matches!(o, Outcome::Undecided)).count();
        self.metrics.undecided.inc_by(undecided as u64);
        Ok(outcomes)
    }

    /// Compares rows that `reader` has read after it borrowed `lower` with what Cassandra holds.
    ///
    /// The order of the steps is the proof: W₁ was within `@@gtid_executed` before MySQL was read;
    /// Cassandra is read after W₁ is applied; the binlog's end is asked for after that; and the
    /// verdict waits until this process has seen the whole log up to a watermark that covers that end.
    pub async fn compare(
        &self,
        reader: &mut Reader,
        table: &CheckedTable,
        lower: Arc<Watermark>,
        read: Vec<(&Suspect, Option<Row>)>,
    ) -> Result<Vec<Outcome>, CheckError> {
        self.applied.wait(&lower, &table.topic).await?;
        let found = self.differing(table, &read).await?;
        self.metrics.rows.inc_by(read.len() as u64);
        if found.iter().all(Vec::is_empty) {
            return Ok(found.iter().map(|_| Outcome::Match).collect());
        }
        let end = reader.binlog_end().await?;
        let upper = self.watermarks.covering(&end, lower.version).await?;
        if let Some(ends) = upper.offsets.get(&table.topic) {
            self.tracker.seen(&table.topic, ends).await?;
        }
        let floor = self.tracker.floor();
        let outcomes = read.into_iter().zip(found).map(|((suspect, row), differences)| {
            let key = table.framed_key(&suspect.key)?;
            let last_change = self.tracker.last_change(&table.topic, &key);
            Ok(match judge(!differences.is_empty(), last_change, lower.version, floor) {
                Verdict::Match => Outcome::Match,
                Verdict::Undecided => Outcome::Undecided,
                Verdict::Mismatch => Outcome::Mismatch(Confirmed {
                    row,
                    lower: Arc::clone(&lower),
                    upper: Arc::clone(&upper),
                    differences,
                }),
            })
        });
        outcomes.collect()
    }

    /// Reads Cassandra and compares, suspect by suspect.
    async fn differing(
        &self,
        table: &CheckedTable,
        read: &[(&Suspect, Option<Row>)],
    ) -> Result<Vec<Vec<TargetDifference>>, CheckError> {
        // For each target: the keys to look at, what they must hold, and whose they are.
        type Look = (Vec<TargetKey>, Vec<(usize, Option<Vec<Cell>>)>);
        let mut looks: HashMap<usize, Look> = HashMap::new();
        for (i, (suspect, row)) in read.iter().enumerate() {
            let expected = row.as_ref().map_or(Ok(Vec::new()), |row| table.plan.expected(row))?;
            for (target, key) in &suspect.candidates {
                if !expected.iter().any(|e| e.target == *target && e.key == *key) {
                    let (keys, wanted) = looks.entry(*target).or_default();
                    keys.push(key.clone());
                    wanted.push((i, None));
                }
            }
            for row in expected {
                let (keys, wanted) = looks.entry(row.target).or_default();
                keys.push(row.key);
                wanted.push((i, Some(row.cells)));
            }
        }
        let mut out: Vec<Vec<TargetDifference>> = read.iter().map(|_| Vec::new()).collect();
        for (target, (keys, wanted)) in looks {
            let name = &table.plan.targets()[target].table().name;
            let stored = self.target.read(name, &keys).await?;
            for ((key, (suspect, expected)), stored) in keys.into_iter().zip(wanted).zip(stored) {
                if let Some(difference) = differences(expected.as_deref(), stored.as_ref()) {
                    let writetimes =
                        stored.map_or(Vec::new(), |s| s.writetimes.into_iter().flatten().collect());
                    out[suspect].push(TargetDifference { target, key, difference, writetimes });
                }
            }
        }
        Ok(out)
    }
}
