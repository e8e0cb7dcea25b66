//! The routing of reads: a function of the phase and of facts about the request.

use std::fmt;

use tandem_model::{Phase, PhaseRecord};

/// Why MySQL serves a read that was routed to Cassandra.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The changes that the request's token stands for are not applied yet.
    Token,
    /// A change of the row is a dead letter. For a list: of any row of the table.
    DeadLetter,
    /// The table has halted, or is not verified again since.
    TableNotLive,
    /// No target table has the key of the request.
    NoTarget,
    /// Cassandra has failed repeatedly and recently.
    Down,
    /// Cassandra lacks a row that MySQL has.
    Missing,
    /// Cassandra has a row that MySQL does not have.
    Extra,
    /// The row differs between the stores.
    Different,
    /// Cassandra did not answer in time.
    Late,
    /// Cassandra answered with an error, or with a row that cannot be decoded.
    Failed,
}

impl Reason {
    /// The reason's name in headers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token-not-applied",
            Self::DeadLetter => "dead-letter",
            Self::TableNotLive => "table-not-live",
            Self::NoTarget => "no-target",
            Self::Down => "down",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different => "different",
            Self::Late => "late",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Facts about a read that are known before a store is queried.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // independent facts, not a state machine
pub struct ReadFacts {
    /// Whether the phase's cohort admits the request.
    pub in_cohort: bool,
    /// Whether a target table can answer the read.
    pub has_target: bool,
    /// Whether the table is live. If not, committed offsets say nothing about its changes.
    pub live: bool,
    /// Whether all changes that the request's token stands for are applied. True without a token.
    pub applied: bool,
    /// Whether a change of a requested row is a dead letter.
    pub put_aside: bool,
    /// Whether Cassandra has answered recently.
    pub healthy: bool,
    /// A random number in `[0, 1)`. A read is sampled if it lies below the configured share.
    pub sample: f64,
}

/// The store that serves a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// MySQL serves the read.
    Mysql {
        /// Whether Cassandra is queried too and compared, once the request's token is applied. The client does not
        /// wait for this.
        shadow: bool,
        /// Why Cassandra does not serve the read, if the phase routes it there.
        instead: Option<Reason>,
    },
    /// Cassandra serves the read.
    Cassandra {
        /// Whether MySQL is queried too. Its row is served where the stores differ.
        validate: bool,
        /// Whether MySQL answers if Cassandra cannot.
        fallback: bool,
    },
}

