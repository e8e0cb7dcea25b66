//! Which watermark a write may borrow, what a watermark covers, and when it is applied.

use std::borrow::Borrow;

use tandem_model::{BinlogPosition, GtidSet, TableName, Version, Watermark};

/// Whether a write may borrow the watermark's version.
///
/// `executed` is the set of transactions that the server had executed *before* the read view was opened.
pub fn is_borrowable(watermark: &Watermark, executed: &GtidSet) -> bool {
    watermark.partial.is_none() && watermark.gtid_set.is_subset(executed)
}

/// Whether the table was captured to this topic at the watermark, with the topic's offsets. Otherwise changes of the table
/// up to the watermark may be missing from the topic.
///
/// A re-snapshot can name a table whose topic does not exist yet. A process with an older `tandem.toml` can take another
/// topic for the table's. Neither may count as known: the topic would seem to have no changes.
pub fn knows(watermark: &Watermark, table: &TableName, topic: &str) -> bool {
    watermark.tables.captured.get(table).is_some_and(|captured| &**captured == topic)
        && watermark.offsets.contains_key(topic)
}

/// Whether everything up to `end` of the binlog has been published. A row check needs this of its upper
/// watermark.
pub fn covers(watermark: &Watermark, end: &BinlogPosition) -> bool {
    watermark.partial.is_none() && watermark.position >= *end
}

/// Whether all changes of this topic up to the watermark have been applied.
///
/// `committed` returns the committed offset of a partition. A partition without a committed offset counts as
/// not applied. A topic that the watermark does not know has had no changes, so it counts as applied.
pub fn applied_in(watermark: &Watermark, topic: &str, committed: impl Fn(usize) -> Option<i64>) -> bool {
    watermark.offsets.get(topic).is_none_or(|ends| reached(ends, committed))
}

/// Whether the committed offset of every partition has reached its entry in `ends`. A partition without a
/// committed offset has not.
pub fn reached(ends: &[i64], committed: impl Fn(usize) -> Option<i64>) -> bool {
    ends.iter().enumerate().all(|(partition, &end)| committed(partition).is_some_and(|at| at >= end))
}

/// The newest watermark that a write may borrow for rows of one table.
///
/// `watermarks` are in the order of the log, and `topic` is the table's change topic.
///
/// A watermark that does not [know](knows) the table is never borrowed for the table.
///
/// A watermark below `least` is not borrowed either. Writes that must replace cells from before a log gap
/// pass the version with which the log continues after the gap. Example: a dual write was in flight when the
/// gap began and borrowed the last watermark before the gap. A copy at that same version would tie with it.
pub fn newest_borrowable<W: Borrow<Watermark>>(
    watermarks: impl DoubleEndedIterator<Item = W>,
    executed: &GtidSet,
    table: &TableName,
    topic: &str,
    least: Version,
) -> Option<W> {
    let may = |w: &Watermark| is_borrowable(w, executed) && knows(w, table, topic) && w.version >= least;
    watermarks.rev().find(|w| may(w.borrow()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use tandem_model::{CapturedTables, PartialTransaction};

    const ANY: Version = Version(i64::MIN);
    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn table(name: &str) -> TableName {
        TableName::new("d", name)
    }

    fn captured(tables: &[&str]) -> Arc<CapturedTables> {
        let captured = tables.iter().map(|name| (table(name), "t".into())).collect();
        Arc::new(CapturedTables { captured, ..CapturedTables::default() })
    }

    fn watermark(upto: u64, partial: bool) -> Watermark {
        Watermark {
            source: "s".into(),
            gtid_set: format!("{SERVER}:1-{upto}").parse().unwrap(),
            position: BinlogPosition { file: "binlog.000001".into(), pos: upto * 100 },
            version: Version(upto as i64),
            tables: captured(&["known"]),
            offsets: BTreeMap::from([("t".to_owned(), vec![5, 0])]),
            partial: partial.then(|| PartialTransaction {
                gtid: format!("{SERVER}:{}", upto + 1).parse().unwrap(),
                rows: 3,
            }),
            clock_us: 0,
        }
    }

    #[test]
    fn a_partial_watermark_is_never_borrowed_nor_an_upper_bound() {
        let log = [watermark(3, false), watermark(4, false), watermark(4, true)];
        let executed: GtidSet = format!("{SERVER}:1-9").parse().unwrap();
        assert_eq!(newest_borrowable(log.iter(), &executed, &table("known"), "t", ANY), Some(&log[1]));
        assert!(covers(&log[1], &BinlogPosition { file: "binlog.000001".into(), pos: 400 }));
        assert!(!covers(&log[2], &BinlogPosition { file: "binlog.000001".into(), pos: 400 }));
    }

    #[test]
    fn only_an_executed_watermark_is_borrowed() {
        let log = [watermark(3, false), watermark(4, false)];
        let executed: GtidSet = format!("{SERVER}:1-3").parse().unwrap();
        assert_eq!(newest_borrowable(log.iter(), &executed, &table("known"), "t", ANY), Some(&log[0]));
        assert_eq!(newest_borrowable(log.iter(), &GtidSet::default(), &table("known"), "t", ANY), None);
    }

    #[test]
    fn what_does_not_know_a_table_is_not_borrowed_for_it() {
        let mut log = [watermark(3, false), watermark(4, false)];
        log[1].tables = captured(&["known", "new"]);
        let executed: GtidSet = format!("{SERVER}:1-9").parse().unwrap();
        assert_eq!(newest_borrowable(log.iter(), &executed, &table("new"), "t", ANY), Some(&log[1]));
        assert_eq!(newest_borrowable(log[..1].iter(), &executed, &table("new"), "t", ANY), None);
    }

    #[test]
    fn a_table_whose_topic_has_no_offsets_or_is_another_one_is_not_known() {
        let mut w = watermark(3, false);
        assert!(knows(&w, &table("known"), "t"));
        assert!(!knows(&w, &table("known"), "other"));
        w.offsets.clear();
        assert!(!knows(&w, &table("known"), "t"));
    }

    #[test]
    fn what_lies_before_a_gap_is_not_borrowed_behind_it() {
        let log = [watermark(3, false), watermark(4, false)];
        let executed: GtidSet = format!("{SERVER}:1-9").parse().unwrap();
        assert_eq!(newest_borrowable(log.iter(), &executed, &table("known"), "t", Version(4)), Some(&log[1]));
        assert_eq!(newest_borrowable(log[..1].iter(), &executed, &table("known"), "t", Version(4)), None);
    }

    #[test]
    fn a_partition_without_a_committed_offset_is_not_applied() {
        let w = watermark(3, false);
        assert!(applied_in(&w, "t", |p| Some([5, 0][p])));
        assert!(!applied_in(&w, "t", |p| [Some(5), None][p]));
        assert!(!applied_in(&w, "t", |p| Some([4, 0][p])));
        assert!(applied_in(&w, "other", |_| None));
    }
}
