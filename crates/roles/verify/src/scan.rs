//! Verification of whole tables.
//!
//! Both sides are walked: MySQL by key range, where each row is checked against what Cassandra
//! holds, and each target table by token range, where every key must be one that its MySQL row
//! maps to. The first finds missing and different rows, the second extra ones.

use std::sync::Arc;

use serde::Serialize;
use tandem_cassandra::TokenRange;
use tandem_kafka::{KafkaConfig, Producer};
use tandem_model::{Row, TargetKey, Value};
use tandem_mysql::Reader;
use tandem_row_check::{CheckError, CheckedTable, Checker, Outcome, Suspect};
use tandem_wire::control::{BackfillProgress, FoundBy};

/// Rows of MySQL checked together.
const CHUNK: usize = 1000;

/// What the verification of one table found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TableReport {
    /// `database.table`.
    pub name: String,
    /// Rows of MySQL compared with Cassandra.
    pub mysql_rows: u64,
    /// Rows of all its target tables whose place was looked up in MySQL.
    pub target_rows: u64,
    /// Target rows that differ, confirmed.
    pub mismatches: u64,
    /// Rows that kept changing and were not decided.
    pub undecided: u64,
    /// Rows left out: they have dead letters, or the mapping cannot convert them.
    pub put_aside: u64,
    /// Those of them that the mapping cannot convert.
    pub unmappable: u64,
    /// Whether the table was left out, wholly or from some row on, because it is not live.
    pub halted: bool,
    /// The incarnation of the table's state when its verification began.
    #[serde(skip)]
    incarnation: Option<i64>,
}

/// What a full verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ScanReport {
    /// Rows checked, both sides together.
    pub checked: u64,
    /// Target rows that differ, confirmed.
    pub mismatches: u64,
    /// Rows that kept changing and were not decided.
    pub undecided: u64,
    /// Rows left out: they have dead letters, or the mapping cannot convert them.
    pub put_aside: u64,
    /// Table by table.
    pub tables: Vec<TableReport>,
}

/// A full verification.
pub struct Scan {
    /// Checks.
    pub checker: Checker,
    /// The tables to verify.
    pub tables: Vec<Arc<CheckedTable>>,
    /// The log.
    pub kafka: KafkaConfig,
}

impl Scan {
    /// Verifies every row of every table. `progress` says how far each table's backfill is, by
    /// `database.table` (a table can be verified only once it is complete); `report` is called with
    /// the name of the table and its rows done so far.
    pub async fn run(
        &self,
        progress: &std::collections::HashMap<String, BackfillProgress>,
        backfill_topic: impl Fn(&CheckedTable) -> String,
        mut report: impl FnMut(&TableReport),
    ) -> Result<ScanReport, CheckError> {
        let producer = Producer::start(&self.kafka).await?;
        let mut total = ScanReport::default();
        for table in &self.tables {
            let name = table.source().name.to_string();
            // A table that is not live is verified by itself before it is.
            let counts = if self.checker.states.now()?.is_live(&table.source().name) {
                let Some(done) = progress.get(&name).filter(|p| p.done) else {
                    return Err(CheckError::NotBackfilled(name));
                };
                self.table(table, done, &backfill_topic(table), &producer, &mut report).await?
            } else {
                TableReport { name, halted: true, ..TableReport::default() }
            };
            total.checked += counts.mysql_rows + counts.target_rows;
            total.mismatches += counts.mismatches;
            total.undecided += counts.undecided;
            total.put_aside += counts.put_aside;
            total.tables.push(counts);
        }
        Ok(total)
    }

    /// Verifies every row of a table, whose copy is `done`.
    pub(crate) async fn table(
        &self,
        table: &CheckedTable,
        done: &BackfillProgress,
        backfill_topic: &str,
        producer: &Producer,
        report: &mut impl FnMut(&TableReport),
    ) -> Result<TableReport, CheckError> {
        let mut counts = TableReport {
            name: table.source().name.to_string(),
            incarnation: self.incarnation(table)?,
            ..TableReport::default()
        };
        self.checker.applied.wait_for(backfill_topic, &done.end_offsets).await?;
        let mut reader = self.checker.mysql.reader().await?;
        // Also where MySQL has no row to read: older changes may still bring rows.
        let newest = self.checker.watermarks.borrow(&mut reader, &table.source().name).await?;
        self.checker.applied.wait(&newest, &table.topic).await?;
        self.walk_mysql(&mut reader, table, producer, &mut counts, report).await?;
        for target in 0..table.plan.targets().len() {
            self.walk_target(&mut reader, table, target, producer, &mut counts, report).await?;
        }
        Ok(counts)
    }

    fn incarnation(&self, table: &CheckedTable) -> Result<Option<i64>, CheckError> {
        Ok(self.checker.states.now()?.get(&table.source().name).map(|state| state.incarnation))
    }

