//! The row check.

use std::collections::HashMap;
use std::sync::Arc;

use tandem_cassandra::{ReadError, SchemaError, Target, WriteError};
use tandem_dead_letters::{DeadLetters, DeadLettersError};
use tandem_kafka::ConsumeError;
use tandem_mapping::{RowError, TablePlan, differences};
use tandem_model::{Cell, Disposition, Remedy, Row, TableDef, TargetKey, Value, Watermark};
use tandem_mysql::{Mysql, MysqlError, Reader};
use tandem_protocol::mapping_in_use::Layouts;
use tandem_protocol::row_check::{Evidence, TargetDifference, Verdict, judge};
use tandem_protocol::table_state;
use tandem_table_states::{States, TableStates, TableStatesError};
use tandem_watermarks::{Applied, WatermarkError, Watermarks};
use tandem_wire::log::Topics;
use tandem_wire::{ReadKeySchema, TableSchema, WireError};

use crate::metrics::CheckMetrics;
use crate::tracker::{ChangeTracker, TrackerError};

/// The most attempts of a check while its key keeps changing.
const MAX_ROUNDS: usize = 10;

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
    DeadLetters(#[from] DeadLettersError),
    #[error(transparent)]
    States(#[from] TableStatesError),
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
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(
        "table `{0}` in Cassandra does not belong to this migration any more: nothing is repaired or deleted there"
    )]
    NotOwned(String),
    #[error(
        "apply uses another mapping than this tandem.toml now: nothing is verified or repaired by this one. Restart with the \
         tandem.toml that apply has"
    )]
    OtherMapping,
    #[error("the backfill of {0} is not complete: its rows can be checked once it is")]
    NotBackfilled(String),
}

impl CheckError {
    /// What the caller does next. A retry needs a new connection to MySQL.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Mysql(error) => error.retry(),
            Self::Watermark(error) => error.retry(),
            Self::Consume(error) => error.retry(),
            Self::Tracker(error) => error.retry(),
            Self::Read(error) => error.retry(),
            Self::Write(error) => error.retry(),
            Self::Row(error) => error.retry(),
            Self::Wire(error) => error.retry(),
            Self::Publish(error) => error.retry(),
            Self::Schema(error) => error.retry(),
            // A follower that has ended does not start again.
            Self::DeadLetters(_)
            | Self::States(_)
            | Self::NotOwned(_)
            | Self::OtherMapping
            | Self::NotBackfilled(_) => Disposition::Stop,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Watermark(error) => error.remedy(),
            Self::Consume(error) => error.remedy(),
            Self::Tracker(error) => error.remedy(),
            Self::DeadLetters(error) => error.remedy(),
            Self::States(error) => error.remedy(),
            Self::Mysql(_)
            | Self::Read(_)
            | Self::Write(_)
            | Self::Row(_)
            | Self::Wire(_)
            | Self::Publish(_)
            | Self::Schema(_)
            | Self::NotOwned(_)
            | Self::OtherMapping
            | Self::NotBackfilled(_) => None,
        }
    }
}

/// A mapped table, prepared for the check.
pub struct CheckedTable {
    /// Its plan.
    pub plan: Arc<TablePlan>,
    /// Its change topic.
    pub topic: String,
    schema: TableSchema,
    key_schema: ReadKeySchema,
}

impl CheckedTable {
    /// Prepares the check of a table on the log with these topics.
    ///
    /// # Errors
    /// The key schema of the table cannot be built.
    pub fn new(plan: Arc<TablePlan>, topics: &Topics) -> Result<Self, WireError> {
        let topic = topics.changes(&plan.source().name);
        let schema = topics.schema(Arc::clone(plan.source()));
        let key_schema = ReadKeySchema::parse(schema.key_json())?;
        Ok(Self { plan, topic, schema, key_schema })
    }

    /// The table in MySQL.
    pub fn source(&self) -> &Arc<TableDef> {
        self.plan.source()
    }

