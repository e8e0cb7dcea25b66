//! What has to hold before the migration goes on, and what makes it go back.

use std::collections::BTreeMap;
use std::time::Duration;

use tandem_model::{Disposition, Phase};

use crate::rollout::gate::{Gate, GateError};
use crate::rollout::stages::RolloutPlan;

/// Conditions by name: as they are configured, in CEL.
pub type Expressions = BTreeMap<String, String>;

/// The stages, how long each is held, and the gates.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The stages.
    pub plan: RolloutPlan,
    soak: BTreeMap<Phase, Duration>,
    gates: BTreeMap<Phase, Vec<Gate>>,
    rollback: BTreeMap<Phase, Vec<Gate>>,
}

/// A policy that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The canary's percentages.
    #[error("controller.canary_percents: {0}")]
    Percents(String),
    /// A phase that has nothing after it has nothing to wait for.
    #[error("controller.gates.{0}: no phase follows it")]
    Last(Phase),
    /// Only reads from Cassandra can turn out badly.
    #[error("controller.rollback.{0}: only `canary` and `read-switch` go back by themselves")]
    NotServed(Phase),
    /// A gate.
    #[error("controller.{section}.{phase}: {source}")]
    Gate {
        /// `gates` or `rollback`.
        section: &'static str,
        /// The phase.
        phase: Phase,
        /// What is wrong.
        source: GateError,
    },
}

impl PolicyError {
    /// What the caller does next. Each needs another configuration.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Percents(_) | Self::Last(_) | Self::NotServed(_) => Disposition::Stop,
            Self::Gate { source, .. } => source.retry(),
        }
    }
}

const CAPTURE: (&str, &str) = ("capture_runs", "capture_age_seconds < 10.0");
const APPLY: (&str, &str) = ("apply_keeps_up", "apply_lag_seconds < 10.0");
const GATEWAYS: (&str, &str) = ("gateways_follow", "gateways_behind == 0.0");
const DUAL_WRITES: (&str, &str) = ("dual_writes_succeed", "dual_write_failure_rate <= 0.01");
const NO_MISMATCH: (&str, &str) = ("no_mismatch_is_open", "open_mismatches == 0.0");
const NO_DEAD_LETTER: (&str, &str) = ("no_dead_letter_is_open", "open_dead_letters == 0.0");

const TABLES_LIVE: (&str, &str) = ("every_table_is_live", "tables_not_live == 0.0");

/// What a phase asks for before the next, unless the configuration says otherwise.
pub fn default_gates(phase: Phase) -> &'static [(&'static str, &'static str)] {
    match phase {
        Phase::Prepare => &[CAPTURE, ("apply_has_begun", "apply_partitions_unclaimed == 0.0")],
        Phase::DualWrite => &[CAPTURE, APPLY, GATEWAYS, DUAL_WRITES],
        Phase::Backfill => &[
            CAPTURE,
            APPLY,
            GATEWAYS,
            DUAL_WRITES,
            TABLES_LIVE,
            ("every_row_is_copied", "backfill_tables_left == 0.0"),
        ],
        Phase::Verify => &[
            CAPTURE,
            APPLY,
            GATEWAYS,
            DUAL_WRITES,
            NO_MISMATCH,
            NO_DEAD_LETTER,
            TABLES_LIVE,
            ("full_scan_is_clean", "full_scan_clean"),
        ],
        Phase::Canary => &[
            CAPTURE,
            APPLY,
            GATEWAYS,
            DUAL_WRITES,
            NO_MISMATCH,
            NO_DEAD_LETTER,
            TABLES_LIVE,
            ("canary_is_read", "canary_reads >= 1.0"),
            ("canary_agrees", "canary_mismatches == 0.0"),
            ("cassandra_serves", "fallback_rate <= 0.01"),
            ("reads_move", "cassandra_read_share >= 0.95"),
        ],
        Phase::ReadSwitch => &[],
    }
}

/// What makes a phase go back by itself, unless the configuration says otherwise.
pub fn default_rollback(phase: Phase) -> &'static [(&'static str, &'static str)] {
    match phase {
        Phase::Canary | Phase::ReadSwitch => &[
            ("canary_differs", "canary_mismatches > 0.0"),
            ("cassandra_fails", "canary_reads >= 20.0 && fallback_rate > 0.05"),
            ("reads_stay_in_mysql", "window_is_full && routed_reads >= 20.0 && cassandra_read_share < 0.5"),
        ],
        _ => &[],
    }
}

/// How long a stage of a phase is held, unless the configuration says otherwise.
pub fn default_soak(phase: Phase) -> Duration {
    match phase {
        Phase::Prepare | Phase::Backfill | Phase::ReadSwitch => Duration::ZERO,
        Phase::DualWrite | Phase::Verify => Duration::from_mins(1),
        Phase::Canary => Duration::from_mins(10),
    }
}

impl Policy {
    /// The defaults, changed by what is configured: a gate replaces the default of its name, an empty
    /// text takes it away.
    pub fn new(
        percents: &[f64],
        soak: &BTreeMap<Phase, Duration>,
        gates: &BTreeMap<Phase, Expressions>,
        rollback: &BTreeMap<Phase, Expressions>,
    ) -> Result<Self, PolicyError> {
        if gates.contains_key(&Phase::ReadSwitch) {
            return Err(PolicyError::Last(Phase::ReadSwitch));
        }
        if let Some(phase) = rollback.keys().find(|phase| **phase < Phase::Canary) {
            return Err(PolicyError::NotServed(*phase));
        }
        let held = |phase| soak.get(&phase).copied().unwrap_or_else(|| default_soak(phase));
        Ok(Self {
            plan: RolloutPlan::new(percents).map_err(PolicyError::Percents)?,
            soak: Phase::ALL.into_iter().map(|phase| (phase, held(phase))).collect(),
            gates: compile("gates", default_gates, gates)?,
            rollback: compile("rollback", default_rollback, rollback)?,
        })
    }

