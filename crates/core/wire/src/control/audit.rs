//! The audit trail of the phase.

use serde::{Deserialize, Serialize};

use super::record::sealed::Sealed;
use super::record::{ControlRecord, ControlSchema};

/// An audit entry: a change of the phase record, with who, when, why, and the measurements at that time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// The generation of the phase record written with this entry.
    pub generation: i64,
    /// `advance`, `back`, `pause`, `resume`, `auto-on` or `auto-off`.
    pub action: String,
    /// The phase before the change.
    pub from_phase: String,
    /// The cohort's percentage before the change.
    pub from_percent: f64,
    /// The phase after the change.
    pub phase: String,
    /// The cohort's percentage after the change.
    pub percent: f64,
    /// Whether the controller advances by itself after the change.
    pub auto: bool,
    /// Whether the rollout is paused after the change.
    pub paused: bool,
    /// Who ordered the change: the name of a token, or `auto`.
    pub by: String,
    /// The reason.
    pub reason: String,
    /// The time of the change, in microseconds since the epoch.
    pub at_us: i64,
    /// All measurements at the time of the change.
    pub measurements: Vec<AuditMeasurement>,
    /// The gates of the transition: those required to advance, or the rollback conditions.
    pub gates: Vec<AuditGate>,
}

/// A measurement at the time of the change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditMeasurement {
    /// The measurement's name.
    pub name: String,
    /// The value. `None` if it was not measured.
    pub value: Option<f64>,
    /// Why it was not measured. Empty if it was.
    pub unmeasured: String,
}

/// A gate at the time of the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditGate {
    /// The gate's name.
    pub name: String,
    /// The expression in CEL over the measurements.
    pub expression: String,
    /// Whether it was true.
    pub met: bool,
}

impl Sealed for Audit {}

impl ControlRecord for Audit {
    type Fields = Self;

    fn schema() -> &'static ControlSchema {
        static SCHEMA: ControlSchema =
            ControlSchema::new("Audit", include_str!("../../../../../schemas/audit.avsc"));
        &SCHEMA
    }

    fn to_fields(&self) -> Self {
        self.clone()
    }

    fn from_fields(fields: Self) -> Result<Self, String> {
        Ok(fields)
    }
}