    /// Encodes a key as in the records of the change topic.
    ///
    /// # Errors
    /// A value does not match its column.
    pub fn framed_key(&self, key: &[Value]) -> Result<Vec<u8>, WireError> {
        let mut out = Vec::new();
        self.schema.encode_key_values(key, &mut out)?;
        Ok(out)
    }

    /// Decodes the values of a key.
    ///
    /// # Errors
    /// The bytes are not a key of this table.
    pub fn key_values(&self, framed: &[u8]) -> Result<Vec<Value>, WireError> {
        self.key_schema.decode(framed)
    }
}

/// A source key to check.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspect {
    /// The primary key in MySQL.
    pub key: Vec<Value>,
    /// Other target keys that exist or existed for this source key, by the target's number. Each must hold
    /// the row or nothing.
    pub candidates: Vec<(usize, TargetKey)>,
}

/// A confirmed mismatch of one source row.
#[derive(Debug, Clone)]
pub struct Confirmed {
    /// The row in MySQL.
    pub row: Option<Row>,
    /// W₁, the watermark that a repair may borrow.
    pub lower: Arc<Watermark>,
    /// W₃, the upper bound of the check.
    pub upper: Arc<Watermark>,
    /// The differences of each target row.
    pub differences: Vec<TargetDifference>,
}

/// The outcome of the check of one suspect.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Both stores agree.
    Match,
    /// The key kept changing during the check.
    Undecided,
    /// A dead letter of the key is open, or the table has halted. The row must be checked once that is settled.
    PutAside,
    /// The mapping cannot convert MySQL's row. Its change becomes a dead letter, or was discarded.
    Unmappable,
    /// The stores differ.
    Mismatch(Confirmed),
}

/// W₁, with what was known of dead letters and of the table when it was borrowed.
#[derive(Debug, Clone)]
pub struct LowerBound {
    watermark: Arc<Watermark>,
    letters: i64,
    /// The incarnation of the table's state, if it has one.
    incarnation: Option<i64>,
}

/// Checks rows. Cheap to clone. The callers hold the MySQL connections.
#[derive(Clone)]
pub struct Checker {
    /// The source.
    pub mysql: Mysql,
    /// The target. The tables of all plans are prepared.
    pub target: Target,
    /// The watermarks of the source.
    pub watermarks: Watermarks,
    /// The offsets of the apply group.
    pub applied: Applied,
    /// The latest change of each key.
    pub tracker: ChangeTracker,
    /// The changes that apply has put aside.
    pub letters: DeadLetters,
    /// The states of tables, and the mapping in use.
    pub states: TableStates,
    /// The layouts by which rows are compared.
    pub layouts: Arc<Layouts>,
    /// The counters.
    pub metrics: CheckMetrics,
}

