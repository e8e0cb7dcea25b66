//! What the roles of a process do.

use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::log::OutRecord;

use super::record::{ControlRecord, ControlSchema};
use super::record::{encode_control, sealed::Sealed};

/// What the keys of processes begin with. No role has this name.
const KEYS: &[u8] = b"process/";

/// A process says what each of its roles does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// The address of its metrics, or its host and process id.
    pub name: String,
    /// The release of the program.
    pub version: String,
    /// When it started, in microseconds since the epoch.
    pub started_at_us: i64,
    /// Its roles.
    pub roles: Vec<ProcessRole>,
    /// What it waits for.
    pub waits: Vec<ProcessWait>,
    /// When it said so, in microseconds since the epoch.
    pub at_us: i64,
}

/// A role of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRole {
    /// The role.
    pub role: String,
    /// `starting`, `running`, `standby`, `down` or `done`.
    pub state: String,
    /// Since when it has been in this state, in microseconds since the epoch.
    pub since_us: i64,
    /// Why it is down. Empty in other states.
    pub cause: String,
    /// When a role that is down is started again, in microseconds since the epoch.
    pub next_try_us: Option<i64>,
}

/// Something that a process waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessWait {
    /// Who waits, or for what.
    pub what: String,
    /// Since when, in microseconds since the epoch.
    pub since_us: i64,
    /// The last error.
    pub cause: String,
    /// When it is tried again, in microseconds since the epoch. `None` if it is tried all the time.
    pub next_try_us: Option<i64>,
}

impl ProcessReport {
    /// The record for the topic of announcements.
    ///
    /// # Errors
    ///
    /// The record cannot be encoded.
    pub fn record(&self, topic: &str) -> Result<OutRecord, WireError> {
        Ok(OutRecord::control(topic.to_owned(), process_key(&self.name), encode_control(self)?))
    }
}

fn process_key(name: &str) -> Vec<u8> {
    [KEYS, name.as_bytes()].concat()
}

/// Whether a record of the topic of announcements is about a process.
pub fn is_process_key(key: &[u8]) -> bool {
    key.starts_with(KEYS)
}

/// The record that says that the process of this name has ended.
pub fn process_has_ended(topic: &str, name: &str) -> OutRecord {
    OutRecord { value: None, ..OutRecord::control(topic, process_key(name), Vec::new()) }
}

impl Sealed for ProcessReport {}

impl ControlRecord for ProcessReport {
    type Fields = Self;

    fn schema() -> &'static ControlSchema {
        static SCHEMA: ControlSchema =
            ControlSchema::new("Process", include_str!("../../../../../schemas/process.avsc"));
        &SCHEMA
    }

    fn to_fields(&self) -> Self {
        self.clone()
    }

    fn from_fields(fields: Self) -> Result<Self, String> {
        Ok(fields)
    }
}
