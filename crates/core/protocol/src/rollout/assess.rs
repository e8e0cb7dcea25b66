//! The planner: where a migration may go next, and why not yet. Plain functions over values.

use std::fmt;
use std::time::Duration;

use tandem_model::PhaseRecord;

use crate::rollout::gate::Verdict;
use crate::rollout::measurement::Measurements;
use crate::rollout::policy::Policy;
use crate::rollout::stages::Stage;

/// What is known.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The phase as it is.
    pub record: &'a PhaseRecord,
    /// What was measured.
    pub measured: &'a Measurements,
    /// Since when the measurements are taken by whoever asks, in microseconds since the epoch: a
    /// stage's time before that does not count as held.
    pub watched_since_us: i64,
    /// Now, in microseconds since the epoch.
    pub now_us: i64,
}

/// Something that stands in the way of going on.
#[derive(Debug, Clone, PartialEq)]
pub enum Obstacle {
    /// There is nothing after the last stage.
    End,
    /// No step is taken while the migration is paused.
    Paused,
    /// The stage has not been held for long enough.
    Soak {
        /// How long it has been.
        held: Duration,
        /// How long it must be.
        needed: Duration,
    },
    /// A gate.
    Gate(Verdict),
    /// A condition to go back is true.
    Failing(Verdict),
}

impl Obstacle {
    /// Its name: that of the gate, or `end`, `paused`, `soak`.
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
            Self::Failing(verdict) => write!(f, "{verdict}, which is a reason to go back"),
        }
    }
}

/// What to do now, without anybody's order.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Stay.
    Hold,
    /// Go on to this stage.
    Forward(Stage),
    /// Go back to this stage.
    Back(Stage),
}

/// How things stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// Where the migration is.
    pub stage: Stage,
    /// The stage after it.
    pub next: Option<Stage>,
    /// The stage before it. Going there needs nothing.
    pub previous: Option<Stage>,
    /// The gates before the next stage.
    pub gates: Vec<Verdict>,
    /// The conditions to go back.
    pub rollback: Vec<Verdict>,
    /// How long the stage has been held.
    pub held: Duration,
    /// How long it must be held.
    pub soak: Duration,
    /// What stands in the way of the next stage.
    pub obstacles: Vec<Obstacle>,
    /// What to do by oneself.
    pub decision: Decision,
}

impl Outlook {
    /// The next stage, if nothing stands in its way.
    pub fn may_advance(&self) -> Result<Stage, &[Obstacle]> {
        match self.next {
            Some(next) if self.obstacles.is_empty() => Ok(next),
            _ => Err(&self.obstacles),
        }
    }
}

/// How things stand, and what to do.
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
