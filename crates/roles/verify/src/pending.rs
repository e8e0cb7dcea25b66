//! Changed keys that wait for a check.

use std::collections::HashMap;

use tandem_model::{TargetKey, Value};

use tandem_row_check::Suspect;

/// The former target keys that are kept for one changed row, at most.
const CANDIDATES: usize = 16;

/// The changed keys of one table, coalesced. A key that changes a hundred times is checked once.
#[derive(Default)]
pub(crate) struct Pending {
    keys: HashMap<Vec<u8>, Suspect>,
}

impl Pending {
    /// Adds a change of a key. Returns false if there is no room for another key.
    pub(crate) fn add(
        &mut self,
        framed: &[u8],
        key: Vec<Value>,
        targets: impl Iterator<Item = (usize, TargetKey)>,
        room: bool,
    ) -> bool {
        let suspect = match self.keys.get_mut(framed) {
            Some(suspect) => suspect,
            None if room => {
                self.keys.entry(framed.to_vec()).or_insert(Suspect { key, candidates: Vec::new() })
            }
            None => return false,
        };
        for target in targets {
            if !suspect.candidates.contains(&target) {
                if suspect.candidates.len() >= CANDIDATES {
                    suspect.candidates.remove(0);
                }
                suspect.candidates.push(target);
            }
        }
        true
    }

    /// Removes and returns up to `limit` keys.
    pub(crate) fn take(&mut self, limit: usize) -> Vec<Suspect> {
        if self.keys.len() <= limit {
            return self.keys.drain().map(|(_, suspect)| suspect).collect();
        }
        let keys: Vec<Vec<u8>> = self.keys.keys().take(limit).cloned().collect();
        keys.iter().filter_map(|key| self.keys.remove(key)).collect()
    }

    /// The number of waiting keys.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_a_key_are_one_suspect_with_all_its_targets() {
        let mut pending = Pending::default();
        let target = |n: u8| (0, vec![vec![n]]);
        assert!(pending.add(b"a", vec![Value::Int(1)], [target(1)].into_iter(), true));
        assert!(pending.add(b"a", vec![Value::Int(1)], [target(2), target(1)].into_iter(), false));
        assert!(!pending.add(b"b", vec![Value::Int(2)], [target(3)].into_iter(), false));
        assert_eq!(pending.len(), 1);
        let taken = pending.take(10);
        assert_eq!(taken, [Suspect { key: vec![Value::Int(1)], candidates: vec![target(1), target(2)] }]);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn take_returns_at_most_the_limit_and_leaves_the_rest() {
        let mut pending = Pending::default();
        for n in 0..5_u8 {
            assert!(pending.add(&[n], vec![Value::Int(n.into())], [].into_iter(), true));
        }
        let mut taken = Vec::new();
        for (left, count) in [(3, 2), (1, 2), (0, 1), (0, 0)] {
            let some = pending.take(2);
            assert_eq!((pending.len(), some.len()), (left, count));
            taken.extend(some.into_iter().map(|suspect| suspect.key));
        }
        taken.sort_by_key(|key| format!("{key:?}"));
        assert_eq!(taken, (0..5).map(|n| vec![Value::Int(n)]).collect::<Vec<_>>());
    }
}
