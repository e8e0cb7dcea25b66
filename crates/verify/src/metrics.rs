//! What verification tells about itself.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tandem_wire::control::MismatchKind;

/// The label of a mismatch counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabel {
    kind: &'static str,
}

impl From<MismatchKind> for KindLabel {
    fn from(kind: MismatchKind) -> Self {
        let kind = match kind {
            MismatchKind::Missing => "missing",
            MismatchKind::Extra => "extra",
            MismatchKind::Different => "different",
            MismatchKind::ForeignWrite => "foreign_write",
        };
        Self { kind }
    }
}

/// Counters of one process's verification. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub(crate) rows: Counter<u64, AtomicU64>,
    pub(crate) undecided: Counter<u64, AtomicU64>,
    pub(crate) skipped: Counter<u64, AtomicU64>,
    pub(crate) pending: Gauge<i64, AtomicI64>,
    pub(crate) mismatches: Family<KindLabel, Counter<u64, AtomicU64>>,
    pub(crate) repairs: Counter<u64, AtomicU64>,
    pub(crate) resolved: Counter<u64, AtomicU64>,
    pub(crate) unrepairable: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// Registers everything under `tandem_…`.
    pub fn register(&self, registry: &mut Registry) {
        let verify = registry.sub_registry_with_prefix("tandem_verify");
        verify.register("rows", "Rows checked in both stores", self.rows.clone());
        verify.register(
            "undecided",
            "Checks that were void because the key kept changing",
            self.undecided.clone(),
        );
        verify.register(
            "skipped",
            "Changed keys left out because too many were waiting: run a full verification",
            self.skipped.clone(),
        );
        verify.register("pending", "Changed keys waiting to be checked", self.pending.clone());
        let tandem = registry.sub_registry_with_prefix("tandem");
        tandem.register("mismatches", "Mismatches confirmed, by kind", self.mismatches.clone());
        tandem.register("repairs", "Rows written again from MySQL", self.repairs.clone());
        tandem.register("resolved", "Mismatches resolved", self.resolved.clone());
        tandem.register("unrepairable", "Mismatches that a repair did not mend", self.unrepairable.clone());
    }
}
