//! Which watermark may be borrowed, what one covers, and when one is applied.

use std::borrow::Borrow;

use tandem_model::{BinlogPosition, GtidSet, Version, Watermark};

/// Whether a write may borrow the watermark's version, given what the server has executed *before* the
/// read view was opened.
pub fn is_borrowable(watermark: &Watermark, executed: &GtidSet) -> bool {
    watermark.partial.is_none() && watermark.gtid_set.is_subset(executed)
}

/// Whether everything up to `end` of the binlog has been published: the upper bound of a check.
pub fn covers(watermark: &Watermark, end: &BinlogPosition) -> bool {
    watermark.partial.is_none() && watermark.position >= *end
}

/// Whether the `committed` offsets, by partition, say that all of this topic's changes up to the
/// watermark have been applied. A partition without a committed offset counts as not applied. A topic
/// that the watermark does not know has had no changes.
pub fn applied_in(watermark: &Watermark, topic: &str, committed: impl Fn(usize) -> Option<i64>) -> bool {
    watermark.offsets.get(topic).is_none_or(|ends| reached(ends, committed))
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
    let may =
        |w: &Watermark| is_borrowable(w, executed) && w.offsets.contains_key(topic) && w.version >= least;
    watermarks.rev().find(|w| may(w.borrow()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use tandem_model::PartialTransaction;

    const ANY: Version = Version(i64::MIN);
    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn watermark(upto: u64, partial: bool) -> Watermark {
        Watermark {
            source: "s".into(),
            gtid_set: format!("{SERVER}:1-{upto}").parse().unwrap(),
            position: BinlogPosition { file: "binlog.000001".into(), pos: upto * 100 },
            version: Version(upto as i64),
            offsets: BTreeMap::from([("t".to_owned(), vec![5, 0])]),
            partial: partial.then(|| PartialTransaction {
                gtid: format!("{SERVER}:{}", upto + 1).parse().unwrap(),
                rows: 3,
            }),
            clock_us: 0,
        }
    }

    #[test]
    fn a_cut_watermark_is_never_borrowed_nor_an_upper_bound() {
        let log = [watermark(3, false), watermark(4, false), watermark(4, true)];
        let executed: GtidSet = format!("{SERVER}:1-9").parse().unwrap();
        assert_eq!(newest_borrowable(log.iter(), &executed, "t", ANY), Some(&log[1]));
        assert!(covers(&log[1], &BinlogPosition { file: "binlog.000001".into(), pos: 400 }));
        assert!(!covers(&log[2], &BinlogPosition { file: "binlog.000001".into(), pos: 400 }));
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
        assert!(applied_in(&w, "t", |p| Some([5, 0][p])));
        assert!(!applied_in(&w, "t", |p| [Some(5), None][p]));
        assert!(!applied_in(&w, "t", |p| Some([4, 0][p])));
        assert!(applied_in(&w, "other", |_| None));
    }
}
