//! Positions in the binlog.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A binlog file and an offset in it.
///
/// Positions are ordered by the number at the end of the file's name, then by offset. Positions of different
/// servers must not be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct BinlogPosition {
    /// The file, such as `binlog.000042`.
    pub file: Arc<str>,
    /// The offset of the end of an event in the file, in bytes.
    pub pos: u64,
}

impl BinlogPosition {
    /// The number at the end of the file's name, or 0 if there is none.
    fn file_number(&self) -> u64 {
        self.file.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

impl Ord for BinlogPosition {
    fn cmp(&self, other: &Self) -> Ordering {
        self.file_number()
            .cmp(&other.file_number())
            .then(self.pos.cmp(&other.pos))
            .then_with(|| self.file.cmp(&other.file))
    }
}

impl PartialOrd for BinlogPosition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for BinlogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.pos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_file_number_is_later() {
        let at = |file: &str, pos| BinlogPosition { file: file.into(), pos };
        assert!(at("binlog.999999", 900) < at("binlog.1000000", 4));
        assert!(at("binlog.000002", 4) < at("binlog.000002", 5));
    }

    #[test]
    fn a_position_prints_file_and_offset() {
        let position = BinlogPosition { file: "binlog.000007".into(), pos: 12 };
        assert_eq!(position.to_string(), "binlog.000007:12");
    }
}
