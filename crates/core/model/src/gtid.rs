//! Global transaction identifiers (GTIDs) and GTID sets.
//!
//! The text form is MySQL's, such as `uuid:1-5:7,uuid:tag:1-3`. Tags exist since MySQL 8.3; see "GTID Format
//! and Storage" in the Reference Manual.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::Disposition;

/// The origin of a transaction number: a server's UUID and a tag in lower case (empty: no tag). UUIDs are
/// ordered like their text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Origin {
    uuid: Uuid,
    tag: String,
}

/// The identifier of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gtid {
    origin: Origin,
    number: u64,
}

/// A set of transactions. It holds sorted, disjoint, non-adjacent, inclusive intervals for each origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GtidSet {
    intervals: BTreeMap<Origin, Vec<(u64, u64)>>,
}

/// The text is not a GTID or GTID set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a GTID or GTID set")]
pub struct ParseGtidError(String);

impl ParseGtidError {
    /// The text is bad.
    pub fn retry(&self) -> Disposition {
        Disposition::Refuse
    }
}

impl Gtid {
    /// Creates a GTID from the 16 bytes of a server's UUID, a tag (empty: no tag) and a number, as GTID
    /// events hold them.
    pub fn from_sid(sid: [u8; 16], tag: &str, number: u64) -> Self {
        Self { origin: Origin { uuid: Uuid::from_bytes(sid), tag: tag.to_owned() }, number }
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { uuid, tag } = &self.origin;
        let colon = if tag.is_empty() { "" } else { ":" };
        write!(f, "{uuid}{colon}{tag}:{}", self.number)
    }
}

impl FromStr for Gtid {
    type Err = ParseGtidError;

    fn from_str(s: &str) -> Result<Self, ParseGtidError> {
        let set: GtidSet = s.parse()?;
        let mut origins = set.intervals.into_iter();
        match (origins.next(), origins.next()) {
            (Some((origin, runs)), None) if matches!(runs[..], [(a, b)] if a == b) => {
                Ok(Self { origin, number: runs[0].0 })
            }
            _ => Err(ParseGtidError(s.to_owned())),
        }
    }
}

impl GtidSet {
    /// Adds one transaction.
    pub fn insert(&mut self, gtid: &Gtid) {
        // Nearly always, the number follows the last interval of a known origin.
        if let Some(runs) = self.intervals.get_mut(&gtid.origin) {
            if let Some(last) = runs.last_mut()
                && last.1 + 1 == gtid.number
            {
                last.1 = gtid.number;
                return;
            }
            insert_run(runs, gtid.number, gtid.number);
        } else {
            self.intervals.insert(gtid.origin.clone(), vec![(gtid.number, gtid.number)]);
        }
    }

    /// Whether the transaction is in the set. It takes time logarithmic in the intervals.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.intervals.get(&gtid.origin).is_some_and(|runs| {
            let at = runs.partition_point(|&(_, b)| b < gtid.number);
            runs.get(at).is_some_and(|&(a, _)| a <= gtid.number)
        })
    }

    /// Whether every transaction of `self` is in `other`. It takes time linear in the intervals of both.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.intervals.iter().all(|(origin, runs)| {
            let mut theirs = other.intervals.get(origin).map_or(&[][..], Vec::as_slice).iter().peekable();
            runs.iter().all(|&(a, b)| {
                while theirs.next_if(|&&(_, d)| d < b).is_some() {}
                theirs.peek().is_some_and(|&&(c, _)| c <= a)
            })
        })
    }

    /// The transactions in `self` that are not in `other`. It takes time linear in the intervals of both.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut out = Self::default();
        for (origin, runs) in &self.intervals {
            let mut theirs = other.intervals.get(origin).map_or(&[][..], Vec::as_slice).iter().peekable();
            let mut left = Vec::new();
            for &(a, b) in runs {
                let mut from = a;
                while theirs.next_if(|&&(_, d)| d < from).is_some() {}
                // An interval of theirs that reaches beyond `b` may cover more of the runs behind it.
                while let Some(&&(c, d)) = theirs.peek().filter(|&&&(c, _)| c <= b) {
                    if from < c {
                        left.push((from, c - 1));
                    }
                    from = d.saturating_add(1);
                    if d > b {
                        break;
                    }
                    theirs.next();
                }
                if from <= b {
                    left.push((from, b));
                }
            }
            if !left.is_empty() {
                out.intervals.insert(origin.clone(), left);
            }
        }
        out
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// Each origin with its intervals: the server's UUID, the tag (empty: no tag), and the first and last
    /// numbers, inclusive.
    pub fn origins(&self) -> impl Iterator<Item = (Uuid, &str, &[(u64, u64)])> {
        self.intervals.iter().map(|(o, runs)| (o.uuid, o.tag.as_str(), runs.as_slice()))
    }
}

/// Merges `first..=last` into sorted, disjoint intervals.
fn insert_run(runs: &mut Vec<(u64, u64)>, mut first: u64, mut last: u64) {
    let start = runs.partition_point(|&(_, b)| b.saturating_add(1) < first);
    let end = runs.partition_point(|&(a, _)| a <= last.saturating_add(1));
    if start < end {
        first = first.min(runs[start].0);
        last = last.max(runs[end - 1].1);
    }
    runs.splice(start..end, [(first, last)]);
}

impl FromStr for GtidSet {
    type Err = ParseGtidError;

