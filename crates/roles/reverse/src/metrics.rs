//! Reverse's metrics.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of one reverse. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(crate) rows: Counter<u64, AtomicU64>,
    pub(crate) skipped: Counter<u64, AtomicU64>,
    pub(crate) transactions: Counter<u64, AtomicU64>,
    pub(crate) dead_letters: Counter<u64, AtomicU64>,
    pub(crate) settled: Counter<u64, AtomicU64>,
    pub(crate) open: Gauge,
}

impl Metrics {
    /// Registers every metric under `tandem_reverse_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tandem_reverse");
        registry.register("rows", "Native writes committed in MySQL", self.rows.clone());
        registry.register(
            "skipped",
            "Native records that MySQL did not need: it has a newer write of the row, or the same one",
            self.skipped.clone(),
        );
        registry.register("transactions", "Transactions committed in MySQL", self.transactions.clone());
        registry.register("dead_letters", "Native writes that MySQL refused", self.dead_letters.clone());
        registry.register(
            "dead_letters_settled",
            "Dead letters that MySQL has taken later, or a newer write of the row",
            self.settled.clone(),
        );
        registry.register("dead_letters_open", "Native writes that MySQL still refuses", self.open.clone());
    }

    /// A transaction with this many rows of so many changes is committed.
    pub(crate) fn written(&self, rows: usize, changes: usize) {
        self.rows.inc_by(rows as u64);
        self.skipped.inc_by((changes - rows) as u64);
        self.transactions.inc();
    }
}
