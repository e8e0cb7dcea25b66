//! The backfill's metrics.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tandem_runtime::{Trying, Waits};

/// The metrics of one backfill. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Where the backfill shows that it waits for MySQL or Kafka.
    pub waits: Waits,
    trying: Trying,
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

    /// A chunk of this many rows is published.
    pub(crate) fn chunk(&self, rows: usize) {
        self.rows.inc_by(rows as u64);
        self.chunks.inc();
        self.waits_no_more();
    }

    /// The copy has failed, and goes on from its last chunk after `pause`.
    pub(crate) fn failed(&self, cause: String, pause: Duration) {
        self.trying.failed(&self.waits, "backfill", cause, pause);
    }

    /// The backfill waits for nothing: it has published, begins, or is done.
    pub(crate) fn waits_no_more(&self) {
        self.trying.succeeded();
    }
}
