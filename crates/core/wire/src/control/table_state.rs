//! The state of one table.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::log::OutRecord;

use super::record::{ControlRecord, ControlSchema};
use super::record::{encode_control, sealed::Sealed};

/// What holds for a table. The transitions are in `tandem_protocol::table_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TableCondition {
    /// Its changes are applied, its rows are verified, and Cassandra may serve them.
    Live,
    /// Its changes are not applied. They wait on the log, if it holds them.
    Halted,
    /// The changes that were not applied are being applied, together with new ones.
    Replaying,
    /// Its changes are applied. It waits for its copy, if one was ordered, and for a verification.
    Verifying,
}

impl TableCondition {
    /// The name in outputs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Halted => "halted",
            Self::Replaying => "replaying",
            Self::Verifying => "verifying",
        }
    }
}

impl fmt::Display for TableCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The state of a table. A table without a record is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableState {
    /// `database.table` of the source.
    pub table: String,
    /// One higher with each record of the table.
    pub incarnation: i64,
    /// What holds.
    pub condition: TableCondition,
    /// Whether capture publishes the table's changes.
    pub captured: bool,
    /// Whether the log holds every change that was not applied. If not, only a new copy leads on.
    pub replayable: bool,
    /// By topic, for each partition: every change of the table below this offset is applied. Empty if nothing has to be
    /// replayed.
    pub from: BTreeMap<String, Vec<i64>>,
    /// The version of the watermark at which the newest copy was ordered. Copies of an earlier version do not count.
    pub copy_from: Option<i64>,
    /// A short name of the reason, such as `too-many-dead-letters`.
    pub reason: String,
    /// The error, or the operator's words. It holds no values of a row.
    pub cause: String,
    /// The role or the command that wrote the record.
    pub by: String,
    /// Since when the condition holds, in microseconds since the epoch.
    pub since_us: i64,
    /// When the record was written, in microseconds since the epoch.
    pub at_us: i64,
}

/// What the keys of the records begin with.
const KEY: &str = "table/";

impl TableState {
    /// The record for the control topic.
    ///
    /// # Errors
    /// The state cannot be encoded.
    pub fn record(&self, topic: &str) -> Result<OutRecord, WireError> {
        let key = format!("{KEY}{}", self.table).into_bytes();
        Ok(OutRecord::control(topic.to_owned(), key, encode_control(self)?))
    }
}

/// Whether a key of the control topic is that of a table's state.
pub fn is_table_state_key(key: &[u8]) -> bool {
    key.starts_with(KEY.as_bytes())
}

/// The version from which a table's copies count: that of the newest re-snapshot or of the newest order to copy the
/// table again.
pub fn copies_from(resnapshot: Option<i64>, state: Option<&TableState>) -> Option<i64> {
    resnapshot.max(state.and_then(|state| state.copy_from))
}

impl Sealed for TableState {}

impl ControlRecord for TableState {
    type Fields = Self;

    fn schema() -> &'static ControlSchema {
        static SCHEMA: ControlSchema =
            ControlSchema::new("TableState", include_str!("../../../../../schemas/table-state.avsc"));
        &SCHEMA
    }

    fn to_fields(&self) -> Self {
        self.clone()
    }

    fn from_fields(fields: Self) -> Result<Self, String> {
        Ok(fields)
    }
}
