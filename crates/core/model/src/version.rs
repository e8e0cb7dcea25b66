//! Versions: the timestamps of Cassandra's cells.

use std::fmt;

/// Microseconds since the epoch, in step with the commit times of MySQL's transactions, and unique
/// for each row change and each watermark of a log. Written to Cassandra as `USING TIMESTAMP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Version(pub i64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
