//! The stages of a rollout, in order.

use std::fmt;

use tandem_model::{Phase, PhaseRecord};

/// A stage: a phase, and in the canary the percentage of the cohort.
///
/// For example, `canary at 5 %` is a stage, and `canary at 25 %` is the next one.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Stage {
    /// The phase.
    pub phase: Phase,
    /// The percentage of the canary's buckets. 0 before the canary, 100 after it.
    pub percent: f64,
}

impl Stage {
    /// The stage that a phase record holds.
    pub fn of(record: &PhaseRecord) -> Self {
        Self { phase: record.phase, percent: record.cohort.percent }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.phase {
            Phase::Canary => write!(f, "canary at {} %", self.percent),
            phase => write!(f, "{phase}"),
        }
    }
}

/// A move from one stage to the next, or back to the previous one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    /// The stage before the move.
    pub from: Stage,
    /// The stage after the move.
    pub to: Stage,
}

/// The rollout plan: every stage, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutPlan(Vec<Stage>);

impl RolloutPlan {
    /// A plan with one stage for each percentage of the canary.
    ///
    /// # Errors
    ///
    /// There is no percentage, one lies outside 0 to 100, or they do not rise.
    pub fn new(percents: &[f64]) -> Result<Self, String> {
        let legal = percents.iter().all(|percent| (0.0..=100.0).contains(percent));
        if percents.is_empty() || !legal || !percents.is_sorted_by(|a, b| a < b) {
            return Err(
                "the canary needs at least one percentage; they must rise, and each must be from 0 to 100"
                    .into(),
            );
        }
        let stages = Phase::ALL.into_iter().flat_map(|phase| match phase {
            Phase::Canary => percents.iter().map(|&percent| Stage { phase, percent }).collect(),
            Phase::ReadSwitch => vec![Stage { phase, percent: 100.0 }],
            _ => vec![Stage { phase, percent: 0.0 }],
        });
        Ok(Self(stages.collect()))
    }

    /// The stages, in order.
    pub fn stages(&self) -> &[Stage] {
        &self.0
    }

    /// The stage after `stage`. `stage` need not be in the plan: its percentage may come from an older
    /// configuration.
    pub fn next(&self, stage: Stage) -> Option<Stage> {
        self.0.iter().copied().find(|other| *other > stage)
    }

    /// The stage before `stage`, which need not be in the plan either.
    pub fn previous(&self, stage: Stage) -> Option<Stage> {
        self.0.iter().rev().copied().find(|other| *other < stage)
    }

    /// Every transition that the plan allows, forward and back.
    pub fn transitions(&self) -> Vec<Transition> {
        let forward = self.0.windows(2).map(|pair| Transition { from: pair[0], to: pair[1] });
        let back = self.0.windows(2).map(|pair| Transition { from: pair[1], to: pair[0] });
        forward.chain(back).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plan_has_every_phase_and_every_percentage() {
        let plan = RolloutPlan::new(&[1.0, 50.0]).unwrap();
        let names: Vec<String> = plan.stages().iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            ["prepare", "dual-write", "backfill", "verify", "canary at 1 %", "canary at 50 %", "read-switch"]
        );
        assert_eq!(plan.transitions().len(), 12);
        for Transition { from, to } in plan.transitions() {
            assert!(plan.next(from) == Some(to) || plan.previous(from) == Some(to));
        }
    }

    #[test]
    fn invalid_percentages_are_refused() {
        for bad in [&[][..], &[1.0, 1.0], &[5.0, 1.0], &[-1.0], &[101.0], &[f64::NAN]] {
            assert!(RolloutPlan::new(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// Holds for a percentage that is no longer configured, too.
        #[test]
        fn neighbours_never_skip_a_phase(
            percents in proptest::collection::btree_set(0u8..=100, 1..6), phase in 0usize..6, at in 0u8..=100,
        ) {
            let percents: Vec<f64> = percents.into_iter().map(f64::from).collect();
            let plan = RolloutPlan::new(&percents).unwrap();
            let phase = Phase::ALL[phase];
            let percent = match phase {
                Phase::Canary => f64::from(at),
                Phase::ReadSwitch => 100.0,
                _ => 0.0,
            };
            let stage = Stage { phase, percent };
            if let Some(next) = plan.next(stage) {
                prop_assert!(next.phase == phase || Some(next.phase) == phase.next());
            } else {
                prop_assert_eq!(phase, Phase::ReadSwitch);
            }
            if let Some(previous) = plan.previous(stage) {
                prop_assert!(previous.phase == phase || Some(previous.phase) == phase.previous());
            } else {
                prop_assert_eq!(phase, Phase::Prepare);
            }
        }
    }
}
