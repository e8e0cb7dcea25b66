//! Dead letters.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tandem_model::Disposition;

use crate::error::WireError;
use crate::log::OutRecord;

use super::record::{ControlRecord, ControlSchema};
use super::record::{encode_control, sealed::Sealed};

/// A record's place on the log: `topic/partition/offset`. It names a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordPlace {
    /// The topic. Its name has no slash, because Kafka allows none.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl fmt::Display for RecordPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// A text that is not a record's place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the place of a record: write topic/partition/offset")]
pub struct BadPlace(String);

impl BadPlace {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        Disposition::Refuse
    }
}

impl FromStr for RecordPlace {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let parse = || {
            let (rest, offset) = text.rsplit_once('/')?;
            let (topic, partition) = rest.rsplit_once('/')?;
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            let fits = !topic.is_empty() && !topic.contains('/') && partition >= 0 && offset >= 0;
            fits.then(|| Self { topic: topic.to_owned(), partition, offset })
        };
        parse().ok_or_else(|| BadPlace(text.to_owned()))
    }
}

/// A change that apply could not write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// `database.table` of the source.
    pub table: String,
    /// The record's topic.
    pub topic: String,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The record's key, framed.
    #[serde(with = "apache_avro::serde::bytes")]
    pub record_key: Vec<u8>,
    /// The record's value, framed. Empty once the dead letter is discarded.
    #[serde(with = "apache_avro::serde::bytes")]
    pub record_value: Vec<u8>,
    /// The version of the change.
    pub version: i64,
    /// A short name of the reason, such as `invalid-date`.
    pub reason: String,
    /// The error. It holds no values of the row.
    pub cause: String,
    /// When the change was put aside, in microseconds since the epoch.
    pub at_us: i64,
    /// Set once an operator has discarded the dead letter.
    pub discarded: Option<Discarded>,
}

/// The end of a dead letter by an operator's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded {
    /// When, in microseconds since the epoch.
    pub at_us: i64,
    /// The reason that the operator gave.
    pub reason: String,
}

impl DeadLetter {
    /// The place of the record on the log.
    pub fn place(&self) -> RecordPlace {
        RecordPlace { topic: self.topic.clone(), partition: self.partition, offset: self.offset }
    }

    /// The record of the dead-letter topic `topic`. Its key is the place of the change, so the same change is one dead
    /// letter however often apply meets it.
    ///
    /// # Errors
    /// The dead letter cannot be encoded.
    pub fn record(&self, topic: &str) -> Result<OutRecord, WireError> {
        Ok(OutRecord::control(topic, self.place().to_string().into_bytes(), encode_control(self)?))
    }
}

/// The record that settles a dead letter: a tombstone, so that compaction removes both.
pub fn settled(topic: &str, place: &RecordPlace) -> OutRecord {
    OutRecord { value: None, ..OutRecord::control(topic, place.to_string().into_bytes(), Vec::new()) }
}

impl Sealed for DeadLetter {}

impl ControlRecord for DeadLetter {
    type Fields = Self;

    fn schema() -> &'static ControlSchema {
        static SCHEMA: ControlSchema =
            ControlSchema::new("DeadLetter", include_str!("../../../../../schemas/dead-letter.avsc"));
        &SCHEMA
    }

    fn to_fields(&self) -> Self {
        self.clone()
    }

    fn from_fields(fields: Self) -> Result<Self, String> {
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_printed() {
        let place = RecordPlace { topic: "t.changes".into(), partition: 3, offset: 1 << 40 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for bad in ["", "t", "t/1", "/1/2", "t/-1/2", "t/1/-2", "t/x/2", "a/b/1/2", "t/1/2/"] {
            let error = bad.parse::<RecordPlace>().unwrap_err();
            assert_eq!(error.retry(), Disposition::Refuse, "{bad}");
        }
    }
}
