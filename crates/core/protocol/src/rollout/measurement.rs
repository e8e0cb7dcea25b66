//! What is measured, by name.

use std::collections::BTreeMap;
use std::fmt;

/// A name that gates may use, and what it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// As gates spell it.
    pub name: &'static str,
    /// What it says, with its unit.
    pub about: &'static str,
    /// Whether it is true or false; otherwise it is a number.
    pub flag: bool,
}

const fn number(name: &'static str, about: &'static str) -> Named {
    Named { name, about, flag: false }
}

const fn flag(name: &'static str, about: &'static str) -> Named {
    Named { name, about, flag: true }
}

/// Every measurement.
pub const NAMES: [Named; 19] = [
    number("capture_age_seconds", "how old the newest watermark is"),
    number("apply_lag_records", "records of the change and backfill topics that are not applied"),
    number(
        "apply_lag_seconds",
        "how old the oldest change is that is not applied, or the newest watermark if that is older",
    ),
    number("apply_partitions_unclaimed", "partitions at which apply has never begun"),
    number("backfill_tables_left", "tables whose rows are not all copied and applied"),
    number("backfill_rows_left", "rows not copied yet, by MySQL's own estimate"),
    number("open_mismatches", "target rows whose last mismatch event says that they differ"),
    flag("full_scan_clean", "whether a full verification begun after the backfill found nothing"),
    number("full_scan_age_seconds", "how long ago the newest full verification ended"),
    number("gateways_behind", "gateways that act on an older generation of the phase"),
    number("dual_writes", "writes that gateways have answered well, within the window"),
    number("dual_write_failures", "of those, the ones that Cassandra did not take in time"),
    number("dual_write_failure_rate", "their share; not measured while there are no dual writes"),
    number("canary_reads", "reads that were Cassandra's to serve, within the window"),
    number("fallbacks", "of those, the ones that MySQL served because Cassandra failed"),
    number("fallback_rate", "their share; not measured while there are no such reads"),
    number(
        "canary_mismatches",
        "target rows that reads of Cassandra met as they differ, confirmed within the window",
    ),
    number("shadow_mismatches", "the same, met by reads that MySQL served"),
    number("out_of_band_rows", "row changes that no gateway made, within the window; capture counts them"),
];

/// The entry of a name.
pub(crate) fn named(name: &str) -> Option<&'static Named> {
    NAMES.iter().find(|known| known.name == name)
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measured {
    /// A number.
    Number(f64),
    /// True or false.
    Flag(bool),
}

impl Measured {
    /// As a number: 1 for true, 0 for false.
    pub fn as_number(self) -> f64 {
        match self {
            Self::Number(number) => number,
            Self::Flag(flag) => f64::from(u8::from(flag)),
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{}", (number * 1e4).round() / 1e4),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// One round of measuring: a value, or why there is none, for every name.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurements(BTreeMap<&'static str, Result<Measured, String>>);

impl Measurements {
    /// Nothing is measured, because of `why`.
    pub fn none(why: &str) -> Self {
        Self(NAMES.iter().map(|named| (named.name, Err(why.to_owned()))).collect())
    }

    /// Sets a number, or why there is none. Something that is no number counts as not measured.
    ///
    /// # Panics
    ///
    /// Where [`NAMES`] has no such name.
    pub fn set(&mut self, name: &str, value: Result<f64, String>) {
        let value = value.and_then(|number| {
            if number.is_finite() { Ok(Measured::Number(number)) } else { Err("it is no number".to_owned()) }
        });
        self.insert(name, value);
    }

    /// Sets what is true or false, or why it is not known.
    ///
    /// # Panics
    ///
    /// Where [`NAMES`] has no such name.
    pub fn set_flag(&mut self, name: &str, value: Result<bool, String>) {
        self.insert(name, value.map(Measured::Flag));
    }

    fn insert(&mut self, name: &str, value: Result<Measured, String>) {
        let named = named(name).expect("the names are literals of this crate, all of them in NAMES");
        self.0.insert(named.name, value);
    }

    /// What was measured under a name of [`NAMES`].
    pub fn get(&self, name: &str) -> Result<Measured, &str> {
        match self.0.get(name) {
            Some(Ok(value)) => Ok(*value),
            Some(Err(why)) => Err(why),
            None => Err("there is no such measurement"),
        }
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Result<Measured, &str>)> {
        self.0.iter().map(|(name, value)| (*name, value.as_ref().map(|v| *v).map_err(String::as_str)))
    }
}
