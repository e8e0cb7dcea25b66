//! Verification and repair: streaming verification of changed rows, full verification of tables, and the reconciler.
//!
//! Invariants:
//!
//! - Only the row check ([`tandem_row_check`]) confirms a mismatch.
//! - A repair is written at W₁'s version, never at a newer one, with NULLs explicit.
//! - The outcome of a mismatch is published before the offset of its event is committed. While a dead letter of the row is
//!   open, there is no outcome: the event waits.

mod dead_letters;
mod metrics;
mod pending;
mod reconcile;
mod scan;
mod stream;
mod tables;

pub use metrics::Metrics;
pub use reconcile::Reconciler;
pub use scan::{Scan, ScanReport, TableReport};
pub use stream::Stream;
pub use tables::{CopyProgress, TableVerifier};
