//! When a difference counts, and what repairs it.

use tandem_mapping::{Difference, RowError, TablePlan};
use tandem_model::{Mutation, Row, TargetKey, Version};

/// What a comparison of one row came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Both stores agree.
    Match,
    /// They differ, but the key changed meanwhile: look again with a later watermark.
    Undecided,
    /// They differ, and no change explains it.
    Mismatch,
}

/// Judges one comparison.
///
/// `lower` is the version of W₁, `last_change` the newest change of the key that the log holds up
/// to W₃ or beyond, `floor` the version below which the tracker has forgotten changes.
///
/// Any change after W₁ makes the comparison void: MySQL may have been read before it and Cassandra
/// after it, or the other way round. A change beyond W₃ would not, but the tracker keeps only the
/// newest change of a key, which may hide one between W₁ and W₃.
pub fn judge(differs: bool, last_change: Option<Version>, lower: Version, floor: Version) -> Verdict {
    if !differs {
        Verdict::Match
    } else if lower < floor || last_change.is_some_and(|change| change > lower) {
        Verdict::Undecided
    } else {
        Verdict::Mismatch
    }
}

/// How one target row differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetDifference {
    /// The target's number in the plan.
    pub target: usize,
    /// The key there.
    pub key: TargetKey,
    /// The difference.
    pub difference: Difference,
    /// The writetimes found.
    pub writetimes: Vec<i64>,
}

/// What a repair writes: MySQL's row at the version of W₁, with NULLs explicit, and a row tombstone for each
/// row that must not be there.
///
/// The log holds no change of the key after W₁, or the difference would not have been confirmed. Whatever
/// comes later has a higher version and wins.
///
/// # Errors
/// The row has no form in a target.
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
    fn every_case() {
        let v = Version;
        for (differs, last_change, lower, floor, verdict) in [
            (false, None, 10, 0, Verdict::Match),
            (false, Some(20), 10, 0, Verdict::Match),
            (true, None, 10, 0, Verdict::Mismatch),
            (true, Some(9), 10, 0, Verdict::Mismatch),
            // W₁ has the version of the newest change that it covers.
            (true, Some(10), 10, 0, Verdict::Mismatch),
            (true, Some(11), 10, 0, Verdict::Undecided),
            (true, None, 10, 10, Verdict::Mismatch),
            (true, None, 10, 11, Verdict::Undecided),
        ] {
            assert_eq!(judge(differs, last_change.map(v), v(lower), v(floor)), verdict);
        }
    }
}