    fn from_str(s: &str) -> Result<Self, ParseGtidError> {
        let bad = || ParseGtidError(s.to_owned());
        let mut set = Self::default();
        for part in s.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            // A UUID's other text forms have other lengths.
            let uuid = fields.next().filter(|text| text.len() == 36).ok_or_else(bad)?;
            let uuid = Uuid::try_parse(uuid).map_err(|_| bad())?;
            let mut tag = String::new();
            let mut any = false;
            for field in fields {
                if field.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    tag = field.to_ascii_lowercase();
                    continue;
                }
                let (a, b) = field.split_once('-').unwrap_or((field, field));
                let (a, b): (u64, u64) = (a.parse().map_err(|_| bad())?, b.parse().map_err(|_| bad())?);
                if a == 0 || a > b {
                    return Err(bad());
                }
                let origin = Origin { uuid, tag: tag.clone() };
                insert_run(set.intervals.entry(origin).or_default(), a, b);
                any = true;
            }
            if !any {
                return Err(bad());
            }
        }
        Ok(set)
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for (origin, runs) in &self.intervals {
            if last != Some(origin.uuid) {
                write!(f, "{}{}", if last.is_none() { "" } else { "," }, origin.uuid)?;
                last = Some(origin.uuid);
            }
            if !origin.tag.is_empty() {
                write!(f, ":{}", origin.tag)?;
            }
            for &(a, b) in runs {
                if a == b { write!(f, ":{a}")? } else { write!(f, ":{a}-{b}")? }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn text_forms_are_parsed_and_printed() {
        for (text, canonical) in [
            (String::new(), String::new()),
            (format!("{A}:1-5:6:9"), format!("{A}:1-6:9")),
            (format!("{B}:2,\n{A}:1"), format!("{A}:1,{B}:2")),
            (format!("{A}:1-3:Blue:1-2:7"), format!("{A}:1-3:blue:1-2:7")),
        ] {
            assert_eq!(text.parse::<GtidSet>().unwrap().to_string(), canonical);
        }
        for bad in ["x:1", &format!("{A}:0"), &format!("{A}:5-3"), A, &format!("{A}:tag")] {
            assert!(bad.parse::<GtidSet>().is_err(), "{bad}");
        }
        let sid =
            [0x3e, 0x11, 0xfa, 0x47, 0x71, 0xca, 0x11, 0xe1, 0x9e, 0x33, 0xc8, 0x0a, 0xa9, 0x42, 0x95, 0x62];
        assert_eq!(Gtid::from_sid(sid, "", 7).to_string(), format!("{A}:7"));
    }

    #[test]
    fn a_tag_is_another_origin() {
        let tagged: GtidSet = format!("{A}:blue:1").parse().unwrap();
        let plain: GtidSet = format!("{A}:1").parse().unwrap();
        assert!(!tagged.is_subset(&plain) && !plain.is_subset(&tagged));
        let a = Uuid::try_parse(A).unwrap();
        let both: GtidSet = format!("{A}:1-2:blue:1:3").parse().unwrap();
        assert_eq!(
            both.origins().collect::<Vec<_>>(),
            [(a, "", &[(1, 2)][..]), (a, "blue", &[(1, 1), (3, 3)])]
        );
    }

    fn set_of(numbers: &BTreeSet<u64>) -> GtidSet {
        let mut set = GtidSet::default();
        for n in numbers {
            set.insert(&format!("{A}:{n}").parse().unwrap());
        }
        set
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(
            a in proptest::collection::btree_set(1u64..30, 0..20),
            b in proptest::collection::btree_set(1u64..30, 0..20),
            shuffled in proptest::collection::vec(1u64..30, 0..30),
        ) {
            let (x, y) = (set_of(&a), set_of(&b));
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(x.minus(&y), set_of(&a.difference(&b).copied().collect()));
            prop_assert_eq!(&x.to_string().parse::<GtidSet>().unwrap(), &x);
            let mut any_order = GtidSet::default();
            for n in &shuffled {
                any_order.insert(&format!("{A}:{n}").parse().unwrap());
            }
            prop_assert_eq!(any_order, set_of(&shuffled.iter().copied().collect()));
            for n in 1..30 {
                prop_assert_eq!(x.contains(&format!("{A}:{n}").parse().unwrap()), a.contains(&n));
            }
        }
    }

    #[test]
    fn empty_sets_and_invalid_numbers() {
        const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        assert!(GtidSet::default().is_empty());
        let mut set: GtidSet = format!("{UUID}:1-3").parse().unwrap();
        assert!(!set.is_empty());
        set.insert(&format!("{UUID}:4").parse().unwrap());
        set.insert(&format!("{UUID}:6").parse().unwrap());
        assert_eq!(set.to_string(), format!("{UUID}:1-4:6"));
        for bad in ["1-2", "1:3", "0", "3-2", "1-2:4"] {
            assert!(format!("{UUID}:{bad}").parse::<Gtid>().is_err(), "{bad}");
        }
        for bad in [format!("{UUID}0:1"), UUID.replace('3', "g") + ":1", UUID.replace('-', "0") + ":1"] {
            assert!(bad.parse::<GtidSet>().is_err(), "{bad}");
        }
        for bad in ["0", "0-4", "3-2", "x-2", "1-y", ""] {
            assert!(format!("{UUID}:{bad}").parse::<GtidSet>().is_err(), "{bad}");
        }
    }
}