impl Checker {
    /// Checks suspects of one table. Rechecks a suspect while its key keeps changing, up to ten times in
    /// total. The outcomes are in the order of the suspects.
    ///
    /// # Errors
    /// A store or the log cannot be read, no watermark arrives in time, or a row cannot be converted. Rows differ, but by a
    /// layout that is not in use any more.
    pub async fn settle(
        &self,
        reader: &mut Reader,
        table: &CheckedTable,
        suspects: &[Suspect],
    ) -> Result<Vec<Outcome>, CheckError> {
        let mut outcomes: Vec<Outcome> = suspects.iter().map(|_| Outcome::Undecided).collect();
        for _ in 0..MAX_ROUNDS {
            let open: Vec<usize> =
                (0..suspects.len()).filter(|&i| matches!(outcomes[i], Outcome::Undecided)).collect();
            if open.is_empty() {
                break;
            }
            if !self.is_checked(table)? {
                for i in open {
                    outcomes[i] = Outcome::PutAside;
                }
                break;
            }
            let lower = self.lower_bound(reader, table).await?;
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

    /// Fails if apply uses another layout of the table by now. Asked after the last read, and before equal rows count.
    ///
    /// # Errors
    /// [`CheckError::OtherMapping`], Kafka does not answer, or the states are no longer followed.
    pub async fn is_in_use(&self, table: &CheckedTable) -> Result<(), CheckError> {
        self.is_in_use_by(table, &*self.states.up_to_now().await?)
    }

    fn is_in_use_by(&self, table: &CheckedTable, states: &States) -> Result<(), CheckError> {
        if self.layouts.is_table_in_use(&table.source().name, states.mapping_in_use()) {
            Ok(())
        } else {
            Err(CheckError::OtherMapping)
        }
    }

    /// Whether checks of the table can count. If it has halted, its changes are not applied.
    ///
    /// # Errors
    /// The states of tables are no longer followed.
    pub fn is_checked(&self, table: &CheckedTable) -> Result<bool, CheckError> {
        Ok(table_state::is_checked(self.states.now()?.get(&table.source().name)))
    }

    async fn is_checked_now(&self, table: &CheckedTable) -> Result<bool, CheckError> {
        let states = self.states.up_to_now().await?;
        Ok(table_state::is_checked(states.get(&table.source().name)))
    }

    /// Borrows W₁. The caller reads the rows from MySQL after that.
    ///
    /// # Errors
    /// As for [`Watermarks::borrow`].
    pub async fn lower_bound(
        &self,
        reader: &mut Reader,
        table: &CheckedTable,
    ) -> Result<LowerBound, CheckError> {
        let letters = self.letters.position();
        let incarnation = self.states.now()?.get(&table.source().name).map(|state| state.incarnation);
        let watermark = self.watermarks.borrow(reader, &table.source().name).await?;
        Ok(LowerBound { watermark, letters, incarnation })
    }

    /// Compares rows with Cassandra. `reader` has read the rows after it got the lower bound.
    ///
    /// The order of the steps makes the check sound:
    ///
    /// 1. W₁ was within `@@gtid_executed` before MySQL was read.
    /// 2. Cassandra is read after W₁ is applied.
    /// 3. The end of the binlog is queried after the read of Cassandra.
    /// 4. The verdict waits until this process has seen the whole log up to a watermark that covers that end, and every
    ///    dead letter and every state of the table that was published before. Whoever acts on equal rows asks
    ///    [`Self::is_in_use`].
    ///
    /// # Errors
    /// As for [`Self::settle`].
    pub async fn compare(
        &self,
        reader: &mut Reader,
        table: &CheckedTable,
        lower: LowerBound,
        read: Vec<(&Suspect, Option<Row>)>,
    ) -> Result<Vec<Outcome>, CheckError> {
        let LowerBound { watermark: lower, letters, incarnation } = lower;
        self.applied.wait(&lower, &table.topic).await?;
        let found = match self.differing(table, &read).await {
            // Its target may be gone, which has halted it meanwhile.
            Err(CheckError::Read(_)) if !self.is_checked_now(table).await? => {
                return Ok(read.iter().map(|_| Outcome::PutAside).collect());
            }
            found => found?,
        };
        self.metrics.rows.inc_by(read.len() as u64);
        let quiet = |found: &Option<Vec<TargetDifference>>| found.as_ref().is_none_or(Vec::is_empty);
        if found.iter().all(quiet) {
            let outcome =
                |found: &Option<_>| if found.is_some() { Outcome::Match } else { Outcome::Unmappable };
            return Ok(found.iter().map(outcome).collect());
        }
        let end = reader.binlog_end().await?;
        let upper = self.watermarks.covering(&end, lower.version).await?;
        if let Some(ends) = upper.offsets.get(&table.topic) {
            self.tracker.seen(&table.topic, ends).await?;
        }
        // A dead letter is published before the offset of its change is committed, and W₁ is applied. So is the state of a
        // table that halts, and its changes are skipped from then on.
        self.letters.up_to_now().await?;
        let states = self.states.up_to_now().await?;
        self.is_in_use_by(table, &states)?;
        let state = states.get(&table.source().name);
        let changed = state.map(|state| state.incarnation) != incarnation || !table_state::is_checked(state);
        let floor = self.tracker.floor();
        let outcomes = read.into_iter().zip(found).map(|((suspect, row), differences)| {
            let Some(differences) = differences else { return Ok(Outcome::Unmappable) };
            let key = table.framed_key(&suspect.key)?;
            let last_change = self.tracker.last_change(&table.topic, &key);
            let name = &table.source().name;
            let evidence = Evidence {
                last_change,
                lower: lower.version,
                floor,
                put_aside: self.letters.is_open(name, &key),
                settled: changed || self.letters.was_settled_since(name, &key, letters),
            };
            Ok(match judge(!differences.is_empty(), evidence) {
                Verdict::Match => Outcome::Match,
                Verdict::Undecided => Outcome::Undecided,
                Verdict::PutAside => Outcome::PutAside,
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

    /// Reads Cassandra and returns the differences of each suspect. `None` for a row that the mapping cannot convert.
    async fn differing(
        &self,
        table: &CheckedTable,
        read: &[(&Suspect, Option<Row>)],
    ) -> Result<Vec<Option<Vec<TargetDifference>>>, CheckError> {
        // For each target: the keys to read, and for each key its suspect and the expected cells.
        type Lookup = (Vec<TargetKey>, Vec<(usize, Option<Vec<Cell>>)>);
        let mut lookups: HashMap<usize, Lookup> = HashMap::new();
        let mut out: Vec<Option<Vec<TargetDifference>>> = read.iter().map(|_| Some(Vec::new())).collect();
        for (i, (suspect, row)) in read.iter().enumerate() {
            let Ok(expected) = row.as_ref().map_or(Ok(Vec::new()), |row| table.plan.expected(row)) else {
                out[i] = None;
                continue;
            };
            for (target, key) in &suspect.candidates {
                if !expected.iter().any(|e| e.target == *target && e.key == *key) {
                    let (keys, wanted) = lookups.entry(*target).or_default();
                    keys.push(key.clone());
                    wanted.push((i, None));
                }
            }
            for row in expected {
                let (keys, wanted) = lookups.entry(row.target).or_default();
                keys.push(row.key);
                wanted.push((i, Some(row.cells)));
            }
        }
        for (target, (keys, wanted)) in lookups {
            let name = &table.plan.targets()[target].table().name;
            let stored = self.target.read(name, &keys).await?;
            for ((key, (suspect, expected)), stored) in keys.into_iter().zip(wanted).zip(stored) {
                if let Some(difference) = differences(expected.as_deref(), stored.as_ref())
                    && let Some(found) = &mut out[suspect]
                {
                    let writetimes =
                        stored.map_or(Vec::new(), |s| s.writetimes.into_iter().flatten().collect());
                    found.push(TargetDifference { target, key, difference, writetimes });
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use tandem_cassandra::{FailedWrite, Rejection};

    use super::*;

    #[test]
    fn each_error_says_what_follows() {
        use Disposition::{Refuse, Retry, Stop};
        let away = || MysqlError::Unreachable { address: "h".into(), cause: "refused".into() };
        let read = ReadError::Unavailable { target: "t".into(), cause: "down".into() };
        let rejection = Rejection::Row("too large".into());
        let failed = vec![FailedWrite { mutations: 0..1, target: "t".into(), rejection }];
        let row = RowError::BadKey { target: "t".into() };
        let published = tandem_kafka::PublishError::Config("no".into());
        let cases: [(CheckError, Disposition); 11] = [
            (away().into(), Retry),
            (WatermarkError::Mysql(away()).into(), Retry),
            (WatermarkError::Ended.into(), Stop),
            (ConsumeError::Closed.into(), Retry),
            // The tracker has ended, whatever its error was.
            (TrackerError::from(ConsumeError::Closed).into(), Stop),
            (read.into(), Retry),
            (WriteError { failed }.into(), Refuse),
            (row.into(), Refuse),
            (WireError::Truncated.into(), Refuse),
            (published.into(), Stop),
            (CheckError::NotBackfilled("shop.orders".into()), Stop),
        ];
        for (error, expected) in cases {
            assert_eq!(error.retry(), expected, "{error:?}");
        }
    }
}
