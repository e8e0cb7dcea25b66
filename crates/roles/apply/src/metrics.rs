//! Apply's metrics.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Histogram buckets from 1 ms to 100 s, nine per decade, which is fine enough for a p50 and a p99.
fn latency_buckets() -> impl Iterator<Item = f64> {
    let steps = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0];
    [0.001, 0.01, 0.1, 1.0, 10.0]
        .into_iter()
        .flat_map(move |decade| steps.map(|step| decade * step))
        .chain([100.0])
}

/// Dead letters by table and reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LetterLabel {
    pub(crate) table: String,
    pub(crate) reason: String,
}

/// The metrics of one apply. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) rows: Counter<u64, AtomicU64>,
    pub(crate) backfill_rows: Counter<u64, AtomicU64>,
    pub(crate) mutations: Counter<u64, AtomicU64>,
    pub(crate) latency: Histogram,
    pub(crate) dead_letters: Family<LetterLabel, Counter<u64, AtomicU64>>,
    pub(crate) waits_for_mapping: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            rows: Counter::default(),
            backfill_rows: Counter::default(),
            mutations: Counter::default(),
            latency: Histogram::new(latency_buckets()),
            dead_letters: Family::default(),
            waits_for_mapping: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Registers every metric under `tandem_apply_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tandem_apply");
        registry.register("rows", "Live row changes acknowledged by Cassandra", self.rows.clone());
        registry.register(
            "backfill_rows",
            "Backfilled rows acknowledged by Cassandra",
            self.backfill_rows.clone(),
        );
        registry.register(
            "waits_for_mapping",
            "1 while this process waits until the apply processes with another mapping have ended",
            self.waits_for_mapping.clone(),
        );
        registry.register(
            "mutations",
            "Writes acknowledged by Cassandra, after folding",
            self.mutations.clone(),
        );
        registry.register(
            "dead_letters",
            "Changes put aside because they cannot be written, by table and reason",
            self.dead_letters.clone(),
        );
        registry.register(
            "latency_seconds",
            "Seconds from the commit of a live change in MySQL to its acknowledgement by Cassandra",
            self.latency.clone(),
        );
    }
}
