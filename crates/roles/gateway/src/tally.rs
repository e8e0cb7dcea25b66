//! What a gateway has counted since its start, for its announcements.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tandem_protocol::route::Reason;
use tandem_wire::control::counter;

/// How many entities are counted by name.
const NAMED_ENTITIES: usize = 200;

/// Counts by name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<BTreeMap<String, i64>>>);

impl Tally {
    fn add(&self, names: &[&str]) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            match counts.get_mut(*name) {
                Some(count) => *count += 1,
                None => _ = counts.insert((*name).to_owned(), 1),
            }
        }
    }

    /// A request was answered with this status.
    pub(crate) fn answered(&self, operation: &str, status: u16) {
        let writes = ["insert", "put", "patch", "delete", "batch"].contains(&operation);
        if writes && [200, 201, 204].contains(&status) {
            self.add(&[counter::DUAL_WRITES]);
        }
    }

    /// Cassandra did not accept a secondary write in time.
    pub(crate) fn dual_write_failed(&self) {
        self.add(&[counter::DUAL_WRITE_FAILURES]);
    }

    /// Cassandra served a read.
    pub(crate) fn by_cassandra(&self) {
        self.add(&[counter::CASSANDRA_READS]);
    }

    /// MySQL served a read instead of Cassandra.
    pub(crate) fn fallback(&self, reason: Reason) {
        match reason {
            Reason::Down | Reason::Late | Reason::Failed => self.add(&[counter::FALLBACKS]),
            Reason::Token
            | Reason::DeadLetter
            | Reason::NoTarget
            | Reason::Missing
            | Reason::Extra
            | Reason::Different => {}
        }
    }

    /// A read that phase and cohort give to Cassandra was answered.
    pub(crate) fn routed(&self, entity: &str, by_cassandra: bool) {
        let of_entity = format!("{}/{entity}", counter::ROUTED_READS);
        let by_name = self.has_room_for(&of_entity);
        self.add(&[counter::ROUTED_READS]);
        if by_name {
            self.add(&[&of_entity]);
        }
        if by_cassandra {
            self.add(&[counter::ROUTED_READS_BY_CASSANDRA]);
            if by_name {
                self.add(&[&format!("{}/{entity}", counter::ROUTED_READS_BY_CASSANDRA)]);
            }
        }
    }

    fn has_room_for(&self, name: &str) -> bool {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.contains_key(name) || counts.len() < 2 * NAMED_ENTITIES
    }

    /// All counts.
    pub(crate) fn counts(&self) -> BTreeMap<String, i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gates_measure_is_counted() {
        let tally = Tally::default();
        tally.answered("put", 200);
        tally.answered("put", 500);
        tally.answered("get", 200);
        tally.dual_write_failed();
        tally.by_cassandra();
        for reason in [Reason::Down, Reason::Token, Reason::Different] {
            tally.fallback(reason);
        }
        tally.routed("a", true);
        tally.routed("a", false);
        let counts = tally.counts();
        let expected = [
            ("cassandra_reads", 1),
            ("dual_write_failures", 1),
            ("dual_writes", 1),
            ("fallbacks", 1),
            ("routed_reads", 2),
            ("routed_reads/a", 2),
            ("routed_reads_by_cassandra", 1),
            ("routed_reads_by_cassandra/a", 1),
        ];
        assert_eq!(counts, expected.map(|(name, count)| (name.to_owned(), count)).into());
    }

    #[test]
    fn the_named_entities_are_bounded() {
        let tally = Tally::default();
        for n in 0..1000 {
            tally.routed(&format!("e{n}"), true);
        }
        let counts = tally.counts();
        assert_eq!(counts["routed_reads_by_cassandra"], 1000);
        assert!(counts.len() <= 2 * NAMED_ENTITIES + 2, "{}", counts.len());
    }
}
