//! The metrics of row checks.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tandem_wire::control::MismatchKind;

/// The label of the mismatch counters.
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
        };
        Self { kind }
    }
}

/// The counters of one process's row checks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CheckMetrics {
    pub(crate) rows: Counter<u64, AtomicU64>,
    pub(crate) undecided: Counter<u64, AtomicU64>,
    pub(crate) mismatches: Family<KindLabel, Counter<u64, AtomicU64>>,
}

impl CheckMetrics {
    /// Registers all counters under `tandem_verify_…`.
    pub fn register(&self, registry: &mut Registry) {
        let verify = registry.sub_registry_with_prefix("tandem_verify");
        verify.register("rows", "Rows checked in both stores", self.rows.clone());
        verify.register(
            "undecided",
            "Checks that were void because the key kept changing",
            self.undecided.clone(),
        );
        verify.register("mismatches", "Mismatches confirmed, by kind", self.mismatches.clone());
    }
}
