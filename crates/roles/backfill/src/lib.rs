//! The backfill loop: copies the existing rows in chunks, each at the version of a borrowed watermark.
//!
//! Invariants:
//!
//! - Each chunk borrows its watermark on the connection that reads it, before the read. A change
//!   that the chunk does not show therefore has a higher version and wins.
//! - Progress is recorded after Kafka has acknowledged the chunk's records. A backfill that is killed reads its last
//!   chunk again. The replay is harmless, because its versions never overwrite newer changes.
//! - Copies from before a re-snapshot do not count. Each re-snapshot has its own copies under its own keys
//!   (`progress_key`). Their rows are marked with [`Op::Resnapshot`](tandem_model::Op), so that their NULLs overwrite
//!   older cells.
//! - So are the rows of a table that is copied anew because of another layout. Its copy begins once apply uses that layout
//!   (`turn.rs`).
//! - So are the rows of a table with a target that held rows before the migration wrote any. Who claims a target for the
//!   migration records that, before anything is written, so every restart decides the same.
//! - The upper end of a table is read once, after the first watermark is borrowed. Rows with greater keys are inserted
//!   later, so they are in the change log.

mod metrics;
mod progress;
mod run;
mod turn;

pub use metrics::Metrics;
pub use progress::{ProgressError, read_progress};
pub use run::{Backfill, BackfillConfig, BackfillError, BackfillTable};
