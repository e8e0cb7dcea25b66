//! Which watermark may be borrowed now, and waiting until one is applied.
//!
//! Whoever writes MySQL's state into Cassandra by another way than the change log (backfill,
//! repair) writes it at the version of a watermark W with `W.gtid ⊆ @@gtid_executed`, asked on the
//! connection that reads the state, *before* its read view is opened. Every change that is not in
//! that state then comes after W in the binlog, has a higher version, and wins.
//!
//! Invariants:
//!
//! - A borrowed watermark is never cut, and lies within what the server had executed before the
//!   read ([`Watermarks::borrow`]).
//! - An upper bound covers the binlog's end as it was asked for *after* the read, and is never cut
//!   ([`Watermarks::covering`]).
//! - A partition without a committed offset is not applied ([`Applied::wait`]).

mod applied;
mod follow;

pub use applied::Applied;
pub use follow::{WatermarkError, Watermarks};
