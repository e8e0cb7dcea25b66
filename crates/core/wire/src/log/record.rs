//! Records that are written to and read from Kafka.

use std::collections::BTreeMap;
use std::sync::Arc;

use tandem_model::Version;

/// The header with a record's version. It holds ASCII decimal digits, so every Kafka tool can display it.
pub const VERSION_HEADER: &str = "tandem.version";

/// The offset after the last record of each topic and partition that was written.
pub type EndOffsets = BTreeMap<(Arc<str>, i32), i64>;

/// A record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The key.
    pub key: Vec<u8>,
    /// The value. `None` deletes the key from a compacted topic.
    pub value: Option<Vec<u8>>,
    /// The version, written as [`VERSION_HEADER`].
    pub version: Option<Version>,
    /// The record's time in milliseconds since the epoch. `None` means the time of writing.
    pub timestamp_ms: Option<i64>,
}

impl OutRecord {
    /// A record on a topic with one partition by which roles communicate. It has no version, and its time is
    /// the time of writing.
    pub fn control(topic: impl Into<Arc<str>>, key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { topic: topic.into(), partition: 0, key, value: Some(value), version: None, timestamp_ms: None }
    }
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The version from [`VERSION_HEADER`].
    pub version: Option<Version>,
    /// The record's time in milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
}
