//! The backfill's metrics.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// The metrics of one backfill. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(crate) rows: Counter<u64, AtomicU64>,
    pub(crate) chunks: Counter<u64, AtomicU64>,
    pub(crate) tables_done: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// Registers every metric under `tandem_backfill_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tandem_backfill");
        registry.register("rows", "Rows published to the backfill topics", self.rows.clone());
        registry.register("chunks", "Chunks published", self.chunks.clone());
        registry.register("tables_done", "Tables whose last chunk is published", self.tables_done.clone());
    }
}