/// Decides which store serves a read.
pub fn route(record: &PhaseRecord, facts: ReadFacts) -> Route {
    let cassandra = match record.phase {
        Phase::Canary => facts.in_cohort,
        Phase::ReadSwitch => true,
        Phase::Prepare | Phase::DualWrite | Phase::Backfill | Phase::Verify => false,
    };
    let instead = |reason| Route::Mysql { shadow: false, instead: Some(reason) };
    // Whether Cassandra answers is asked again once the token is applied.
    let able = record.phase.writes_both()
        && facts.has_target
        && facts.live
        && !facts.put_aside
        && (facts.healthy || !facts.applied);
    let shadow = able && facts.sample < record.shadow;
    if !cassandra {
        return Route::Mysql { shadow, instead: None };
    }
    if !facts.has_target {
        return instead(Reason::NoTarget);
    }
    if !facts.live {
        return instead(Reason::TableNotLive);
    }
    // This holds without fallback, too: a client reads its own writes in every phase.
    if !facts.applied {
        return Route::Mysql { shadow, instead: Some(Reason::Token) };
    }
    // Cassandra lacks the change, and no later write has replaced it.
    if facts.put_aside {
        return instead(Reason::DeadLetter);
    }
    if !facts.healthy && record.fallback {
        return instead(Reason::Down);
    }
    Route::Cassandra { validate: facts.sample < record.validate, fallback: record.fallback }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::Cohort;

    const GOOD: ReadFacts = ReadFacts {
        in_cohort: true,
        has_target: true,
        live: true,
        applied: true,
        put_aside: false,
        healthy: true,
        sample: 0.5,
    };

    fn record(phase: Phase) -> PhaseRecord {
        PhaseRecord { phase, cohort: Cohort::default(), validate: 1.0, shadow: 1.0, ..PhaseRecord::default() }
    }

    #[test]
    fn each_phase_has_its_route() {
        let mysql = |shadow| Route::Mysql { shadow, instead: None };
        let cassandra = Route::Cassandra { validate: true, fallback: true };
        let out = ReadFacts { in_cohort: false, ..GOOD };
        for (phase, of_the_cohort, others) in [
            (Phase::Prepare, mysql(false), mysql(false)),
            (Phase::DualWrite, mysql(true), mysql(true)),
            (Phase::Backfill, mysql(true), mysql(true)),
            (Phase::Verify, mysql(true), mysql(true)),
            (Phase::Canary, cassandra, mysql(true)),
            (Phase::ReadSwitch, cassandra, cassandra),
        ] {
            assert_eq!(route(&record(phase), GOOD), of_the_cohort, "{phase}");
            assert_eq!(route(&record(phase), out), others, "{phase}");
        }
    }

    #[test]
    fn mysql_serves_what_cassandra_cannot() {
        for phase in [Phase::Canary, Phase::ReadSwitch] {
            for (facts, reason, shadow) in [
                (ReadFacts { has_target: false, ..GOOD }, Reason::NoTarget, false),
                (ReadFacts { live: false, ..GOOD }, Reason::TableNotLive, false),
                (ReadFacts { live: false, applied: false, ..GOOD }, Reason::TableNotLive, false),
                // Cassandra is asked later, once the token is applied and whether or not it is healthy now.
                (ReadFacts { applied: false, healthy: false, ..GOOD }, Reason::Token, true),
                (ReadFacts { applied: false, put_aside: true, ..GOOD }, Reason::Token, false),
                (ReadFacts { put_aside: true, ..GOOD }, Reason::DeadLetter, false),
                (ReadFacts { healthy: false, ..GOOD }, Reason::Down, false),
            ] {
                let instead = Route::Mysql { shadow, instead: Some(reason) };
                assert_eq!(route(&record(phase), facts), instead, "{phase} {reason}");
            }
        }
    }

    #[test]
    fn without_fallback_only_what_cassandra_lacks_leads_to_mysql() {
        let bare = PhaseRecord { fallback: false, validate: 0.0, ..record(Phase::ReadSwitch) };
        let cassandra = Route::Cassandra { validate: false, fallback: false };
        assert_eq!(route(&bare, ReadFacts { healthy: false, ..GOOD }), cassandra);
        let token = Route::Mysql { shadow: true, instead: Some(Reason::Token) };
        assert_eq!(route(&bare, ReadFacts { applied: false, ..GOOD }), token);
        let letter = Route::Mysql { shadow: false, instead: Some(Reason::DeadLetter) };
        assert_eq!(route(&bare, ReadFacts { put_aside: true, ..GOOD }), letter);
        let halted = Route::Mysql { shadow: false, instead: Some(Reason::TableNotLive) };
        assert_eq!(route(&bare, ReadFacts { live: false, ..GOOD }), halted);
    }

    #[test]
    fn a_read_is_sampled_below_the_share() {
        let sampled = PhaseRecord { validate: 0.5, shadow: 0.5, ..record(Phase::Canary) };
        for (sample, chosen) in [(0.49, true), (0.5, false)] {
            let facts = ReadFacts { sample, ..GOOD };
            assert_eq!(route(&sampled, facts), Route::Cassandra { validate: chosen, fallback: true });
            let out = ReadFacts { in_cohort: false, ..facts };
            assert_eq!(route(&sampled, out), Route::Mysql { shadow: chosen, instead: None });
        }
        let broken = ReadFacts { in_cohort: false, healthy: false, ..GOOD };
        let unseen = Route::Mysql { shadow: false, instead: None };
        assert_eq!(route(&record(Phase::Canary), broken), unseen);
        for facts in [ReadFacts { put_aside: true, ..GOOD }, ReadFacts { live: false, ..GOOD }] {
            assert_eq!(route(&record(Phase::Canary), ReadFacts { in_cohort: false, ..facts }), unseen);
        }
    }
}