    /// How long a stage of the phase is held.
    pub fn soak(&self, phase: Phase) -> Duration {
        self.soak.get(&phase).copied().unwrap_or_default()
    }

    /// What has to hold before the next stage.
    pub fn gates(&self, phase: Phase) -> &[Gate] {
        self.gates.get(&phase).map_or(&[], Vec::as_slice)
    }

    /// What makes the phase go back.
    pub fn rollback(&self, phase: Phase) -> &[Gate] {
        self.rollback.get(&phase).map_or(&[], Vec::as_slice)
    }
}

type Defaults = fn(Phase) -> &'static [(&'static str, &'static str)];

fn compile(
    section: &'static str,
    defaults: Defaults,
    configured: &BTreeMap<Phase, Expressions>,
) -> Result<BTreeMap<Phase, Vec<Gate>>, PolicyError> {
    let mut all = BTreeMap::new();
    for phase in Phase::ALL {
        let mut texts: BTreeMap<&str, &str> = defaults(phase).iter().copied().collect();
        for (name, text) in configured.get(&phase).into_iter().flatten() {
            texts.insert(name, text);
        }
        texts.retain(|_, text| !text.is_empty());
        let gates: Result<Vec<Gate>, GateError> =
            texts.into_iter().map(|(name, text)| Gate::compile(name, text)).collect();
        all.insert(phase, gates.map_err(|source| PolicyError::Gate { section, phase, source })?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::measurement::{Measurements, NAMES};

    fn of(phase: Phase, name: &str, text: &str) -> BTreeMap<Phase, Expressions> {
        BTreeMap::from([(phase, BTreeMap::from([(name.to_owned(), text.to_owned())]))])
    }

    fn with(
        gates: &BTreeMap<Phase, Expressions>,
        back: &BTreeMap<Phase, Expressions>,
    ) -> Result<Policy, String> {
        Policy::new(&[1.0], &BTreeMap::new(), gates, back).map_err(|error| error.to_string())
    }

    fn names(gates: &[Gate]) -> Vec<&str> {
        gates.iter().map(Gate::name).collect()
    }

    #[test]
    fn defaults_are_replaced_and_taken_away_by_name() {
        let none = BTreeMap::new();
        let policy = with(&none, &none).unwrap();
        assert_eq!(names(policy.gates(Phase::Prepare)), ["apply_has_begun", "capture_runs"]);
        let changed = of(Phase::Prepare, "capture_runs", "capture_age_seconds < 3");
        assert_eq!(with(&changed, &none).unwrap().gates(Phase::Prepare).len(), 2);
        let less = of(Phase::Prepare, "capture_runs", "");
        assert_eq!(names(with(&less, &none).unwrap().gates(Phase::Prepare)), ["apply_has_begun"]);
        let more = of(Phase::Prepare, "quiet", "out_of_band_rows == 0");
        assert_eq!(with(&more, &none).unwrap().gates(Phase::Prepare).len(), 3);
    }

    /// All is well, and no client speaks to a gateway.
    #[test]
    fn quiet_gateways_hold_every_stage_that_writes_both() {
        let none = BTreeMap::new();
        let policy = with(&none, &none).unwrap();
        let mut quiet = Measurements::none("nothing was counted");
        for named in
            NAMES.iter().filter(|named| !named.name.ends_with("_rate") && !named.name.ends_with("_share"))
        {
            if named.flag {
                quiet.set_flag(named.name, Ok(true));
            } else {
                quiet.set(named.name, Ok(0.0));
            }
        }
        let holds = |phase| policy.gates(phase).iter().any(|gate| !gate.judge(&quiet).met);
        assert_eq!(Phase::ALL.map(holds), [false, true, true, true, true, false]);
        assert!(Phase::ALL.iter().all(|phase| !policy.rollback(*phase).iter().any(|g| g.judge(&quiet).met)));
    }

    #[test]
    fn a_stage_soaks_as_configured_and_else_by_default() {
        let none = BTreeMap::new();
        let held = BTreeMap::from([(Phase::Verify, Duration::from_secs(7))]);
        let policy = Policy::new(&[1.0], &held, &none, &none).unwrap();
        let seconds = Phase::ALL.map(|phase| policy.soak(phase).as_secs());
        assert_eq!(seconds, [0, 60, 0, 7, 600, 0]);
    }

    #[test]
    fn invalid_stages_are_refused_by_name() {
        let none = BTreeMap::new();
        let unknown = with(&of(Phase::Verify, "g", "lag < 1"), &none).unwrap_err();
        assert!(unknown.starts_with("controller.gates.verify: gate `g`"), "{unknown}");
        assert!(
            with(&of(Phase::ReadSwitch, "g", "full_scan_clean"), &none).unwrap_err().contains("read-switch")
        );
        assert!(with(&none, &of(Phase::Verify, "g", "full_scan_clean")).unwrap_err().contains("verify"));
        let percents = Policy::new(&[], &BTreeMap::new(), &none, &none).unwrap_err();
        assert!(percents.to_string().contains("controller.canary_percents"), "{percents}");
    }
}
