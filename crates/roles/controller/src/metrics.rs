//! The controller's metrics.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tandem_model::Phase;
use tandem_protocol::rollout::Outlook;
use tandem_runtime::{Trying, Waits};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GateLabel {
    gate: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ActionLabel {
    pub(crate) action: &'static str,
}

/// Gauges and counters of one controller. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Where the controller shows that it waits for Kafka.
    pub waits: Waits,
    trying: Trying,
    pub(crate) active: Gauge<i64, AtomicI64>,
    pub(crate) generation: Gauge<i64, AtomicI64>,
    phase: Family<PhaseLabel, Gauge<i64, AtomicI64>>,
    gates: Family<GateLabel, Gauge<i64, AtomicI64>>,
    pub(crate) actions: Family<ActionLabel, Counter<u64, AtomicU64>>,
    pub(crate) failed_rounds: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// The controller has failed on Kafka, and tries again after `pause`.
    pub(crate) fn failed(&self, cause: String, pause: Duration) {
        self.trying.failed(&self.waits, "controller", cause, pause);
    }

    /// The controller leads, or another one does.
    pub(crate) fn waits_no_more(&self) {
        self.trying.succeeded();
    }

    /// Registers every metric under `tandem_controller_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tandem_controller");
        registry.register("active", "1 if this is the active controller", self.active.clone());
        registry.register("generation", "The generation of the phase", self.generation.clone());
        registry.register("phase", "1 for the current phase", self.phase.clone());
        registry.register("gate_met", "1 for a gate of this phase that is met", self.gates.clone());
        registry.register("actions", "Changes of the phase record", self.actions.clone());
        registry.register(
            "failed_rounds",
            "Rounds in which the log was not measured",
            self.failed_rounds.clone(),
        );
    }

    /// Publishes the phase and the gates.
    pub(crate) fn show(&self, outlook: &Outlook) {
        for phase in Phase::ALL {
            let holds = i64::from(phase == outlook.stage.phase);
            self.phase.get_or_create(&PhaseLabel { phase: phase.name() }).set(holds);
        }
        self.gates.clear();
        for gate in &outlook.gates {
            self.gates.get_or_create(&GateLabel { gate: gate.name.clone() }).set(i64::from(gate.met));
        }
    }
}
