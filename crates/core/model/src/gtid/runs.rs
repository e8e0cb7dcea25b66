//! Sorted sets of numbers as runs, which share memory with their copies.

use std::sync::Arc;

/// The most runs in a chunk. A change copies one chunk, and a copy of the set copies one pointer for each chunk.
const CHUNK: usize = 128;

/// An inclusive run of numbers.
pub(super) type Run = (u64, u64);

/// Consecutive runs of a set, never empty.
type Chunk = Arc<Vec<Run>>;

/// A set of numbers: sorted, disjoint, non-adjacent, inclusive runs.
///
/// The runs are kept in chunks. A copy of a set shares its chunks, and a change copies only the chunk that it changes.
/// Thousands of sets that follow from each other, as those of watermarks do, therefore take little more memory than
/// one. No chunk is empty.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    chunks: Vec<Chunk>,
}

impl PartialEq for Runs {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = self.unshared(other);
        runs(a).eq(runs(b))
    }
}

impl Eq for Runs {}

impl FromIterator<Run> for Runs {
    /// Collects runs in any order, which may overlap.
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> Self {
        let mut runs: Vec<Run> = runs.into_iter().collect();
        runs.sort_unstable();
        runs.dedup_by(|next, run| {
            let joined = next.0 <= run.1.saturating_add(1);
            if joined {
                run.1 = run.1.max(next.1);
            }
            joined
        });
        Self { chunks: runs.chunks(CHUNK).map(|chunk| Arc::new(chunk.to_vec())).collect() }
    }
}

impl Runs {
    /// The runs, in order.
    pub fn iter(&self) -> impl Iterator<Item = Run> {
        runs(&self.chunks)
    }

    /// The number of runs.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    /// Whether there are no numbers.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds the numbers of a run. It takes time logarithmic in the runs, and constant time if the run follows the last
    /// one.
    pub(super) fn insert(&mut self, run: Run) {
        let at = match self.chunks.last() {
            // Nearly always, the run follows the last one.
            Some(last) if run.0 > last[0].0 => self.chunks.len() - 1,
            // The first chunk that holds the run's first number, touches it, or lies behind it.
            _ => self.chunks.partition_point(|chunk| chunk[chunk.len() - 1].1.saturating_add(1) < run.0),
        };
        if let Some(chunk) = self.chunks.get_mut(at) {
            insert(Arc::make_mut(chunk), run);
            self.settle(at);
        } else {
            self.chunks.push(Arc::new(vec![run]));
        }
    }

    /// Joins the chunk with the runs behind it that its last run touches, and splits it if it is too large.
    fn settle(&mut self, at: usize) {
        let mut end = self.chunks[at][self.chunks[at].len() - 1].1;
        while let Some(next) = self.chunks.get_mut(at + 1)
            && next[0].0 <= end.saturating_add(1)
        {
            let joined = next.partition_point(|&(first, _)| first <= end.saturating_add(1));
            end = end.max(next[joined - 1].1);
            if joined == next.len() {
                self.chunks.remove(at + 1);
            } else {
                Arc::make_mut(next).drain(..joined);
            }
        }
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        if let Some(last) = chunk.last_mut() {
            last.1 = end;
        }
        if chunk.len() > CHUNK {
            let behind = chunk.split_off(CHUNK / 2);
            self.chunks.insert(at + 1, Arc::new(behind));
        }
    }

    /// Whether the number is in the set. It takes time logarithmic in the runs.
    pub(super) fn contains(&self, number: u64) -> bool {
        self.covers((number, number))
    }

    /// Whether every number of `self` is in `other`.
    ///
    /// It takes time linear in the runs that they do not share. If `self` has few runs, it takes time logarithmic in
    /// those of `other`.
    pub(super) fn is_subset(&self, other: &Self) -> bool {
        if self.chunks.len() == 1 && other.chunks.len() > self.chunks[0].len() {
            return self.iter().all(|run| other.covers(run));
        }
        let (ours, theirs) = self.unshared(other);
        let mut theirs = runs(theirs).peekable();
        runs(ours).all(|(a, b)| {
            while theirs.next_if(|&(_, d)| d < b).is_some() {}
            theirs.peek().is_some_and(|&(c, _)| c <= a)
        })
    }

    /// The numbers in `self` that are not in `other`. It takes time linear in the runs that they do not share.
    pub(super) fn minus(&self, other: &Self) -> Self {
        let (ours, theirs) = self.unshared(other);
        let mut theirs = runs(theirs).peekable();
        let mut left = Vec::new();
        for (a, b) in runs(ours) {
            let mut from = Some(a);
            while theirs.next_if(|&(_, d)| d < a).is_some() {}
            // A run of theirs that reaches beyond `b` may cover more of the runs behind it.
            while let Some(&(c, d)) = theirs.peek().filter(|&&(c, _)| c <= b) {
                if let Some(from) = from.filter(|from| *from < c) {
                    left.push((from, c - 1));
                }
                from = d.checked_add(1);
                if d > b {
                    break;
                }
                theirs.next();
            }
            if let Some(from) = from.filter(|from| *from <= b) {
                left.push((from, b));
            }
        }
        left.into_iter().collect()
    }

