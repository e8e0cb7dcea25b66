//! The measurements that gates use, by name.

use std::collections::BTreeMap;
use std::fmt;

/// The name of a measurement, with its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// The name in a gate's expression.
    pub name: &'static str,
    /// What it measures, with its unit.
    pub about: &'static str,
    /// Whether it is a boolean. Otherwise it is a number.
    pub flag: bool,
}

const fn number(name: &'static str, about: &'static str) -> Named {
    Named { name, about, flag: false }
}

const fn flag(name: &'static str, about: &'static str) -> Named {
    Named { name, about, flag: true }
}

/// Every measurement.
pub const NAMES: [Named; 24] = [
    number("capture_age_seconds", "age of the newest watermark"),
    number("apply_lag_records", "records of the change and backfill topics that are not applied yet"),
    number(
        "apply_lag_seconds",
        "age of the oldest change that is not applied yet, or of the newest watermark if that is older",
    ),
    number("apply_partitions_unclaimed", "partitions that apply has never started on"),
    number("backfill_tables_left", "tables whose backfill is not completely copied and applied"),
    number("backfill_rows_left", "rows not copied yet, by MySQL's own estimate"),
    number("open_mismatches", "target rows whose last mismatch event says that they differ"),
    number("open_dead_letters", "changes that are put aside, because the mapping or Cassandra refuses them"),
    number("tables_not_live", "tables that have halted, or are not copied or verified again since"),
    flag("full_scan_clean", "whether a full verification that started after the backfill found no mismatch"),
    number("full_scan_age_seconds", "time since the newest full verification ended"),
    number("gateways_behind", "gateways that act on an older generation of the phase"),
    number("dual_writes", "writes that gateways answered successfully within the window"),
    number("dual_write_failures", "those of them that Cassandra did not accept in time"),
    number(
        "dual_write_failure_rate",
        "failures per dual write; a gate on it fails while there are no dual writes",
    ),
    number("canary_reads", "reads within the window that Cassandra served, or failed to serve"),
    number("fallbacks", "those of them that MySQL served because Cassandra failed"),
    number("fallback_rate", "fallbacks per canary read; a gate on it fails while there are no canary reads"),
    number(
        "canary_mismatches",
        "differing target rows found by reads of Cassandra and confirmed within the window",
    ),
    number("shadow_mismatches", "the same, found by reads that MySQL served"),
    number(
        "routed_reads",
        "reads within the window that phase and cohort gave to Cassandra, whichever store answered",
    ),
    number(
        "cassandra_read_share",
        "share of the routed reads that Cassandra answered; a gate on it fails while there are none",
    ),
    flag(
        "window_is_full",
        "whether the counts cover a whole window (controller.window_seconds) of this stage",
    ),
    number("out_of_band_rows", "row changes within the window that no gateway made, as capture counts them"),
];

/// Looks a measurement up by name.
pub(crate) fn named(name: &str) -> Option<&'static Named> {
    NAMES.iter().find(|known| known.name == name)
}

/// A measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measured {
    /// A number.
    Number(f64),
    /// A boolean.
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

/// One round of measurements: for every name a value, or the reason why there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurements(BTreeMap<&'static str, Result<Measured, String>>);

impl Measurements {
    /// A round in which nothing is measured, for the reason `why`.
    pub fn none(why: &str) -> Self {
        Self(NAMES.iter().map(|named| (named.name, Err(why.to_owned()))).collect())
    }

    /// Sets a number, or the reason why there is none. NaN and infinities count as not measured.
    ///
    /// # Panics
    ///
    /// [`NAMES`] has no such name.
    pub fn set(&mut self, name: &str, value: Result<f64, String>) {
        let value = value.and_then(|number| {
            if number.is_finite() {
                Ok(Measured::Number(number))
            } else {
                Err("it is not a finite number".to_owned())
            }
        });
        self.insert(name, value);
    }

    /// Sets a boolean, or the reason why it is not known.
    ///
    /// # Panics
    ///
    /// [`NAMES`] has no such name.
    pub fn set_flag(&mut self, name: &str, value: Result<bool, String>) {
        self.insert(name, value.map(Measured::Flag));
    }

    fn insert(&mut self, name: &str, value: Result<Measured, String>) {
        let named = named(name).expect("the names are literals of this crate, all of them in NAMES");
        self.0.insert(named.name, value);
    }

    /// The value of a measurement of [`NAMES`].
    ///
    /// # Errors
    ///
    /// It was not measured, or there is no such measurement. The text says why.
    pub fn get(&self, name: &str) -> Result<Measured, &str> {
        match self.0.get(name) {
            Some(Ok(value)) => Ok(*value),
            Some(Err(why)) => Err(why),
            None => Err("there is no such measurement"),
        }
    }

    /// All measurements, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Result<Measured, &str>)> {
        self.0.iter().map(|(name, value)| (*name, value.as_ref().map(|v| *v).map_err(String::as_str)))
    }
}
