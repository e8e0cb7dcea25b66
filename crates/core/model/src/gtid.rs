//! Global transaction identifiers (GTIDs) and GTID sets.
//!
//! The text form is MySQL's, such as `uuid:1-5:7,uuid:tag:1-3`. Tags exist since MySQL 8.3; see "GTID Format
//! and Storage" in the Reference Manual.

mod runs;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

pub use runs::Runs;

use crate::Disposition;

/// The longest tag that MySQL accepts, in bytes.
const MAX_TAG: usize = 32;

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

/// A set of transactions: the runs of their numbers for each origin. A copy shares memory with the set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GtidSet {
    runs: BTreeMap<Origin, Runs>,
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
        let mut all = set
            .runs
            .into_iter()
            .flat_map(|(origin, runs)| runs.iter().map(|run| (origin.clone(), run)).collect::<Vec<_>>());
        match (all.next(), all.next()) {
            (Some((origin, (number, last))), None) if number == last => Ok(Self { origin, number }),
            _ => Err(ParseGtidError(s.to_owned())),
        }
    }
}

impl GtidSet {
    /// Adds one transaction. It takes time logarithmic in the runs.
    pub fn insert(&mut self, gtid: &Gtid) {
        if let Some(runs) = self.runs.get_mut(&gtid.origin) {
            runs.insert((gtid.number, gtid.number));
        } else {
            self.runs.insert(gtid.origin.clone(), [(gtid.number, gtid.number)].into_iter().collect());
        }
    }

    /// Adds all transactions of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (origin, runs) in &other.runs {
            match self.runs.get_mut(origin) {
                Some(ours) => ours.extend(runs),
                None => drop(self.runs.insert(origin.clone(), runs.clone())),
            }
        }
    }

    /// Whether the transaction is in the set. It takes time logarithmic in the runs.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.runs.get(&gtid.origin).is_some_and(|runs| runs.contains(gtid.number))
    }

    /// Whether every transaction of `self` is in `other`. It takes time linear in the runs that they do not share,
    /// and less if `self` has few runs.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.runs
            .iter()
            .all(|(origin, runs)| other.runs.get(origin).is_some_and(|theirs| runs.is_subset(theirs)))
    }

    /// The transactions in `self` that are not in `other`. It takes time linear in the runs that they do not share.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let left = self.runs.iter().map(|(origin, runs)| {
            let left = other.runs.get(origin).map_or_else(|| runs.clone(), |theirs| runs.minus(theirs));
            (origin.clone(), left)
        });
        Self { runs: left.filter(|(_, runs)| !runs.is_empty()).collect() }
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The number of runs of all origins.
    pub fn run_count(&self) -> usize {
        self.runs.values().map(Runs::len).sum()
    }

    /// Each origin with its runs: the server's UUID, the tag (empty: no tag), and the first and last numbers,
    /// inclusive.
    pub fn origins(&self) -> impl Iterator<Item = (Uuid, &str, &Runs)> {
        self.runs.iter().map(|(o, runs)| (o.uuid, o.tag.as_str(), runs))
    }
}

impl FromStr for GtidSet {
    type Err = ParseGtidError;

    fn from_str(s: &str) -> Result<Self, ParseGtidError> {
        let bad = || ParseGtidError(s.to_owned());
        let mut runs = BTreeMap::<Origin, Vec<(u64, u64)>>::new();
        for part in s.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            // A UUID's other text forms have other lengths.
            let uuid = fields.next().filter(|text| text.len() == 36).ok_or_else(bad)?;
            let uuid = Uuid::try_parse(uuid).map_err(|_| bad())?;
            let mut tag = String::new();
            let mut any = false;
            for field in fields {
                if field.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    // Each run copies the tag, so a long one would cost the square of the text's length.
                    if field.len() > MAX_TAG {
                        return Err(bad());
                    }
                    tag = field.to_ascii_lowercase();
                    continue;
                }
                let (a, b) = field.split_once('-').unwrap_or((field, field));
                let (a, b): (u64, u64) = (a.parse().map_err(|_| bad())?, b.parse().map_err(|_| bad())?);
                if a == 0 || a > b {
                    return Err(bad());
                }
                runs.entry(Origin { uuid, tag: tag.clone() }).or_default().push((a, b));
                any = true;
            }
            if !any {
                return Err(bad());
            }
        }
        Ok(Self {
            runs: runs.into_iter().map(|(origin, runs)| (origin, runs.into_iter().collect())).collect(),
        })
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for (origin, runs) in &self.runs {
            if last != Some(origin.uuid) {
                write!(f, "{}{}", if last.is_none() { "" } else { "," }, origin.uuid)?;
                last = Some(origin.uuid);
            }
            if !origin.tag.is_empty() {
                write!(f, ":{}", origin.tag)?;
            }
            for (a, b) in runs.iter() {
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
        let long_tag = format!("{A}:{}:1", "t".repeat(MAX_TAG + 1));
        for bad in ["x:1", &format!("{A}:0"), &format!("{A}:5-3"), A, &format!("{A}:tag"), &long_tag] {
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
        let origins: Vec<_> =
            both.origins().map(|(uuid, tag, runs)| (uuid, tag, runs.iter().collect())).collect();
        assert_eq!(origins, [(a, "", vec![(1, 2)]), (a, "blue", vec![(1, 1), (3, 3)])]);
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
