//! Phases of a migration, as the controller orders them and the gateways follow them.

use std::fmt;
use std::str::FromStr;

use crate::Cohort;

/// How far a migration is. Ordered: a later phase is a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Phase {
    /// MySQL alone reads and writes.
    #[default]
    Prepare,
    /// Writes go to MySQL, then to Cassandra. MySQL is read; a sample is compared with Cassandra.
    DualWrite,
    /// The same while the rows that were there before are copied.
    Backfill,
    /// The same while everything is compared.
    Verify,
    /// The same, but a cohort's reads are served by Cassandra.
    Canary,
    /// The same, but all reads are served by Cassandra.
    ReadSwitch,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 6] =
        [Self::Prepare, Self::DualWrite, Self::Backfill, Self::Verify, Self::Canary, Self::ReadSwitch];

    /// Its name, as commands and the API spell it.
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

    /// The phase after it.
    pub fn next(self) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| *phase > self)
    }

    /// The phase before it.
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
            format!("`{s}` is no phase: the phases are {names}")
        })
    }
}

/// When a dual write's second leg is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DualWriteMode {
    /// Before the client is answered.
    #[default]
    InRequest,
    /// After the client has been answered.
    Behind,
}

/// What the gateways do from now on: the record `phase` of the control topic, written by the active
/// controller only.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseRecord {
    /// Rises by one with each record. An older one than the newest seen is refused.
    pub generation: u64,
    /// The phase.
    pub phase: Phase,
    /// In the phase `canary`: whose reads Cassandra serves.
    pub cohort: Cohort,
    /// The share of the reads served by Cassandra that are compared with MySQL, from 0 to 1 (always).
    pub validate: f64,
    /// The share of the reads served by MySQL, from `dual-write` on, that are compared with Cassandra.
    pub shadow: f64,
    /// Whether MySQL answers where Cassandra cannot. Without it such a read is an error, or what
    /// Cassandra says.
    pub fallback: bool,
    /// When Cassandra is written.
    pub dual_write: DualWriteMode,
    /// Whether the controller walks on by itself once its gates are met. Gateways do not care.
    pub auto: bool,
    /// Whether the controller takes no step by itself, neither forth nor back. Gateways do not care.
    pub paused: bool,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when its phase and cohort hold, in microseconds since the epoch.
    pub since_us: i64,
    /// The offset in the mismatch topic from which on mismatches belong to its phase and cohort: those
    /// before were known when it was decided. Gateways do not care.
    pub mismatches_from: i64,
    /// When it was written, in microseconds since the epoch.
    pub at_us: i64,
}

impl PhaseRecord {
    /// Whether this record takes the place of another one: only a higher generation does. The first record of a
    /// generation holds, whoever writes a second one.
    pub fn supersedes(&self, other: &Self) -> bool {
        self.generation > other.generation
    }
}

impl Default for PhaseRecord {
    /// What holds before any record was written: MySQL alone, generation 0.
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
    fn phases_are_walked_in_their_order_forth_and_back() {
        let mut walked = vec![Phase::Prepare];
        while let Some(next) = walked[walked.len() - 1].next() {
            assert_eq!(next.previous(), walked.last().copied());
            walked.push(next);
        }
        assert_eq!(walked, Phase::ALL);
        assert_eq!(Phase::Prepare.previous(), None);
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        for phase in Phase::ALL {
            assert_eq!(phase.to_string().parse(), Ok(phase));
        }
        assert!("write-switch".parse::<Phase>().unwrap_err().contains("read-switch"));
    }

    #[test]
    fn without_a_record_mysql_is_alone() {
        let record = PhaseRecord::default();
        assert_eq!((record.generation, record.phase), (0, Phase::Prepare));
        assert!(!record.phase.writes_both() && Phase::DualWrite.writes_both());
        assert!(!record.cohort.admits(|_| Some("x".into())));
    }
}
