//! The statements of the status.

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

/// A statement about the migration.
#[derive(Debug, Default, Serialize)]
pub(super) struct Statement {
    pub(super) holds: bool,
    /// What is missing. Empty if it holds.
    pub(super) why_not: Vec<String>,
}

impl Statement {
    pub(super) fn unless(why_not: Vec<String>) -> Self {
        Self { holds: why_not.is_empty(), why_not }
    }
}

/// What the newest full verification proves, and the checks since.
#[derive(Debug, Default, Serialize)]
pub(super) struct Verified {
    #[serde(flatten)]
    pub(super) statement: Statement,
    /// When the newest full verification began, in UTC. It compared each row once, at some time after that.
    pub(super) as_of: Option<String>,
    /// The rows that it checked, of both stores together.
    pub(super) rows: i64,
}

/// A time in microseconds since the epoch, as RFC 3339 in UTC.
pub(super) fn utc(us: i64) -> String {
    DateTime::from_timestamp_micros(us)
        .map_or_else(|| format!("{us} µs"), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}
