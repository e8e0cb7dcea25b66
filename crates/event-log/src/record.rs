//! Records on their way in and out.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use tandem_model::Version;

use crate::ConsumeError;

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
    /// About how much memory the record takes.
    pub(crate) fn weight(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + 128
    }

    pub(crate) fn to_kafka<D: rdkafka::IntoOpaque>(&self, opaque: D) -> BaseRecord<'_, [u8], [u8], D> {
        let mut record =
            BaseRecord::with_opaque_to(&self.topic, opaque).partition(self.partition).key(&self.key[..]);
        if let Some(value) = &self.value {
            record = record.payload(&value[..]);
        }
        if let Some(Version(version)) = self.version {
            let text = version.to_string();
            record = record.headers(
                OwnedHeaders::new_with_capacity(1)
                    .insert(Header { key: VERSION_HEADER, value: Some(text.as_bytes()) }),
            );
        }
        if let Some(ms) = self.timestamp_ms {
            record = record.timestamp(ms);
        }
        record
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

impl InRecord {
    /// About how much memory the record takes.
    pub(crate) fn weight(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + 128
    }

    pub(crate) fn of(message: &BorrowedMessage<'_>, topic: Arc<str>) -> Result<Self, ConsumeError> {
        let header = message
            .headers()
            .and_then(|headers| headers.iter().find(|h| h.key == VERSION_HEADER))
            .and_then(|header| header.value);
        let version = match header {
            None => None,
            Some(bytes) => match std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()) {
                Some(version) => Some(Version(version)),
                None => {
                    return Err(ConsumeError::BadVersion {
                        topic: topic.to_string(),
                        partition: message.partition(),
                        offset: message.offset(),
                    });
                }
            },
        };
        Ok(Self {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            version,
            timestamp_ms: message.timestamp().to_millis(),
        })
    }
}
