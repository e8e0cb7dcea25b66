//! Watermarks: "everything up to here has been published".

use std::borrow::Borrow;
use std::collections::BTreeMap;

use crate::{BinlogPosition, Gtid, GtidSet, Version};

/// The rows of a MySQL transaction that is larger than one Kafka transaction and not yet out whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The transaction that was cut.
    pub gtid: Gtid,
    /// How many of its row changes have been published so far.
    pub rows: u64,
}

/// A statement of capture about the log, and its checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    /// The name of the source, the record's key.
    pub source: String,
    /// Every transaction published whole.
    pub gtid_set: GtidSet,
    /// Where the last complete transaction ends in the binlog.
    pub position: BinlogPosition,
    /// Minted for this watermark: above every change before it, below every change after it.
    pub version: Version,
    /// For every change topic and each of its partitions, the offset after the last record published.
    pub offsets: BTreeMap<String, Vec<i64>>,
    /// Set where a MySQL transaction is partly out. Such a watermark is a checkpoint only.
    pub cut: Option<Cut>,
    /// MySQL's clock as capture last heard it, in microseconds since the epoch.
    pub clock_us: i64,
}

impl Watermark {
    /// Whether a write may borrow this watermark's version, given what the server has executed
    /// *before* the read view was opened.
    pub fn borrowable(&self, executed: &GtidSet) -> bool {
        self.cut.is_none() && self.gtid_set.is_subset(executed)
    }

    /// Whether everything up to `end` of the binlog has been published. The upper bound of a check.
    pub fn covers(&self, end: &BinlogPosition) -> bool {
        self.cut.is_none() && self.position >= *end
    }

    /// Whether `committed(topic, partition)` offsets say that all of this topic's changes up to
    /// this watermark have been applied. A partition without a committed offset counts as not
    /// applied; a topic that the watermark does not know has had no changes.
    pub fn applied_in(&self, topic: &str, committed: impl Fn(usize) -> Option<i64>) -> bool {
        self.offsets.get(topic).is_none_or(|ends| reached(ends, committed))
    }
}

/// Whether committed offsets have come to `ends`, partition by partition. A partition without a
/// committed offset has not.
pub fn reached(ends: &[i64], committed: impl Fn(usize) -> Option<i64>) -> bool {
    ends.iter().enumerate().all(|(partition, &end)| committed(partition).is_some_and(|at| at >= end))
}

/// The newest watermark that may be borrowed for rows of the table whose changes are in `topic`, of
/// `watermarks` in the order of the log.
///
/// A watermark from before the table was captured says nothing of it, and is never borrowed for it:
/// what changed up to the first one that knows it may not be on the log. Nor is one below `least`: for what writes
/// over the cells of before a gap in the log, the version with which the log goes on behind it. What was
/// under way when it began has borrowed the last one before it, and would tie with a copy at that version.
pub fn newest_borrowable<W: Borrow<Watermark>>(
    watermarks: impl DoubleEndedIterator<Item = W>,
    executed: &GtidSet,
    topic: &str,
    least: Version,
) -> Option<W> {
    let may = |w: &Watermark| w.borrowable(executed) && w.offsets.contains_key(topic) && w.version >= least;
    watermarks.rev().find(|w| may(w.borrow()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Version = Version(i64::MIN);
    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn watermark(upto: u64, cut: bool) -> Watermark {
        Watermark {
            source: "s".into(),
            gtid_set: format!("{SERVER}:1-{upto}").parse().unwrap(),
            position: BinlogPosition { file: "binlog.000001".into(), pos: upto * 100 },
            version: Version(upto as i64),
            offsets: BTreeMap::from([("t".to_owned(), vec![5, 0])]),
            cut: cut.then(|| Cut { gtid: format!("{SERVER}:{}", upto + 1).parse().unwrap(), rows: 3 }),
            clock_us: 0,
        }
    }

    #[test]
    fn a_cut_watermark_is_never_borrowed_nor_an_upper_bound() {
        let log = [watermark(3, false), watermark(4, false), watermark(4, true)];
        let executed: GtidSet = format!("{SERVER}:1-9").parse().unwrap();
        assert_eq!(newest_borrowable(log.iter(), &executed, "t", ANY), Some(&log[1]));
        assert!(log[1].covers(&BinlogPosition { file: "binlog.000001".into(), pos: 400 }));
        assert!(!log[2].covers(&BinlogPosition { file: "binlog.000001".into(), pos: 400 }));
    }

    #[test]
    fn only_what_the_server_has_executed_is_borrowed() {
        let log = [watermark(3, false), watermark(4, false)];
        let executed: GtidSet = format!("{SERVER}:1-3").parse().unwrap();
        assert_eq!(newest_borrowable(log.iter(), &executed, "t", ANY), Some(&log[0]));
        assert_eq!(newest_borrowable(log.iter(), &GtidSet::default(), "t", ANY), None);
    }

    #[test]
    fn what_does_not_know_a_table_is_not_borrowed_for_it() {
        let mut log = [watermark(3, false), watermark(4, false)];
        log[1].offsets.insert("new".into(), vec![0]);
        let executed: GtidSet = format!("{SERVER}:1-9").parse().unwrap();
        assert_eq!(newest_borrowable(log.iter(), &executed, "new", ANY), Some(&log[1]));
        assert_eq!(newest_borrowable(log[..1].iter(), &executed, "new", ANY), None);
    }

    #[test]
    fn what_lies_before_a_gap_is_not_borrowed_behind_it() {
        let log = [watermark(3, false), watermark(4, false)];
        let executed: GtidSet = format!("{SERVER}:1-9").parse().unwrap();
        assert_eq!(newest_borrowable(log.iter(), &executed, "t", Version(4)), Some(&log[1]));
        assert_eq!(newest_borrowable(log[..1].iter(), &executed, "t", Version(4)), None);
    }

    #[test]
    fn no_committed_offset_is_not_applied() {
        let w = watermark(3, false);
        assert!(w.applied_in("t", |p| Some([5, 0][p])));
        assert!(!w.applied_in("t", |p| [Some(5), None][p]));
        assert!(!w.applied_in("t", |p| Some([4, 0][p])));
        assert!(w.applied_in("other", |_| None));
    }
}
