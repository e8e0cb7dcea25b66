//! The progress of one partition: which records are delivered, which are done, and the offset to commit.

use std::collections::VecDeque;

/// One partition of an assignment.
///
/// The safe offset is the one to commit: nothing below it is left to do. It is the first delivered record
/// that is not done. Where all delivered records are done, it is the client's *position*.
///
/// # Transaction markers
///
/// A commit or abort marker takes its own offset after the transaction's last record. A consumer that commits
/// "last record + 1" stays one offset short of the end, and Kafka's tools show a lag of 1 on every idle
/// partition. The position avoids this:
///
/// - librdkafka 2.12 puts the markers of control batches into the same queue as the records, in order
///   (`rd_kafka_msgset_reader_msg_v2` → `rd_kafka_op_new_ctrl_msg`).
/// - When `poll` meets a marker, it does not return it. It moves the partition's position past it
///   (`rd_kafka_op_handle_std`).
/// - So when the polling thread reads position P between two polls, everything below P has left the queue:
///   an earlier `poll` has returned every record below P, and this struct has it.
///
/// To commit P once all of these records are done skips nothing.
///
/// # Stale positions
///
/// The client keeps the old position after an assignment ends, until the next assignment starts to fetch.
/// Under the new assignment the old position would skip records that were delivered and not done. So the
/// position at the revocation is remembered as stale. A position counts only after a record of the new
/// assignment was delivered, or once it differs from the stale one.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// Delivered records in order, and whether each is done. The first one is never done.
    delivered: VecDeque<(i64, bool)>,
    /// Every record below this offset has been delivered.
    position: i64,
    /// The position left over from the previous assignment, until a current one is known.
    stale: Option<i64>,
    /// The last committed offset, if known.
    committed: Option<i64>,
}

impl Progress {
    /// An assignment that starts at `position`. `committed` is the group's committed offset. `stale` is the
    /// client's position when it last lost this partition.
    pub(crate) fn new(position: i64, committed: Option<i64>, stale: Option<i64>) -> Self {
        Self { delivered: VecDeque::new(), position, stale, committed }
    }

    /// Records a delivery. Returns false if the record was delivered before.
    pub(crate) fn deliver(&mut self, offset: i64) -> bool {
        if offset < self.position {
            return false;
        }
        self.delivered.push_back((offset, false));
        self.position = offset + 1;
        self.stale = None;
        true
    }

    /// Records the client's position.
    pub(crate) fn at(&mut self, position: i64) {
        if self.stale != Some(position) {
            self.stale = None;
            self.position = self.position.max(position);
        }
    }

    /// Marks a record as done. The record may come late, from an earlier assignment. If it was delivered
    /// again meanwhile, it counts as done. An unknown record is ignored.
    pub(crate) fn done(&mut self, offset: i64) {
        if let Ok(i) = self.delivered.binary_search_by_key(&offset, |d| d.0) {
            self.delivered[i].1 = true;
        }
        while self.delivered.front().is_some_and(|d| d.1) {
            self.delivered.pop_front();
        }
    }

    /// The safe offset: nothing below it is left to do.
    pub(crate) fn safe(&self) -> i64 {
        self.delivered.front().map_or(self.position, |d| d.0)
    }

    /// Whether every delivered record is done, and their offsets were committed.
    pub(crate) fn is_settled(&self) -> bool {
        self.delivered.is_empty() && self.committed == Some(self.position)
    }

    /// Returns the offset to commit, if it has moved since the last commit. It then counts as committed.
    pub(crate) fn take_commit(&mut self) -> Option<i64> {
        let safe = self.safe();
        if self.committed == Some(safe) {
            return None;
        }
        self.committed = Some(safe);
        Some(safe)
    }

    /// Records that the last commit failed.
    pub(crate) fn commit_failed(&mut self) {
        self.committed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_commit_passes_markers_once_all_records_are_done() {
        let mut progress = Progress::new(10, Some(10), None);
        assert_eq!(progress.take_commit(), None);
        assert!(progress.deliver(10) && progress.deliver(11));
        progress.at(13); // a marker at 12
        assert_eq!(progress.safe(), 10);
        progress.done(11);
        assert_eq!(progress.take_commit(), None);
        progress.done(10);
        assert!(!progress.is_settled());
        assert_eq!(progress.take_commit(), Some(13));
        assert!(progress.is_settled());
        assert_eq!(progress.take_commit(), None);
        progress.commit_failed();
        assert!(!progress.is_settled());
        assert_eq!(progress.take_commit(), Some(13));
    }

    #[test]
    fn a_partition_without_a_committed_offset_commits_its_start() {
        assert_eq!(Progress::new(0, None, None).take_commit(), Some(0));
    }

    #[test]
    fn a_stale_position_is_ignored() {
        let mut progress = Progress::new(50, Some(50), Some(100));
        progress.at(100);
        assert_eq!(progress.safe(), 50);
        assert!(progress.deliver(50));
        progress.done(50);
        assert_eq!(progress.safe(), 51);
        progress.at(100);
        assert_eq!(progress.safe(), 100);
        let mut progress = Progress::new(50, Some(50), Some(100));
        progress.at(51);
        assert_eq!(progress.safe(), 51);
    }

    proptest! {
        /// Whatever the order in which records are done, no record that is not done lies below the
        /// safe offset, and when all are done it is the position.
        #[test]
        fn nothing_undone_is_skipped(
            gaps in proptest::collection::vec(1i64..4, 1..40),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..80),
        ) {
            let mut offsets: Vec<i64> = gaps
                .iter()
                .scan(0, |at, gap| { *at += gap; Some(*at) })
                .collect();
            let mut progress = Progress::new(0, Some(0), None);
            for &offset in &offsets {
                prop_assert!(progress.deliver(offset));
                prop_assert!(!progress.deliver(offset));
            }
            let end = offsets[offsets.len() - 1] + 2;
            progress.at(end);
            for index in order {
                if offsets.is_empty() {
                    break;
                }
                progress.done(offsets.remove(index.index(offsets.len())));
                prop_assert_eq!(progress.safe(), offsets.first().copied().unwrap_or(end));
            }
        }
    }
}
