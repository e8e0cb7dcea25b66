//! What of one partition has been delivered, what is done, and which offset is safe to commit.

use std::collections::VecDeque;

/// One partition of an assignment.
///
/// The safe offset is the first one of which it is not known that nothing before it is left to do:
/// the first record delivered and not done, or, where all are done, the client's *position*.
///
/// **The end of transactions.** A commit or abort marker takes an offset of its own after the last
/// record. A consumer that commits "last record + 1" stays one short of the end for ever, and Kafka's
/// tools show a lag of one on every idle partition. librdkafka 2.12 puts the markers of control
/// batches into the same queue as the records, in order (`rd_kafka_msgset_reader_msg_v2` →
/// `rd_kafka_op_new_ctrl_msg`), and when `poll` meets one there it does not return it but moves the
/// partition's position behind it (`rd_kafka_op_handle_std`). So `position()`, asked between two
/// polls by the thread that polls, is P only if everything of the partition below P has left the
/// queue: every record below P was returned by an earlier `poll`, and is in here. Committing P once
/// all of these are done skips nothing.
///
/// **A stale position.** The position survives the end of an assignment until the next one has
/// started to fetch. Taken for the new assignment's it would skip records that were delivered
/// under the old one and not done. So the position at the time of the revocation is remembered, and
/// a position is believed only once a record of this assignment was delivered, or once it is
/// another one than that.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// Delivered and not forgotten, in order; whether each is done. Its first is not done.
    delivered: VecDeque<(i64, bool)>,
    /// Everything below this was delivered or is no record.
    position: i64,
    /// The position left over from the assignment before, until one can be believed.
    stale: Option<i64>,
    /// The offset committed last, as far as is known.
    committed: Option<i64>,
}

impl Progress {
    /// An assignment that starts at `position`. `committed` is what the group has committed;
    /// `stale` the client's position when it last lost this partition.
    pub(crate) fn new(position: i64, committed: Option<i64>, stale: Option<i64>) -> Self {
        Self { delivered: VecDeque::new(), position, stale, committed }
    }

    /// Notes a record taken from the client. False where it was delivered before.
    pub(crate) fn deliver(&mut self, offset: i64) -> bool {
        if offset < self.position {
            return false;
        }
        self.delivered.push_back((offset, false));
        self.position = offset + 1;
        self.stale = None;
        true
    }

    /// Notes the client's position.
    pub(crate) fn at(&mut self, position: i64) {
        if self.stale != Some(position) {
            self.stale = None;
            self.position = self.position.max(position);
        }
    }

    /// Notes that a record is done. Records of earlier assignments may come late: they are done as
    /// well, so one that was delivered again meanwhile counts, and an unknown one is ignored.
    pub(crate) fn done(&mut self, offset: i64) {
        if let Ok(i) = self.delivered.binary_search_by_key(&offset, |d| d.0) {
            self.delivered[i].1 = true;
        }
        while self.delivered.front().is_some_and(|d| d.1) {
            self.delivered.pop_front();
        }
    }

    /// Below this nothing is left to do.
    pub(crate) fn safe(&self) -> i64 {
        self.delivered.front().map_or(self.position, |d| d.0)
    }

    /// The offset to commit, if it has moved since the last commit; from now on it counts as
    /// committed.
    pub(crate) fn take_commit(&mut self) -> Option<i64> {
        let safe = self.safe();
        if self.committed == Some(safe) {
            return None;
        }
        self.committed = Some(safe);
        Some(safe)
    }

    /// The last commit failed.
    pub(crate) fn commit_failed(&mut self) {
        self.committed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn markers_are_passed_once_all_is_done() {
        let mut progress = Progress::new(10, Some(10), None);
        assert_eq!(progress.take_commit(), None);
        assert!(progress.deliver(10) && progress.deliver(11));
        progress.at(13); // a marker at 12
        assert_eq!(progress.safe(), 10);
        progress.done(11);
        assert_eq!(progress.take_commit(), None);
        progress.done(10);
        assert_eq!(progress.take_commit(), Some(13));
        assert_eq!(progress.take_commit(), None);
        progress.commit_failed();
        assert_eq!(progress.take_commit(), Some(13));
    }

    #[test]
    fn a_partition_without_a_committed_offset_commits_its_start() {
        assert_eq!(Progress::new(0, None, None).take_commit(), Some(0));
    }

    #[test]
    fn a_stale_position_is_not_believed() {
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
