//! The phases of a migration. The controller sets the phase, and the gateways follow it.

use std::fmt;
use std::str::FromStr;

use crate::Cohort;

/// The phase of a migration. A later phase compares as greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Reads and writes go to MySQL alone.
    #[default]
    Prepare,
    /// Writes go to MySQL, then to Cassandra. MySQL serves reads; a sample of them is compared with
    /// Cassandra.
    DualWrite,
    /// As in `DualWrite`, while existing rows are copied.
    Backfill,
    /// As in `DualWrite`, while all rows are compared.
    Verify,
    /// As in `DualWrite`, but Cassandra serves the reads of a cohort.
    Canary,
    /// As in `DualWrite`, but Cassandra serves all reads.
    ReadSwitch,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 6] =
        [Self::Prepare, Self::DualWrite, Self::Backfill, Self::Verify, Self::Canary, Self::ReadSwitch];

    /// The phase's name in commands and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::DualWrite => "dual-write",
            Self::Backfill => "backfill",
            Self::Verify => "verify",
            Self::Canary => "canary",
            Self::ReadSwitch => "read-switch",
        }
    }

    /// Whether writes go to Cassandra too.
    pub fn writes_both(self) -> bool {
        self >= Self::DualWrite
    }

    /// The next phase.
    pub fn next(self) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| *phase > self)
    }

    /// The previous phase.
    pub fn previous(self) -> Option<Self> {
        Self::ALL.into_iter().rev().find(|phase| *phase < self)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|phase| phase.name() == s).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{s}` is not a phase: the phases are {names}")
        })
    }
}

/// When the secondary write of a dual write is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DualWriteMode {
    /// Before the client gets its response.
    #[default]
    InRequest,
    /// After the client has its response.
    Behind,
}

/// The phase record: it tells the gateways what to do from now on.
///
/// It is the record `phase` of the control topic. Only the active controller writes it.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseRecord {
    /// Rises by one with each record. A record with an older generation than the newest seen is refused.
    pub generation: u64,
    /// The phase.
    pub phase: Phase,
    /// The cohort whose reads Cassandra serves in the phase `canary`.
    pub cohort: Cohort,
    /// The share of the reads served by Cassandra that are compared with MySQL, from 0 to 1.
    pub validate: f64,
    /// The share of the reads served by MySQL, from `dual-write` on, that are compared with Cassandra, from 0
    /// to 1.
    pub shadow: f64,
    /// Whether MySQL answers a read that Cassandra cannot. Without fallback, such a read returns an error or
    /// Cassandra's answer.
    pub fallback: bool,
    /// When the secondary write is made.
    pub dual_write: DualWriteMode,
    /// Whether the controller advances by itself once its gates are met. Gateways ignore this.
    pub auto: bool,
    /// Whether the rollout is paused: the controller neither advances nor rolls back by itself. Gateways
    /// ignore this.
    pub paused: bool,
    /// Who ordered the change.
    pub by: String,
    /// Why it was ordered.
    pub reason: String,
    /// When its phase and cohort took effect, in microseconds since the epoch.
    pub since_us: i64,
    /// The offset in the mismatch topic from which mismatches belong to this phase and cohort. Earlier
    /// mismatches were known at the decision. Gateways ignore this.
    pub mismatches_from: i64,
    /// When the record was written, in microseconds since the epoch.
    pub at_us: i64,
}

impl PhaseRecord {
    /// Whether this record replaces `other`. Only a higher generation does, so the first record of a
    /// generation stays in force whoever writes a second one.
    pub fn supersedes(&self, other: &Self) -> bool {
        self.generation > other.generation
    }
}

impl Default for PhaseRecord {
    /// The state before the first record: MySQL alone, generation 0.
    fn default() -> Self {
        Self {
            generation: 0,
            phase: Phase::Prepare,
            cohort: Cohort::default(),
            validate: 1.0,
            shadow: 0.0,
            fallback: true,
            dual_write: DualWriteMode::InRequest,
            auto: false,
            paused: false,
            by: String::new(),
            reason: String::new(),
            since_us: 0,
            mismatches_from: 0,
            at_us: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_their_order_forward_and_back() {
        let mut visited = vec![Phase::Prepare];
        while let Some(next) = visited[visited.len() - 1].next() {
            assert_eq!(next.previous(), visited.last().copied());
            visited.push(next);
        }
        assert_eq!(visited, Phase::ALL);
        assert_eq!(Phase::Prepare.previous(), None);
    }

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for phase in Phase::ALL {
            assert_eq!(phase.to_string().parse(), Ok(phase));
        }
        assert!("write-switch".parse::<Phase>().unwrap_err().contains("read-switch"));
    }

    #[test]
    fn without_a_record_mysql_serves_alone() {
        let record = PhaseRecord::default();
        assert_eq!((record.generation, record.phase), (0, Phase::Prepare));
        assert!(!record.phase.writes_both() && Phase::DualWrite.writes_both());
        assert!(!record.cohort.admits(|_| Some("x".into())));
    }
}