    /// Whether the state of the table has changed since its verification began. Then nothing more counts: it may be copied
    /// again.
    fn is_over(&self, table: &CheckedTable, counts: &mut TableReport) -> Result<bool, CheckError> {
        counts.halted |= self.incarnation(table)? != counts.incarnation;
        Ok(counts.halted)
    }

    async fn walk_mysql(
        &self,
        reader: &mut Reader,
        table: &CheckedTable,
        producer: &Producer,
        counts: &mut TableReport,
        report: &mut impl FnMut(&TableReport),
    ) -> Result<(), CheckError> {
        let source = table.source();
        let Some(upto) = reader.max_key(source).await? else { return Ok(()) };
        let mut after: Option<Vec<Value>> = None;
        loop {
            if self.is_over(table, counts)? {
                return Ok(());
            }
            let lower = self.checker.lower_bound(reader, table).await?;
            let rows = reader.read_chunk(source, after.as_deref(), &upto, CHUNK).await?;
            let count = rows.len();
            after = rows.last().map(|row| source.key_of(row)).or(after);
            let suspects: Vec<Suspect> =
                rows.iter().map(|row| Suspect { key: source.key_of(row), candidates: Vec::new() }).collect();
            let read: Vec<(&Suspect, Option<Row>)> =
                suspects.iter().zip(rows.into_iter().map(Some)).collect();
            let outcomes = self.checker.compare(reader, table, lower, read).await?;
            self.conclude(reader, table, producer, suspects, outcomes, counts).await?;
            counts.mysql_rows += count as u64;
            report(counts);
            if count < CHUNK {
                return Ok(());
            }
        }
    }

    async fn walk_target(
        &self,
        reader: &mut Reader,
        table: &CheckedTable,
        target: usize,
        producer: &Producer,
        counts: &mut TableReport,
        report: &mut impl FnMut(&TableReport),
    ) -> Result<(), CheckError> {
        let name = &table.plan.targets()[target].table().name;
        let mut scan = self.checker.target.scan_keys(name, TokenRange::WHOLE)?;
        while let Some(page) = scan.next_page().await? {
            if page.is_empty() {
                continue;
            }
            if self.is_over(table, counts)? {
                return Ok(());
            }
            let keys: Vec<Vec<Value>> =
                page.iter().map(|key| table.plan.source_key(target, key)).collect::<Result<_, _>>()?;
            let rows = reader.read_keys(table.source(), &keys).await?;
            counts.target_rows += page.len() as u64;
            // A key that its row maps to is in its place; whether its cells are right was the other
            // walk's question. The rest is only suspect: nothing was timed here. A row outside the
            // target's filter maps to no key there.
            let mut suspects = Vec::new();
            for ((key, source_key), row) in page.into_iter().zip(keys).zip(rows) {
                if !in_place(table, target, &key, row.as_ref()) {
                    suspects.push(Suspect { key: source_key, candidates: vec![(target, key)] });
                }
            }
            let outcomes = suspects.iter().map(|_| Outcome::Undecided).collect();
            self.conclude(reader, table, producer, suspects, outcomes, counts).await?;
            report(counts);
        }
        Ok(())
    }

    /// Settles what is undecided, and publishes what is confirmed.
    async fn conclude(
        &self,
        reader: &mut Reader,
        table: &CheckedTable,
        producer: &Producer,
        suspects: Vec<Suspect>,
        mut outcomes: Vec<Outcome>,
        counts: &mut TableReport,
    ) -> Result<(), CheckError> {
        let open: Vec<usize> =
            (0..suspects.len()).filter(|&i| matches!(outcomes[i], Outcome::Undecided)).collect();
        if !open.is_empty() {
            let again: Vec<Suspect> = open.iter().map(|&i| suspects[i].clone()).collect();
            for (i, outcome) in open.into_iter().zip(self.checker.settle(reader, table, &again).await?) {
                outcomes[i] = outcome;
            }
        }
        if self.is_over(table, counts)? {
            return Ok(());
        }
        let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|o| wanted(o)).count() as u64;
        counts.undecided += count(|outcome| matches!(outcome, Outcome::Undecided));
        counts.put_aside += count(|outcome| matches!(outcome, Outcome::PutAside | Outcome::Unmappable));
        counts.unmappable += count(|outcome| matches!(outcome, Outcome::Unmappable));
        let checked = suspects.iter().zip(&outcomes);
        let checked = checked.map(|(suspect, outcome)| (suspect, outcome, FoundBy::Verification));
        let published = self.checker.publish_mismatches(&self.kafka, producer, table, checked).await?;
        counts.mismatches += published as u64;
        Ok(())
    }
}

/// Whether MySQL's row maps to `key` of that target. A row that the mapping cannot convert maps to none.
fn in_place(table: &CheckedTable, target: usize, key: &TargetKey, row: Option<&Row>) -> bool {
    row.is_some_and(|row| table.plan.stands_at(target, key, row).unwrap_or(false))
}
