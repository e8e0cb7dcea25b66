//! The backfill loop: the rows that were there before, in chunks, each at a borrowed watermark.
//!
//! Invariants:
//!
//! - Each chunk borrows its watermark on the connection that reads it, before the read. A change
//!   that the chunk does not show therefore has a higher version and wins.
//! - Progress is recorded after Kafka has acknowledged the chunk's records. A backfill that is
//!   killed reads its last chunk again, which does no harm: equal or lower versions.
//! - What was copied before a re-snapshot does not count: each re-snapshot has copies of its own, under keys of
//!   their own (`progress_key`), whose rows are marked ([`Op::Resnapshot`](tandem_model::Op)), so that they
//!   are written with their NULLs over the cells of before.
//! - The upper end of a table is read once, after a first watermark was borrowed. Rows with greater
//!   keys were inserted later and are in the change log.

mod metrics;
mod progress;
mod run;

pub use metrics::Metrics;
pub use progress::{ProgressError, read_progress};
pub use run::{Backfill, BackfillConfig, BackfillError, BackfillTable};
