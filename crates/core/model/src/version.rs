//! Versions: the timestamps of cells in Cassandra.

use std::fmt;

/// The version of a row change or a watermark. It is written to Cassandra as `USING TIMESTAMP`.
///
/// A version is unique for each row change and each watermark of a log. It is a number of microseconds since
/// the epoch that follows the commit times of MySQL's transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Version(pub i64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
