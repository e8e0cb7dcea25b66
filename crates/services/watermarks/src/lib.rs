//! Borrows watermarks, and waits until a watermark is applied.
//!
//! Backfill and repair write MySQL's state to Cassandra without the change log. They write it at the version
//! of a borrowed watermark W with `W.gtid ⊆ @@gtid_executed`. The connection that reads the state also
//! queries `@@gtid_executed`, *before* it opens its read view. So every change that is missing from that
//! state follows W in the binlog, has a higher version, and wins.
//!
//! Invariants:
//!
//! - A borrowed watermark is never partial. The server had executed all of it before the read
//!   ([`Watermarks::borrow`]).
//! - An upper bound is never partial. It covers the end of the binlog as queried *after* the read
//!   ([`Watermarks::covering`]).
//! - Every reader completes the deltas of the watermark topic ([`NewestWatermark`], [`read_watermark`]).
//! - A partition without a committed offset is not applied ([`Applied::wait`]).

mod applied;
mod follow;
mod newest;

pub use applied::Applied;
pub use follow::{WatermarkError, Watermarks};
pub use newest::{NewestWatermark, WatermarkReadError, read_watermark};
