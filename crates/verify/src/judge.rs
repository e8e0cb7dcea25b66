//! The rule by which a difference counts.

use tandem_model::Version;

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
