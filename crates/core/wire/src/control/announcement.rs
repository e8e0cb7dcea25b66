//! Announcements of running roles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::log::OutRecord;

use super::record::{ControlRecord, ControlSchema};
use super::record::{encode_control, sealed::Sealed};

/// The names of the counters in an announcement.
pub mod counter {
    /// Writes that a gateway answered with success.
    pub const DUAL_WRITES: &str = "dual_writes";
    /// Those of them that Cassandra did not accept in time.
    pub const DUAL_WRITE_FAILURES: &str = "dual_write_failures";
    /// Reads that Cassandra served.
    pub const CASSANDRA_READS: &str = "cassandra_reads";
    /// Reads that MySQL served because Cassandra failed. Reads whose rows differed do not count here: their confirmed
    /// mismatches are on the log.
    pub const FALLBACKS: &str = "fallbacks";
    /// Reads that phase and cohort give to Cassandra, and that were answered.
    pub const ROUTED_READS: &str = "routed_reads";
    /// Those of them that Cassandra answered.
    pub const ROUTED_READS_BY_CASSANDRA: &str = "routed_reads_by_cassandra";
    /// Row changes that no gateway made, as capture counts them.
    pub const OUT_OF_BAND_ROWS: &str = "out_of_band_rows";
}

/// The role of a gateway.
pub const GATEWAY_ROLE: &str = "gateway";

/// A running role says that it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The role.
    pub role: String,
    /// The name that distinguishes it from others of the role. It survives a restart.
    pub name: String,
    /// Where it serves. Empty if it serves nothing.
    pub address: String,
    /// The release of the program.
    pub version: String,
    /// When its process started, in microseconds since the epoch. The counters began at 0 then.
    pub started_at_us: i64,
    /// The generation of the phase that it acts on. `None` for a role that does not follow the phase.
    pub generation: Option<i64>,
    /// What it has counted since its start, by name. [`counter`] has the names.
    pub counters: BTreeMap<String, i64>,
    /// When it said so, in microseconds since the epoch.
    pub at_us: i64,
}

impl Announcement {
    /// The record's key on the topic.
    pub fn key(&self) -> Vec<u8> {
        announcement_key(&self.role, &self.name)
    }

    /// The record for the topic of announcements.
    ///
    /// # Errors
    ///
    /// The record cannot be encoded.
    pub fn record(&self, topic: &str) -> Result<OutRecord, WireError> {
        Ok(OutRecord::control(topic.to_owned(), self.key(), encode_control(self)?))
    }
}

/// The key of the announcements of a role with this name.
pub fn announcement_key(role: &str, name: &str) -> Vec<u8> {
    format!("{role}/{name}").into_bytes()
}

/// The record that takes the announcements of a role with this name back.
pub fn no_longer_announced(topic: &str, role: &str, name: &str) -> OutRecord {
    OutRecord { value: None, ..OutRecord::control(topic, announcement_key(role, name), Vec::new()) }
}

impl Sealed for Announcement {}

impl ControlRecord for Announcement {
    type Fields = Self;

    fn schema() -> &'static ControlSchema {
        static SCHEMA: ControlSchema =
            ControlSchema::new("Announcement", include_str!("../../../../../schemas/announcement.avsc"));
        &SCHEMA
    }

    fn to_fields(&self) -> Self {
        self.clone()
    }

    fn from_fields(fields: Self) -> Result<Self, String> {
        Ok(fields)
    }
}
