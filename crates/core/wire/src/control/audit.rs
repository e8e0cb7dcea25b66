//! The trail of what was done to the phase.

use serde::{Deserialize, Serialize};

use super::record::sealed::Sealed;
use super::record::{ControlRecord, ControlSchema};

/// One change of the phase record: who, when, why, and what was known then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// Of the phase record written with it.
    pub generation: i64,
    /// `advance`, `back`, `pause`, `resume`, `auto-on` or `auto-off`.
    pub action: String,
    /// The phase before.
    pub from_phase: String,
    /// The cohort's percentage before.
    pub from_percent: f64,
    /// The phase since.
    pub phase: String,
    /// The cohort's percentage since.
    pub percent: f64,
    /// Whether the controller walks on by itself since.
    pub auto: bool,
    /// Whether the controller takes no step by itself since.
    pub paused: bool,
    /// The token's name, or `auto`.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, in microseconds since the epoch.
    pub at_us: i64,
    /// Everything that is measured.
    pub measurements: Vec<AuditMeasurement>,
    /// What was asked for before going on, or what made it step back.
    pub gates: Vec<AuditGate>,
}

/// A measurement at that time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditMeasurement {
    /// Its name.
    pub name: String,
    /// None where it was not measured.
    pub value: Option<f64>,
    /// Why it was not measured; empty where it was.
    pub unmeasured: String,
}

/// A gate at that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditGate {
    /// Its name.
    pub name: String,
    /// In CEL, over the measurements.
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
