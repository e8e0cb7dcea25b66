//! The contents of the status.

use serde::Serialize;
use tandem_model::Watermark;
use tandem_row_check::MismatchCounts;
use tandem_wire::control::BackfillProgress;

/// How many tables a reason names.
const NAMED: usize = 5;

/// The age in seconds above which capture counts as not running. It publishes a watermark at least once a second.
const FRESH: f64 = 10.0;

#[derive(Serialize)]
pub(super) struct Status {
    pub(super) source: Option<Source>,
    /// Absent before the first apply has started.
    pub(super) mapping: Option<Mapping>,
    pub(super) totals: Totals,
    pub(super) tables: Vec<TableStatus>,
    pub(super) topics: Vec<TopicStatus>,
    pub(super) lag: Lag,
    pub(super) mismatches: Mismatches,
    /// The changes that are put aside, also of tables that are no longer mapped.
    pub(super) dead_letters: u64,
    /// Absent without a `[reverse]` section.
    pub(super) reverse: Option<ReverseStatus>,
    pub(super) ready: bool,
    pub(super) why_not_ready: Vec<String>,
}

/// The progress of capture.
#[derive(Serialize)]
pub(super) struct Source {
    pub(super) gtid_set: String,
    pub(super) file: String,
    pub(super) position: u64,
    pub(super) version: i64,
    /// Seconds since the newest watermark's clock.
    pub(super) watermark_age_seconds: f64,
}

/// The mapping by which apply writes.
#[derive(Serialize)]
pub(super) struct Mapping {
    /// One more with each other mapping.
    pub(super) generation: i64,
    /// Whether it is that of this `tandem.toml`.
    pub(super) in_use: bool,
    /// The hosts of the apply processes that have it, one for each process.
    pub(super) applies: Vec<String>,
}

/// The way back to MySQL.
#[derive(Serialize)]
pub(super) struct ReverseStatus {
    /// The records that reverse has not read yet.
    pub(super) lag_records: i64,
    /// The native writes that MySQL refuses.
    pub(super) dead_letters: u64,
}

/// Sums over all tables.
#[derive(Serialize)]
pub(super) struct Totals {
    pub(super) tables: usize,
    pub(super) copied_tables: usize,
    pub(super) copied_rows: i64,
    pub(super) estimated_rows: i64,
}

#[derive(Serialize)]
pub(super) struct TableStatus {
    pub(super) name: String,
    /// The change topic, which other tables may share.
    pub(super) topic: String,
    pub(super) backfill: Backfill,
    /// The records that are not applied yet, transaction markers excluded. Absent if there are too many records to
    /// count them by table within a short time.
    pub(super) lag_records: Option<i64>,
    /// The changes that are put aside.
    pub(super) dead_letters: u64,
    /// `live`, `halted`, `replaying` or `verifying`.
    pub(super) state: &'static str,
    /// Why, if the table is not live.
    pub(super) not_live: Option<NotLive>,
}

/// Why a table is not live.
#[derive(Serialize)]
pub(super) struct NotLive {
    pub(super) reason: String,
    pub(super) cause: String,
    /// The role or the command that said so.
    pub(super) by: String,
    pub(super) since_seconds: f64,
    /// The command that leads on, or what the table waits for.
    pub(super) remedy: String,
}

/// The progress of apply in a change topic or a backfill topic.
#[derive(Serialize)]
pub(super) struct TopicStatus {
    pub(super) name: String,
    /// The records of the topic since its beginning, in total and applied. The markers of Kafka's transactions count
    /// too.
    pub(super) published: i64,
    pub(super) applied: i64,
    /// The records that are not applied yet.
    pub(super) lag_records: i64,
}

#[derive(Serialize)]
pub(super) struct Backfill {
    pub(super) rows: i64,
    pub(super) estimated_rows: i64,
    /// Whether every row is on the log. `lag_records` shows whether it is applied.
    pub(super) done: bool,
}

