//! What verification and repair tell about themselves.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tandem_row_check::CheckMetrics;

/// Counters of one process's verification and repair. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Those of the row checks.
    pub checks: CheckMetrics,
    pub(crate) skipped: Counter<u64, AtomicU64>,
    pub(crate) pending: Gauge<i64, AtomicI64>,
    pub(crate) repairs: Counter<u64, AtomicU64>,
    pub(crate) resolved: Counter<u64, AtomicU64>,
    pub(crate) unrepairable: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// Registers everything under `tandem_verify_…` and `tandem_reconcile_…`.
    pub fn register(&self, registry: &mut Registry) {
        self.checks.register(registry);
        let verify = registry.sub_registry_with_prefix("tandem_verify");
        verify.register(
            "skipped",
            "Changed keys left out because too many were waiting: run a full verification",
            self.skipped.clone(),
        );
        verify.register("pending", "Changed keys waiting to be checked", self.pending.clone());
        let reconcile = registry.sub_registry_with_prefix("tandem_reconcile");
        reconcile.register("repairs", "Rows written again from MySQL", self.repairs.clone());
        reconcile.register("resolved", "Mismatches resolved", self.resolved.clone());
        reconcile.register("unrepairable", "Mismatches that repairs did not fix", self.unrepairable.clone());
    }
}
