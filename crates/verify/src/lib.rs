//! The row check, streaming and over whole tables, and the reconciler.
//!
//! Invariants:
//!
//! - A mismatch is confirmed only if the log holds no change of the key after W₁, the watermark
//!   borrowed before MySQL was read, and everything up to W₃, the watermark that covers the binlog's
//!   end as asked for after Cassandra was read, has been seen here ([`judge`]).
//! - Cassandra is read only after W₁ is applied.
//! - A repair is written at W₁'s version, never at a newer one, with NULLs explicit.
//! - What cannot be decided is said to be undecided, never guessed.

mod check;
mod events;
mod judge;
mod metrics;
mod pending;
mod reconcile;
mod scan;
mod stream;
mod tracker;

pub use check::{CheckError, CheckedTable, Checker, Confirmed, Outcome, Suspect, TargetDifference};
pub use events::{MismatchCounts, count_mismatches};
pub use judge::{Verdict, judge};
pub use metrics::Metrics;
pub use reconcile::Reconciler;
pub use scan::{Scan, ScanReport, TableReport};
pub use stream::Stream;
pub use tracker::{ChangeTracker, TrackerError};