#[derive(Serialize)]
pub(super) struct Lag {
    pub(super) records: i64,
    /// The age of the oldest change that is not in Cassandra yet: that of the oldest unapplied record or of the newest
    /// watermark, whichever is older. Absent until the first watermark is published.
    pub(super) seconds: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct Mismatches {
    pub(super) found: u64,
    pub(super) resolved: u64,
    pub(super) unrepairable: u64,
    pub(super) open: u64,
}

impl From<MismatchCounts> for Mismatches {
    fn from(counts: MismatchCounts) -> Self {
        let MismatchCounts { found, resolved, unrepairable, open } = counts;
        Self { found, resolved, unrepairable, open }
    }
}

impl Source {
    pub(super) fn of(watermark: &Watermark, age: f64) -> Self {
        Self {
            gtid_set: watermark.gtid_set.to_string(),
            file: watermark.position.file.to_string(),
            position: watermark.position.pos,
            version: watermark.version.0,
            watermark_age_seconds: age,
        }
    }
}

impl Totals {
    pub(super) fn of(tables: &[TableStatus]) -> Self {
        Self {
            tables: tables.len(),
            copied_tables: tables.iter().filter(|t| t.backfill.done).count(),
            copied_rows: tables.iter().map(|t| t.backfill.rows).sum(),
            estimated_rows: tables.iter().map(|t| t.backfill.expected()).sum(),
        }
    }
}

impl Backfill {
    /// The rows that the copy has in the end, as far as is known.
    pub(super) fn expected(&self) -> i64 {
        if self.done { self.rows } else { self.estimated_rows.max(self.rows) }
    }

    pub(super) fn of(progress: Option<&BackfillProgress>) -> Self {
        let (rows, estimated_rows) = progress.map_or((0, 0), |p| (p.rows, p.estimated_rows));
        Self { rows, estimated_rows, done: progress.is_some_and(|p| p.done) }
    }
}

impl Status {
    /// The reasons why Cassandra does not hold what MySQL holds, apart from the lag.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        match &self.source {
            None => missing.push("capture has not begun".to_owned()),
            Some(source) if source.watermark_age_seconds > FRESH => {
                let age = source.watermark_age_seconds;
                missing.push(format!("capture's newest watermark is {age:.0} s old: is it running?"));
            }
            Some(_) => {}
        }
        if let Some(Mapping { in_use: false, generation, applies }) = &self.mapping {
            let waits_for = if applies.is_empty() {
                "no apply has started with it".to_owned()
            } else {
                let hosts = applies.join(", ");
                format!("it comes into use when the apply processes with the former one have ended: {hosts}")
            };
            missing.push(format!(
                "the mapping of this tandem.toml is not in use (that of generation {generation} is): {waits_for}"
            ));
        }
        let open: Vec<&str> =
            self.tables.iter().filter(|t| !t.backfill.done).map(|t| t.name.as_str()).collect();
        if !open.is_empty() {
            missing.push(format!("the backfill of {} is not complete", named(&open)));
        }
        let halted: Vec<&str> =
            self.tables.iter().filter(|t| t.not_live.is_some()).map(|t| t.name.as_str()).collect();
        if !halted.is_empty() {
            missing.push(format!("not live: {}", named(&halted)));
        }
        match self.lag.seconds {
            Some(seconds) if seconds > FRESH => missing.push(format!("apply is {seconds:.0} s behind")),
            None if self.source.is_some() => missing.push(format!(
                "apply is {} records behind; their age could not be read from Kafka in time",
                self.lag.records
            )),
            _ => {}
        }
        if self.mismatches.open > 0 {
            missing.push(format!("{} mismatches are open", self.mismatches.open));
        }
        if self.dead_letters > 0 {
            missing.push(format!("{} dead letters are open", self.dead_letters));
        }
        missing
    }
}

/// The first of these tables, and how many more there are.
fn named(tables: &[&str]) -> String {
    let more = tables.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and of {more} more tables") } else { String::new() };
    format!("{}{more}", tables.iter().take(NAMED).copied().collect::<Vec<_>>().join(", "))
}
