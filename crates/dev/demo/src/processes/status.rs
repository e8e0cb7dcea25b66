//! The parts of `tandem status --json` that the demo uses.

use std::time::Duration;

use anyhow::{Context, Result};
use tandem_compare::process::Tandem;

/// `tandem status --json`.
pub(super) async fn status(tandem: &Tandem) -> Result<Status> {
    let text = tandem.cli(&["status", "--json"], Duration::from_secs(20)).await?;
    serde_json::from_str(&text).context("`tandem status --json` printed something else than a status")
}

/// A migration's state.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) source: Option<Source>,
    pub(crate) tables: Vec<TableStatus>,
    pub(crate) lag: Lag,
    pub(crate) mismatches: Mismatches,
    pub(crate) caught_up: Statement,
    pub(crate) copied: Statement,
}

/// A statement about the migration.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Statement {
    pub(crate) holds: bool,
}

/// How far the log is behind MySQL.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Source {
    pub(crate) gtid_set: String,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct TableStatus {
    pub(crate) name: String,
    pub(crate) backfill: Backfill,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Backfill {
    pub(crate) rows: u64,
    pub(crate) estimated_rows: u64,
    pub(crate) done: bool,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Lag {
    pub(crate) records: Option<u64>,
    pub(crate) seconds: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Mismatches {
    pub(crate) found: u64,
    pub(crate) resolved: u64,
    pub(crate) unrepairable: u64,
    pub(crate) open: u64,
}

impl Status {
    /// Rows backfilled so far, and the total.
    pub(crate) fn backfill(&self) -> (u64, u64) {
        let rows =
            |t: &TableStatus| if t.backfill.done { t.backfill.rows } else { t.backfill.estimated_rows };
        (
            self.tables.iter().map(|t| t.backfill.rows).sum(),
            self.tables.iter().map(|t| rows(t).max(t.backfill.rows)).sum(),
        )
    }

    /// Whether every table is backfilled.
    pub(crate) fn backfilled(&self) -> bool {
        !self.tables.is_empty() && self.tables.iter().all(|t| t.backfill.done)
    }

    /// Records not applied yet. Unknown is not zero.
    pub(crate) fn lag(&self) -> Option<u64> {
        self.lag.records
    }

    /// The names of the tables still being backfilled.
    pub(crate) fn unfinished(&self) -> String {
        let names = self.tables.iter().filter(|t| !t.backfill.done).map(|t| t.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let text = r#"{"source": {"gtid": "x"}, "tables": [
            {"name": "a", "topic": "t",
             "backfill": {"rows": 10, "estimated_rows": 7, "done": false}},
            {"name": "b", "topic": "t",
             "backfill": {"rows": 5, "estimated_rows": 900, "done": true}}],
            "lag": {"records": 2, "seconds": null}, "mismatches": {"found": 1, "open": 1}, "caught_up": {"holds": true}}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(status.backfill(), (15, 15));
        assert!(!status.backfilled());
        assert_eq!(status.lag(), Some(2));
        assert_eq!(status.mismatches.open, 1);
        assert!(status.caught_up.holds && !status.copied.holds);
        assert_eq!(serde_json::from_str::<Status>("{}").unwrap().lag(), None);
    }
}
