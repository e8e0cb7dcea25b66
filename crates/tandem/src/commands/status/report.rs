//! The contents of the status.

use serde::Serialize;
use tandem_model::Watermark;
use tandem_row_check::MismatchCounts;
use tandem_wire::control::BackfillProgress;

use super::processes::ProcessStatus;
use super::statements::{Statement, Verified};

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
    /// The processes, and what each of their roles does.
    pub(super) processes: Vec<ProcessStatus>,
    /// Whether every change of the last seconds and before is in Cassandra.
    pub(super) caught_up: Statement,
    /// Whether every row that MySQL held before capture began is in Cassandra.
    pub(super) copied: Statement,
    /// Whether both stores were seen to agree.
    pub(super) verified: Verified,
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
    /// Whether every row is on the log.
    pub(super) done: bool,
    /// Whether every row is also in Cassandra.
    pub(super) applied: bool,
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

    pub(super) fn of(progress: Option<&BackfillProgress>, applied: bool) -> Self {
        let (rows, estimated_rows) = progress.map_or((0, 0), |p| (p.rows, p.estimated_rows));
        let done = progress.is_some_and(|p| p.done);
        Self { rows, estimated_rows, done, applied: done && applied }
    }
}
