//! The planner: where a migration may go next, and why not yet. Plain functions over values.

use std::fmt;
use std::time::Duration;

use tandem_model::PhaseRecord;

use crate::rollout::gate::Verdict;
use crate::rollout::measurement::Measurements;
use crate::rollout::policy::Policy;
use crate::rollout::stages::Place;

/// What is known.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The phase as it is.
    pub record: &'a PhaseRecord,
    /// What was measured.
    pub measured: &'a Measurements,
    /// Since when the measurements are taken by whoever asks, in microseconds since the epoch: a
    /// place's time before that does not count as held.
    pub watched_since_us: i64,
    /// Now, in microseconds since the epoch.
    pub now_us: i64,
}

/// Something that stands in the way of going on.
#[derive(Debug, Clone, PartialEq)]
pub enum Obstacle {
    /// There is nothing after the last place.
    End,
    /// No step is taken while the migration is paused.
    Paused,
    /// The place has not been held for long enough.
    Dwell {
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
    /// Its name: that of the gate, or `end`, `paused`, `dwell`.
    pub fn name(&self) -> &str {
        match self {
            Self::End => "end",
            Self::Paused => "paused",
            Self::Dwell { .. } => "dwell",
            Self::Gate(verdict) | Self::Failing(verdict) => &verdict.name,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("end: no phase follows"),
            Self::Paused => f.write_str("paused: resume first"),
            Self::Dwell { held, needed } => {
                write!(f, "dwell: held for {:.1} of {:.1} s", held.as_secs_f64(), needed.as_secs_f64())
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
    /// Go on to this place.
    Forward(Place),
    /// Go back to this place.
    Back(Place),
}

/// How things stand.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// Where the migration is.
    pub place: Place,
    /// The place after it.
    pub next: Option<Place>,
    /// The place before it. Going there needs nothing.
    pub previous: Option<Place>,
    /// The gates before the next place.
    pub gates: Vec<Verdict>,
    /// The conditions to go back.
    pub step_back: Vec<Verdict>,
    /// How long the place has been held.
    pub held: Duration,
    /// How long it must be held.
    pub dwell: Duration,
    /// What stands in the way of the next place.
    pub obstacles: Vec<Obstacle>,
    /// What to do by oneself.
    pub decision: Decision,
}

impl Outlook {
    /// The next place, if nothing stands in its way.
    pub fn may_advance(&self) -> Result<Place, &[Obstacle]> {
        match self.next {
            Some(next) if self.obstacles.is_empty() => Ok(next),
            _ => Err(&self.obstacles),
        }
    }
}

/// How things stand, and what to do.
pub fn assess(policy: &Policy, situation: Situation<'_>) -> Outlook {
    let Situation { record, measured, watched_since_us, now_us } = situation;
    let place = Place::of(record);
    let (next, previous) = (policy.ladder.next(place), policy.ladder.previous(place));
    let gates: Vec<Verdict> = policy.gates(place.phase).iter().map(|gate| gate.judge(measured)).collect();
    let step_back: Vec<Verdict> =
        policy.step_back(place.phase).iter().map(|gate| gate.judge(measured)).collect();
    let since_us = record.since_us.max(watched_since_us);
    let held = Duration::from_micros(now_us.saturating_sub(since_us).max(0) as u64);
    let dwell = policy.dwell(place.phase);

    let mut obstacles = Vec::new();
    if next.is_none() {
        obstacles.push(Obstacle::End);
    }
    if record.paused {
        obstacles.push(Obstacle::Paused);
    }
    if next.is_some() && held < dwell {
        obstacles.push(Obstacle::Dwell { held, needed: dwell });
    }
    obstacles.extend(gates.iter().filter(|gate| !gate.met).cloned().map(Obstacle::Gate));
    obstacles.extend(step_back.iter().filter(|gate| gate.met).cloned().map(Obstacle::Failing));

    let failing = step_back.iter().any(|gate| gate.met);
    let decision = match (next, previous) {
        _ if record.paused => Decision::Hold,
        (_, Some(previous)) if failing => Decision::Back(previous),
        (Some(next), _) if record.auto && obstacles.is_empty() => Decision::Forward(next),
        _ => Decision::Hold,
    };
    Outlook { place, next, previous, gates, step_back, held, dwell, obstacles, decision }
}

#[cfg(test)]
mod tests;
