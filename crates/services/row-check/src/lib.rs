//! The row check: both stores compared at a watermark, and what it confirms.
//!
//! Invariants:
//!
//! - A mismatch is confirmed only if the log holds no change of the key after W₁, the watermark borrowed
//!   before MySQL was read, and everything up to W₃ has been seen here. W₃ is the watermark that covers the
//!   binlog's end as asked for after Cassandra was read.
//! - Cassandra is read only after W₁ is applied.
//! - What cannot be decided is said to be undecided, never guessed.

mod check;
mod events;
mod metrics;
mod tracker;

pub use check::{CheckError, CheckedTable, Checker, Confirmed, Outcome, Suspect};
pub use events::{MismatchCounts, count_mismatches, mismatch_record};
pub use metrics::CheckMetrics;
pub use tracker::{ChangeTracker, TrackerError};
