//! Cohorts: which requests the canary includes.

use std::fmt;
use std::str::FromStr;

/// A cohort attribute: a property of a request by which cohorts are formed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CohortAttribute {
    /// The whole primary key of the requested row.
    Key,
    /// The value of a column, if the request contains it.
    Column(String),
    /// The value of a request header. Names are case-insensitive.
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

/// A group of requests: those whose bucket is below a percentage, and those with one of the listed values.
///
/// The same attribute value is always in or always out. A higher percentage only adds values.
///
/// ```
/// use tandem_model::{Cohort, CohortAttribute};
///
/// let country = CohortAttribute::Header("country".into());
/// let cohort = Cohort { values: vec![(country.clone(), "PT".into())], ..Cohort::default() };
/// assert!(cohort.admits(|attribute| (*attribute == country).then(|| "PT".to_owned())));
/// assert!(!cohort.admits(|attribute| (*attribute == country).then(|| "ES".to_owned())));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Cohort {
    /// The attribute whose value selects the bucket.
    pub by: CohortAttribute,
    /// The percentage of the buckets, from 0 (no request) to 100 (every request).
    pub percent: f64,
    /// Requests with one of these values, such as a country, are in whatever their bucket is.
    pub values: Vec<(CohortAttribute, String)>,
}

impl Default for Cohort {
    /// The empty cohort, with buckets by the key.
    fn default() -> Self {
        Self { by: CohortAttribute::Key, percent: 0.0, values: Vec::new() }
    }
}

impl Cohort {
    /// Whether a request is in the cohort.
    ///
    /// `value_of` returns the request's value of an attribute in its canonical text form. A request without a
    /// value for [`Self::by`] is in only if the percentage is 100, or by another attribute's value.
    pub fn admits(&self, value_of: impl Fn(&CohortAttribute) -> Option<String>) -> bool {
        let by_value = self.values.iter().any(|(name, value)| value_of(name).as_ref() == Some(value));
        let by_bucket = || value_of(&self.by).is_some_and(|text| bucket(&text) < self.percent);
        by_value || self.percent >= 100.0 || by_bucket()
    }
}

/// The bucket of a text: a number in `[0, 100)`, evenly distributed and stable across releases.
///
/// It is the 64-bit FNV-1a hash of the text, mixed by MurmurHash3's finaliser. The upper 53 bits count.
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
        cohort.admits(|attribute| {
            (*attribute == CohortAttribute::Column("customer".into())).then(|| customer.to_owned())
        })
    }

    /// A customer must stay in the same bucket in every release.
    #[test]
    fn buckets_are_stable_across_releases() {
        let buckets = ["", "1", "2", "customer-17"].map(|text| format!("{:.12}", bucket(text)));
        assert_eq!(buckets, ["93.676944839044", "48.523252407915", "74.031799931282", "39.577859315054"]);
    }

    #[test]
    fn the_percentage_is_the_share_of_customers_in() {
        for percent in [1.0, 10.0, 50.0] {
            let cohort = by_percent(percent);
            let share = (0..20_000).filter(|n| in_by(&cohort, &n.to_string())).count() as f64 / 200.0;
            assert!((share - percent).abs() < 1.0, "{share} of {percent}");
        }
    }

    #[test]
    fn zero_percent_admits_none_and_a_hundred_admits_all() {
        assert!((0..1000).all(|n| !in_by(&by_percent(0.0), &n.to_string())));
        assert!((0..1000).all(|n| in_by(&by_percent(100.0), &n.to_string())));
        assert!(by_percent(100.0).admits(|_| None) && !by_percent(99.9).admits(|_| None));
        assert!(!in_by(&by_percent(bucket("1")), "1"), "the bucket must be below the percentage");
    }

    #[test]
    fn a_listed_value_is_in_whatever_its_bucket() {
        let country = CohortAttribute::Header("tandem-country".into());
        let cohort = Cohort { values: vec![(country.clone(), "PT".into())], ..Cohort::default() };
        let from = |code: &str| cohort.admits(|attribute| (*attribute == country).then(|| code.to_owned()));
        assert!(from("PT") && !from("pt") && !from("ES"));
    }

    #[test]
    fn attributes_round_trip_and_others_are_refused() {
        for attribute in
            [CohortAttribute::Key, CohortAttribute::Column("a:b".into()), CohortAttribute::Header("x".into())]
        {
            assert_eq!(attribute.to_string().parse(), Ok(attribute));
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
