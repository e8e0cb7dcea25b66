//! The stages that a migration comes by, in their order.

use std::fmt;

use tandem_model::{Phase, PhaseRecord};

/// A phase, and in the canary how many percent of the customers Cassandra serves.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Stage {
    /// The phase.
    pub phase: Phase,
    /// 0 before the canary, 100 after it.
    pub percent: f64,
}

impl Stage {
    /// Where a record says that the migration is.
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

/// A way from one stage to the next or to the one before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    /// Where it begins.
    pub from: Stage,
    /// Where it ends.
    pub to: Stage,
}

/// Every stage, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutPlan(Vec<Stage>);

impl RolloutPlan {
    /// With a stage for each of these percentages of the canary, which must rise within 0 to 100.
    pub fn new(percents: &[f64]) -> Result<Self, String> {
        let legal = percents.iter().all(|percent| (0.0..=100.0).contains(percent));
        if percents.is_empty() || !legal || !percents.is_sorted_by(|a, b| a < b) {
            return Err(
                "the canary's percentages must rise, each from 0 to 100, and there must be one".into()
            );
        }
        let stages = Phase::ALL.into_iter().flat_map(|phase| match phase {
            Phase::Canary => percents.iter().map(|&percent| Stage { phase, percent }).collect(),
            Phase::ReadSwitch => vec![Stage { phase, percent: 100.0 }],
            _ => vec![Stage { phase, percent: 0.0 }],
        });
        Ok(Self(stages.collect()))
    }

    /// The stages.
    pub fn stages(&self) -> &[Stage] {
        &self.0
    }

    /// The stage after `stage`, which need not be one of these: the percentages may have been others.
    pub fn next(&self, stage: Stage) -> Option<Stage> {
        self.0.iter().copied().find(|other| *other > stage)
    }

    /// The stage before `stage`.
    pub fn previous(&self, stage: Stage) -> Option<Stage> {
        self.0.iter().rev().copied().find(|other| *other < stage)
    }

    /// Every step that can be taken, forth and back.
    pub fn transitions(&self) -> Vec<Transition> {
        let forth = self.0.windows(2).map(|pair| Transition { from: pair[0], to: pair[1] });
        let back = self.0.windows(2).map(|pair| Transition { from: pair[1], to: pair[0] });
        forth.chain(back).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_whole_way() {
        let plan = RolloutPlan::new(&[1.0, 50.0]).unwrap();
        let names: Vec<String> = plan.stages().iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            ["prepare", "dual-write", "backfill", "verify", "canary at 1 %", "canary at 50 %", "read-switch"]
        );
        assert_eq!(plan.transitions().len(), 12);
        for step in plan.transitions() {
            assert!(plan.next(step.from) == Some(step.to) || plan.previous(step.from) == Some(step.to));
        }
    }

    #[test]
    fn percentages_that_make_no_sense() {
        for bad in [&[][..], &[1.0, 1.0], &[5.0, 1.0], &[-1.0], &[101.0], &[f64::NAN]] {
            assert!(RolloutPlan::new(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// Also from a percentage that is no longer configured.
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
