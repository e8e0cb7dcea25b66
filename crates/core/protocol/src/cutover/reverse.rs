//! Reverse: native writes on their way to MySQL.
//!
//! MySQL's row never goes back to an older native write. Reverse keeps the version of each key in a table of
//! its own in MySQL and changes it in the row's transaction. A record counts only above that version. So late
//! duplicates, rewinds and a second instance do no harm.

use std::collections::BTreeMap;

use tandem_model::Version;

/// Whether a native record changes MySQL. `kept` is the version that MySQL keeps for the record's key.
pub fn applies(kept: Option<Version>, record: Version) -> bool {
    kept < Some(record)
}

/// Of the records of one transaction, those that MySQL needs: for each key the newest, if it is above the
/// version that MySQL keeps. Records come as key and version; the result holds their indexes, in order.
pub fn needed<K: Ord>(records: &[(K, Version)], kept: impl Fn(&K) -> Option<Version>) -> Vec<usize> {
    let mut newest: BTreeMap<&K, (Version, usize)> = BTreeMap::new();
    for (index, (key, version)) in records.iter().enumerate() {
        let best = newest.entry(key).or_insert((*version, index));
        if best.0 < *version {
            *best = (*version, index);
        }
    }
    newest.retain(|key, (version, _)| applies(kept(key), *version));
    let mut needed: Vec<usize> = newest.into_values().map(|(_, index)| index).collect();
    needed.sort_unstable();
    needed
}

/// Whether a dead letter of reverse has fallen away: a later record of its key is in MySQL.
pub fn is_superseded(kept: Option<Version>, letter: Version) -> bool {
    kept > Some(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_needs_its_newest_record_once() {
        let records = [("a", 5), ("b", 6), ("a", 7), ("a", 7), ("a", 5), ("c", 4)];
        let records = records.map(|(key, version)| (key, Version(version)));
        let kept = |key: &&str| (*key == "c").then_some(Version(4));
        assert_eq!(needed(&records, kept), [1, 2]);
        assert_eq!(needed(&records, |_| Some(Version(6))), [2]);
    }

    #[test]
    fn a_letter_falls_away_above_its_version_only() {
        let letter = Version(5);
        for (kept, superseded) in [(None, false), (Some(4), false), (Some(5), false), (Some(6), true)] {
            assert_eq!(is_superseded(kept.map(Version), letter), superseded);
        }
    }
}
