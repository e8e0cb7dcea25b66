//! The planner: the next transition of a rollout, and the obstacles to it. Plain functions over values.

use std::fmt;
use std::time::Duration;

use tandem_model::PhaseRecord;

use crate::rollout::gate::Verdict;
use crate::rollout::measurement::Measurements;
use crate::rollout::policy::Policy;
use crate::rollout::stages::Stage;

/// The input of [`assess`].
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The current phase record.
    pub record: &'a PhaseRecord,
    /// The current measurements.
    pub measured: &'a Measurements,
    /// Since when the caller takes the measurements, in microseconds since the epoch. Time before that does
    /// not count towards the soak time.
    pub watched_since_us: i64,
    /// Now, in microseconds since the epoch.
    pub now_us: i64,
}

/// A reason why the rollout may not advance.
#[derive(Debug, Clone, PartialEq)]
pub enum Obstacle {
    /// The rollout is at its last stage.
    End,
    /// The rollout is paused.
    Paused,
    /// The stage's soak time is not over.
    Soak {
        /// How long the stage has been held.
        held: Duration,
        /// The soak time.
        needed: Duration,
    },
    /// A gate is not met.
    Gate(Verdict),
    /// A rollback condition is true.
    Failing(Verdict),
}

impl Obstacle {
    /// The name of the gate, or `end`, `paused` or `soak`.
    pub fn name(&self) -> &str {
        match self {
            Self::End => "end",
            Self::Paused => "paused",
            Self::Soak { .. } => "soak",
            Self::Gate(verdict) | Self::Failing(verdict) => &verdict.name,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("end: no phase follows"),
            Self::Paused => f.write_str("paused: resume first"),
            Self::Soak { held, needed } => {
                write!(f, "soak: held for {:.1} of {:.1} s", held.as_secs_f64(), needed.as_secs_f64())
            }
            Self::Gate(verdict) => write!(f, "{verdict}"),
            Self::Failing(verdict) => write!(f, "{verdict}, which is a rollback condition"),
        }
    }
}

/// What the controller does by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Stay at the current stage.
    Hold,
    /// Advance to this stage.
    Forward(Stage),
    /// Roll back to this stage.
    Back(Stage),
}

/// The state of the rollout, and the decision that follows from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// The current stage.
    pub stage: Stage,
    /// The next stage.
    pub next: Option<Stage>,
    /// The previous stage. A rollback to it needs no gate.
    pub previous: Option<Stage>,
    /// The gates of the current phase. All must be met to advance.
    pub gates: Vec<Verdict>,
    /// The rollback conditions.
    pub rollback: Vec<Verdict>,
    /// How long the stage has been held.
    pub held: Duration,
    /// The soak time of the stage.
    pub soak: Duration,
    /// The obstacles to the next stage.
    pub obstacles: Vec<Obstacle>,
    /// What the controller does by itself.
    pub decision: Decision,
}

impl Outlook {
    /// The next stage, if there is no obstacle.
    ///
    /// # Errors
    ///
    /// The obstacles to the next stage.
    pub fn may_advance(&self) -> Result<Stage, &[Obstacle]> {
        match self.next {
            Some(next) if self.obstacles.is_empty() => Ok(next),
            _ => Err(&self.obstacles),
        }
    }
}

/// Judges all gates and decides what the controller does.
///
/// A rollback condition wins over everything but a pause. It needs no soak time, and no `auto`.
pub fn assess(policy: &Policy, situation: Situation<'_>) -> Outlook {
    let Situation { record, measured, watched_since_us, now_us } = situation;
    let stage = Stage::of(record);
    let (next, previous) = (policy.plan.next(stage), policy.plan.previous(stage));
    let gates: Vec<Verdict> = policy.gates(stage.phase).iter().map(|gate| gate.judge(measured)).collect();
    let rollback: Vec<Verdict> =
        policy.rollback(stage.phase).iter().map(|gate| gate.judge(measured)).collect();
    let since_us = record.since_us.max(watched_since_us);
    let held = Duration::from_micros(now_us.saturating_sub(since_us).max(0) as u64);
    let soak = policy.soak(stage.phase);

    let mut obstacles = Vec::new();
    if next.is_none() {
        obstacles.push(Obstacle::End);
    }
    if record.paused {
        obstacles.push(Obstacle::Paused);
    }
    if next.is_some() && held < soak {
        obstacles.push(Obstacle::Soak { held, needed: soak });
    }
    obstacles.extend(gates.iter().filter(|gate| !gate.met).cloned().map(Obstacle::Gate));
    obstacles.extend(rollback.iter().filter(|gate| gate.met).cloned().map(Obstacle::Failing));

    let failing = rollback.iter().any(|gate| gate.met);
    let decision = match (next, previous) {
        _ if record.paused => Decision::Hold,
        (_, Some(previous)) if failing => Decision::Back(previous),
        (Some(next), _) if record.auto && obstacles.is_empty() => Decision::Forward(next),
        _ => Decision::Hold,
    };
    Outlook { stage, next, previous, gates, rollback, held, soak, obstacles, decision }
}

#[cfg(test)]
mod tests;
