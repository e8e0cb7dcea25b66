//! Records on their way in and out.

use std::collections::BTreeMap;
use std::sync::Arc;

use tandem_model::Version;

/// The header that carries a record's version, as ASCII decimal digits: readable in every Kafka
/// tool.
pub const VERSION_HEADER: &str = "tandem.version";

/// For each topic and partition written to, the offset after the last record.
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
    /// The value; none deletes the key from a compacted topic.
    pub value: Option<Vec<u8>>,
    /// The version, written as [`VERSION_HEADER`].
    pub version: Option<Version>,
    /// The record's time in milliseconds since the epoch; none: now.
    pub timestamp_ms: Option<i64>,
}

impl OutRecord {
    /// A record of a topic with one partition by which roles speak to each other: without a version, at the
    /// time when it is written.
    pub fn control(topic: impl Into<Arc<str>>, key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { topic: topic.into(), partition: 0, key, value: Some(value), version: None, timestamp_ms: None }
    }
}

/// A record as it was read.
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
    /// The version of [`VERSION_HEADER`].
    pub version: Option<Version>,
    /// The record's time in milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
}
