//! Whether a difference between the stores is a mismatch, and what repairs it.

use tandem_mapping::{Difference, RowError, TablePlan};
use tandem_model::{Mutation, Row, TargetKey, Version};

/// The outcome of comparing one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Both stores agree.
    Match,
    /// They differ, but the key may have changed meanwhile: recheck it with a later watermark.
    Undecided,
    /// They differ, and no change explains it.
    Mismatch,
    /// They differ, and a change of the key is a dead letter. Nothing can be said before it is settled.
    PutAside,
}

/// What is known about the key of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// The newest change of the key that the log holds up to W₃ or beyond.
    pub last_change: Option<Version>,
    /// The version of W₁.
    pub lower: Version,
    /// The version below which the tracker has forgotten changes.
    pub floor: Version,
    /// Whether a dead letter of the key is open.
    pub put_aside: bool,
    /// Whether one was settled since the check began, or the state of the table has changed. Cassandra may have been read
    /// before that.
    pub settled: bool,
}

/// Judges one comparison.
///
/// Any change after W₁ makes the comparison void: MySQL may have been read before the change and Cassandra
/// after it, or the other way round. A change beyond W₃ alone would not. But the tracker keeps only the
/// newest change of a key, and that change may hide another one between W₁ and W₃.
pub fn judge(differs: bool, evidence: Evidence) -> Verdict {
    let Evidence { last_change, lower, floor, put_aside, settled } = evidence;
    if !differs {
        Verdict::Match
    } else if put_aside {
        Verdict::PutAside
    } else if settled || lower < floor || last_change.is_some_and(|change| change > lower) {
        Verdict::Undecided
    } else {
        Verdict::Mismatch
    }
}

/// A target row that differs, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetDifference {
    /// The target's index in the plan.
    pub target: usize,
    /// The row's key in the target table.
    pub key: TargetKey,
    /// The difference.
    pub difference: Difference,
    /// The writetimes that Cassandra returned.
    pub writetimes: Vec<i64>,
}

/// The mutations of a repair: MySQL's row at the version of W₁, with explicit NULLs, and a row tombstone for
/// each row that must not exist.
///
/// A repair never overwrites a later change. The log holds no change of the key after W₁; otherwise the
/// difference would not have been confirmed. Every later change has a higher version and wins.
///
/// # Errors
///
/// The mapping cannot convert the row for a target.
pub fn repair(
    plan: &TablePlan,
    row: Option<&Row>,
    differences: &[TargetDifference],
    lower: Version,
) -> Result<Vec<Mutation>, RowError> {
    let extra: Vec<(usize, TargetKey)> = differences
        .iter()
        .filter(|d| d.difference == Difference::Extra)
        .map(|d| (d.target, d.key.clone()))
        .collect();
    plan.repair(row, &extra, lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judge_decides_every_case() {
        let v = Version;
        for (differs, last_change, lower, floor, verdict) in [
            (false, None, 10, 0, Verdict::Match),
            (false, Some(20), 10, 0, Verdict::Match),
            (true, None, 10, 0, Verdict::Mismatch),
            (true, Some(9), 10, 0, Verdict::Mismatch),
            // A change at the version of W₁ itself is covered by W₁.
            (true, Some(10), 10, 0, Verdict::Mismatch),
            (true, Some(11), 10, 0, Verdict::Undecided),
            (true, None, 10, 10, Verdict::Mismatch),
            (true, None, 10, 11, Verdict::Undecided),
        ] {
            let evidence = |put_aside, settled| Evidence {
                last_change: last_change.map(v),
                lower: v(lower),
                floor: v(floor),
                put_aside,
                settled,
            };
            assert_eq!(judge(differs, evidence(false, false)), verdict);
            let or_match = |verdict| if differs { verdict } else { Verdict::Match };
            assert_eq!(judge(differs, evidence(true, false)), or_match(Verdict::PutAside));
            assert_eq!(judge(differs, evidence(true, true)), or_match(Verdict::PutAside));
            assert_eq!(judge(differs, evidence(false, true)), or_match(Verdict::Undecided));
        }
    }
}
