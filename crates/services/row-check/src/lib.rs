//! The row check compares rows of both stores at a watermark, and confirms mismatches.
//!
//! Invariants:
//!
//! - A mismatch is confirmed only if the log holds no change of the key after W₁, and this process has seen
//!   the log up to W₃. W₁ is the watermark borrowed before the read of MySQL. W₃ is a watermark that covers
//!   the end of the binlog as queried after the read of Cassandra.
//! - Cassandra is read only after W₁ is applied.
//! - A key with an open dead letter is left out. A check during which a dead letter of its key was settled is repeated.
//! - A check that cannot decide returns "undecided". It never guesses.

mod check;
mod events;
mod metrics;
mod tracker;

pub use check::{CheckError, CheckedTable, Checker, Confirmed, LowerBound, Outcome, Suspect};
pub use events::{MismatchCounts, count_mismatches, mismatch_record};
pub use metrics::CheckMetrics;
pub use tracker::{ChangeTracker, TrackerError};