    /// Adds all numbers of `other`.
    pub(super) fn extend(&mut self, other: &Self) {
        other.iter().for_each(|run| self.insert(run));
    }

    fn covers(&self, (first, last): Run) -> bool {
        let at = self.chunks.partition_point(|chunk| chunk[chunk.len() - 1].1 < last);
        self.chunks.get(at).is_some_and(|chunk| {
            let at = chunk.partition_point(|&(_, b)| b < last);
            chunk.get(at).is_some_and(|&(a, _)| a <= first)
        })
    }

    /// The chunks of both without those that they share at the beginning and at the end.
    fn unshared<'a>(&'a self, other: &'a Self) -> (&'a [Chunk], &'a [Chunk]) {
        let (mut ours, mut theirs) = (&self.chunks[..], &other.chunks[..]);
        while let (Some((a, our_rest)), Some((b, their_rest))) = (ours.split_first(), theirs.split_first())
            && Arc::ptr_eq(a, b)
        {
            (ours, theirs) = (our_rest, their_rest);
        }
        while let (Some((a, our_rest)), Some((b, their_rest))) = (ours.split_last(), theirs.split_last())
            && Arc::ptr_eq(a, b)
        {
            (ours, theirs) = (our_rest, their_rest);
        }
        (ours, theirs)
    }
}

/// The runs of chunks, in order.
fn runs(chunks: &[Chunk]) -> impl Iterator<Item = Run> {
    chunks.iter().flat_map(|chunk| chunk.iter().copied())
}

/// Adds a run to those of one chunk.
fn insert(chunk: &mut Vec<Run>, (mut first, mut last): Run) {
    let start = chunk.partition_point(|&(_, b)| b.saturating_add(1) < first);
    let end = chunk.partition_point(|&(a, _)| a <= last.saturating_add(1));
    if start < end {
        first = first.min(chunk[start].0);
        last = last.max(chunk[end - 1].1);
    }
    chunk.splice(start..end, [(first, last)]);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn well_formed(set: &Runs) -> bool {
        let runs: Vec<Run> = set.iter().collect();
        runs.iter().all(|(a, b)| a <= b)
            && runs.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0)
            && set.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK)
    }

    fn numbers(set: &Runs) -> BTreeSet<u64> {
        set.iter().flat_map(|(a, b)| a..=b).collect()
    }

    proptest! {
        /// Every second number makes runs of one, so the sets have several chunks.
        #[test]
        fn it_behaves_as_a_set_over_many_chunks(
            start in proptest::collection::vec(0u64..1000, 0..500),
            added in proptest::collection::vec((0u64..2000, 0u64..40), 0..60),
            other in proptest::collection::vec(0u64..1000, 0..500),
        ) {
            let mut set: Runs = start.iter().map(|n| (n * 2, n * 2)).collect();
            let mut expected: BTreeSet<u64> = start.iter().map(|n| n * 2).collect();
            let before = set.clone();
            for (n, more) in added {
                // Some runs are long, so that they join those of several chunks.
                let last = n + if more == 39 { 700 } else { more % 4 };
                set.insert((n, last));
                expected.extend(n..=last);
                prop_assert!(well_formed(&set));
            }
            prop_assert_eq!(numbers(&set), expected.clone());
            prop_assert!(before.is_subset(&set));
            prop_assert_eq!(&set.minus(&before), &expected.difference(&numbers(&before)).map(|&n| (n, n)).collect());
            let mut again = before.clone();
            again.extend(&set.minus(&before));
            prop_assert_eq!(&again, &set);

            let other: Runs = other.iter().map(|n| (*n, n + n % 3)).collect();
            let theirs = numbers(&other);
            prop_assert!(well_formed(&other));
            prop_assert_eq!(set.is_subset(&other), expected.is_subset(&theirs));
            prop_assert_eq!(numbers(&set.minus(&other)), expected.difference(&theirs).copied().collect());
            prop_assert_eq!(set == other, expected == theirs);
            for n in 0..2800 {
                prop_assert_eq!(set.contains(n), expected.contains(&n));
            }
            let mut both = set.clone();
            both.extend(&other);
            prop_assert!(well_formed(&both));
            prop_assert_eq!(numbers(&both), expected.union(&theirs).copied().collect());
        }
    }

    #[test]
    fn a_change_copies_one_chunk() {
        let set: Runs = (0..10_000).map(|n| (n * 3 + 1, n * 3 + 1)).collect();
        for number in [2, 15_000, 30_001] {
            let mut changed = set.clone();
            changed.insert((number, number));
            let shared =
                changed.chunks.iter().filter(|chunk| set.chunks.iter().any(|c| Arc::ptr_eq(c, chunk)));
            assert!(shared.count() + 1 >= set.chunks.len() - 1, "{number}");
            assert_eq!(changed.minus(&set), [(number, number)].into_iter().collect());
        }
    }

    #[test]
    fn the_greatest_numbers_are_no_special_case() {
        let mut set = Runs::default();
        for n in [u64::MAX, u64::MAX - 1, u64::MAX] {
            set.insert((n, n));
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [(u64::MAX - 1, u64::MAX)]);
        assert!(set.contains(u64::MAX));
        // Another set, which shares no memory.
        let same: Runs = set.iter().collect();
        assert!(set.minus(&same).is_empty() && set.is_subset(&same));
    }
}
