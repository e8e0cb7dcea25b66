//! What a gateway has counted since its start, for its announcements.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tandem_protocol::route::Reason;
use tandem_wire::control::counter;

#[derive(Debug, Default)]
struct Counts {
    dual_writes: AtomicI64,
    dual_write_failures: AtomicI64,
    cassandra_reads: AtomicI64,
    fallbacks: AtomicI64,
    routed_reads: AtomicI64,
    routed_reads_by_cassandra: AtomicI64,
}

/// Counts by name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Arc<Counts>);

fn one_more(count: &AtomicI64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Tally {
    /// A request was answered with this status.
    pub(crate) fn answered(&self, operation: &str, status: u16) {
        let writes = ["insert", "put", "patch", "delete", "batch"].contains(&operation);
        if writes && [200, 201, 204].contains(&status) {
            one_more(&self.0.dual_writes);
        }
    }

    /// Cassandra did not accept a secondary write in time.
    pub(crate) fn dual_write_failed(&self) {
        one_more(&self.0.dual_write_failures);
    }

    /// Cassandra served a read.
    pub(crate) fn by_cassandra(&self) {
        one_more(&self.0.cassandra_reads);
    }

    /// MySQL served a read instead of Cassandra.
    pub(crate) fn fallback(&self, reason: Reason) {
        match reason {
            Reason::Down | Reason::Late | Reason::Failed => one_more(&self.0.fallbacks),
            Reason::Token
            | Reason::DeadLetter
            | Reason::TableNotLive
            | Reason::NoTarget
            | Reason::Missing
            | Reason::Extra
            | Reason::Different => {}
        }
    }

    /// A read that phase and cohort give to Cassandra was answered.
    pub(crate) fn routed(&self, by_cassandra: bool) {
        one_more(&self.0.routed_reads);
        if by_cassandra {
            one_more(&self.0.routed_reads_by_cassandra);
        }
    }

    /// All counts.
    pub(crate) fn counts(&self) -> BTreeMap<String, i64> {
        let counts = &*self.0;
        [
            (counter::DUAL_WRITES, &counts.dual_writes),
            (counter::DUAL_WRITE_FAILURES, &counts.dual_write_failures),
            (counter::CASSANDRA_READS, &counts.cassandra_reads),
            (counter::FALLBACKS, &counts.fallbacks),
            (counter::ROUTED_READS, &counts.routed_reads),
            (counter::ROUTED_READS_BY_CASSANDRA, &counts.routed_reads_by_cassandra),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed)))
        .collect()
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
        tally.routed(true);
        tally.routed(false);
        let expected = [
            ("cassandra_reads", 1),
            ("dual_write_failures", 1),
            ("dual_writes", 1),
            ("fallbacks", 1),
            ("routed_reads", 2),
            ("routed_reads_by_cassandra", 1),
        ];
        assert_eq!(tally.counts(), expected.map(|(name, count)| (name.to_owned(), count)).into());
    }
}
