//! The records that a change of the phase writes: the phase record and its audit entry.

use tandem_model::{Cohort, CohortAttribute, DualWriteMode, PhaseRecord};
use tandem_wire::control::{Audit, AuditGate, AuditMeasurement};

use crate::rollout::gate::Verdict;
use crate::rollout::measurement::Measurements;
use crate::rollout::stages::Stage;

/// The configured settings that a phase record carries to the gateways beside the phase.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The attribute by which the canary assigns a request to a bucket.
    pub cohort_by: CohortAttribute,
    /// Requests with one of these values are in the canary whatever the percentage is.
    pub cohort_values: Vec<(CohortAttribute, String)>,
    /// The share of reads served by Cassandra that are compared with MySQL, from 0 to 1.
    pub validate: f64,
    /// The share of reads served by MySQL that are compared with Cassandra, from 0 to 1.
    pub shadow: f64,
    /// Whether MySQL answers a read that Cassandra cannot.
    pub fallback: bool,
    /// When the secondary write to Cassandra is made.
    pub dual_write: DualWriteMode,
}

/// An action on the rollout.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// Go to the next stage.
    Advance(Stage),
    /// Roll back to the previous stage.
    Back(Stage),
    /// Stop the controller from changing the stage by itself.
    Pause,
    /// End the pause.
    Resume,
    /// Set whether the controller advances by itself.
    Auto(bool),
}

impl Action {
    /// The action's name in the audit trail.
    pub fn name(self) -> &'static str {
        match self {
            Self::Advance(_) => "advance",
            Self::Back(_) => "back",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Auto(true) => "auto-on",
            Self::Auto(false) => "auto-off",
        }
    }
}

/// Who acts, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// The phase record that follows `before`.
///
/// `mismatches_from` is the offset in the mismatch topic up to which mismatches are known at the decision.
/// Only mismatches from that offset on count for a new stage.
pub fn next_record(
    serving: &Serving,
    before: &PhaseRecord,
    action: Action,
    reason: &Reason,
    now_us: i64,
    mismatches_from: i64,
) -> PhaseRecord {
    let mut record = PhaseRecord {
        generation: before.generation + 1,
        by: reason.by.clone(),
        reason: reason.reason.clone(),
        at_us: now_us,
        ..before.clone()
    };
    match action {
        Action::Advance(stage) | Action::Back(stage) => {
            record.phase = stage.phase;
            record.since_us = now_us;
            record.mismatches_from = mismatches_from;
            record.cohort = Cohort {
                by: serving.cohort_by.clone(),
                percent: stage.percent,
                values: serving.cohort_values.clone(),
            };
            record.validate = serving.validate;
            record.shadow = serving.shadow;
            record.fallback = serving.fallback;
            record.dual_write = serving.dual_write;
        }
        Action::Pause => record.paused = true,
        Action::Resume => record.paused = false,
        Action::Auto(on) => record.auto = on,
    }
    record
}

/// The audit entry for a change of the phase record. `gates` are the verdicts that the decision rests on.
pub fn audit<'a>(
    before: &PhaseRecord,
    after: &PhaseRecord,
    action: Action,
    measured: &Measurements,
    gates: impl Iterator<Item = &'a Verdict>,
) -> Audit {
    Audit {
        generation: after.generation as i64,
        action: action.name().to_owned(),
        from_phase: before.phase.to_string(),
        from_percent: before.cohort.percent,
        phase: after.phase.to_string(),
        percent: after.cohort.percent,
        auto: after.auto,
        paused: after.paused,
        by: after.by.clone(),
        reason: after.reason.clone(),
        at_us: after.at_us,
        measurements: measured
            .iter()
            .map(|(name, value)| AuditMeasurement {
                name: name.to_owned(),
                value: value.ok().map(crate::rollout::measurement::Measured::as_number),
                unmeasured: value.err().unwrap_or_default().to_owned(),
            })
            .collect(),
        gates: gates
            .map(|gate| AuditGate {
                name: gate.name.clone(),
                expression: gate.expression.clone(),
                met: gate.met,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::Phase;

    #[test]
    fn a_transition_restarts_the_soak_time_and_a_pause_does_not() {
        let serving = Serving {
            cohort_by: CohortAttribute::Key,
            cohort_values: vec![(CohortAttribute::Header("tandem-country".into()), "PT".into())],
            validate: 0.5,
            shadow: 0.25,
            fallback: true,
            dual_write: DualWriteMode::Behind,
        };
        let reason = Reason { by: "me".into(), reason: "because".into() };
        let canary = Stage { phase: Phase::Canary, percent: 5.0 };
        let before = PhaseRecord { auto: true, ..PhaseRecord::default() };
        let entered = next_record(&serving, &before, Action::Advance(canary), &reason, 10, 7);
        assert_eq!((entered.generation, entered.since_us, Stage::of(&entered)), (1, 10, canary));
        assert_eq!((entered.cohort.values.len(), entered.dual_write), (1, DualWriteMode::Behind));
        let paused = next_record(&serving, &entered, Action::Pause, &reason, 20, 9);
        assert_eq!((paused.generation, paused.since_us, paused.at_us, paused.paused), (2, 10, 20, true));
        assert!(paused.auto);
        assert_eq!((entered.mismatches_from, paused.mismatches_from), (7, 7));
        let audit = audit(&entered, &paused, Action::Pause, &Measurements::none("x"), [].into_iter());
        assert_eq!((audit.generation, audit.action.as_str(), audit.by.as_str()), (2, "pause", "me"));
        assert!(audit.measurements.iter().all(|m| m.value.is_none() && m.unmeasured == "x"));
    }
}
