//! The metrics of verification and repair.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tandem_row_check::CheckMetrics;

/// The metrics of verification and repair in one process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// The metrics of the row checks.
    pub checks: CheckMetrics,
    pub(crate) skipped: Counter<u64, AtomicU64>,
    pub(crate) pending: Gauge<i64, AtomicI64>,
    pub(crate) repairs: Counter<u64, AtomicU64>,
    pub(crate) resolved: Counter<u64, AtomicU64>,
    pub(crate) unrepairable: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// Registers every metric under `tandem_verify_…` and `tandem_reconcile_…`.
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
        reconcile.register("repairs", "Rows rewritten from MySQL", self.repairs.clone());
        reconcile.register("resolved", "Mismatches resolved", self.resolved.clone());
        reconcile.register("unrepairable", "Mismatches that repairs did not fix", self.unrepairable.clone());
    }
}
