//! Whose reads are moved first.

use std::fmt;
use std::str::FromStr;

/// Something that a request says about whom it is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CohortAttribute {
    /// The whole primary key that is asked for.
    Key,
    /// The value of a column, as far as the request names it.
    Column(String),
    /// The value of a request header. Names compare without case.
    Header(String),
}

impl fmt::Display for CohortAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("key"),
            Self::Column(name) => write!(f, "column:{name}"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

impl FromStr for CohortAttribute {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once(':') {
            None if s == "key" => Ok(Self::Key),
            Some(("column", name)) if !name.is_empty() => Ok(Self::Column(name.to_owned())),
            Some(("header", name)) if !name.is_empty() => Ok(Self::Header(name.to_ascii_lowercase())),
            _ => Err(format!("`{s}` is none of `key`, `column:NAME`, `header:NAME`")),
        }
    }
}

/// A group of customers: those whose hash lies below a percentage, and those with one of these
/// values. The same customer always stays in or out, and a higher percentage only adds customers.
#[derive(Debug, Clone, PartialEq)]
pub struct Cohort {
    /// What tells customers apart.
    pub by: CohortAttribute,
    /// From 0 (nobody) to 100 (everybody).
    pub percent: f64,
    /// Who is in with a value, such as a country, whatever their hash is.
    pub values: Vec<(CohortAttribute, String)>,
}

impl Default for Cohort {
    /// Nobody, told apart by the key.
    fn default() -> Self {
        Self { by: CohortAttribute::Key, percent: 0.0, values: Vec::new() }
    }
}

impl Cohort {
    /// Whether a request is of the cohort. `fact` gives what the request says, in one canonical text
    /// form each. A request that does not say what tells customers apart is in only where everybody
    /// is.
    pub fn admits(&self, fact: impl Fn(&CohortAttribute) -> Option<String>) -> bool {
        let by_value = self.values.iter().any(|(name, value)| fact(name).as_ref() == Some(value));
        let by_bucket = || fact(&self.by).is_some_and(|text| bucket(&text) < self.percent);
        by_value || self.percent >= 100.0 || by_bucket()
    }
}

/// Where a text lies between 0 and 100 (not included), evenly spread and the same for ever: FNV-1a
/// of 64 bits, mixed by MurmurHash3's finaliser, of which the upper 53 bits count.
pub fn bucket(text: &str) -> f64 {
    let mut hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    for multiplier in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(multiplier);
    }
    hash ^= hash >> 33;
    (hash >> 11) as f64 / (1_u64 << 53) as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_percent(percent: f64) -> Cohort {
        Cohort { by: CohortAttribute::Column("customer".into()), percent, values: Vec::new() }
    }

    fn in_by(cohort: &Cohort, customer: &str) -> bool {
        cohort
            .admits(|fact| (*fact == CohortAttribute::Column("customer".into())).then(|| customer.to_owned()))
    }

    /// A customer must not move between releases either.
    #[test]
    fn places_are_what_they_always_were() {
        let places = ["", "1", "2", "customer-17"].map(|text| format!("{:.12}", bucket(text)));
        assert_eq!(places, ["93.676944839044", "48.523252407915", "74.031799931282", "39.577859315054"]);
    }

    #[test]
    fn as_many_are_in_as_the_percentage_says() {
        for percent in [1.0, 10.0, 50.0] {
            let cohort = by_percent(percent);
            let share = (0..20_000).filter(|n| in_by(&cohort, &n.to_string())).count() as f64 / 200.0;
            assert!((share - percent).abs() < 1.0, "{share} of {percent}");
        }
    }

    #[test]
    fn nobody_and_everybody() {
        assert!((0..1000).all(|n| !in_by(&by_percent(0.0), &n.to_string())));
        assert!((0..1000).all(|n| in_by(&by_percent(100.0), &n.to_string())));
        assert!(by_percent(100.0).admits(|_| None) && !by_percent(99.9).admits(|_| None));
        assert!(!in_by(&by_percent(bucket("1")), "1"), "the percentage itself is out");
    }

    #[test]
    fn a_value_is_in_whatever_its_hash() {
        let country = CohortAttribute::Header("tandem-country".into());
        let cohort = Cohort { values: vec![(country.clone(), "PT".into())], ..Cohort::default() };
        let from = |code: &str| cohort.admits(|fact| (*fact == country).then(|| code.to_owned()));
        assert!(from("PT") && !from("pt") && !from("ES"));
    }

    #[test]
    fn facts_are_read_back_and_others_refused() {
        for fact in
            [CohortAttribute::Key, CohortAttribute::Column("a:b".into()), CohortAttribute::Header("x".into())]
        {
            assert_eq!(fact.to_string().parse(), Ok(fact));
        }
        assert_eq!("header:Tandem-Country".parse(), Ok(CohortAttribute::Header("tandem-country".into())));
        for bad in ["", "keys", "column:", "header:", "cookie:x"] {
            assert!(bad.parse::<CohortAttribute>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_higher_percentage_only_adds(customer in ".{0,20}", a in 0.0f64..=100.0, b in 0.0f64..=100.0) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(!in_by(&by_percent(low), &customer) || in_by(&by_percent(high), &customer));
        }
    }
}
