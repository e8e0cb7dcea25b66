//! Converts records to and from the driver's form.

use std::sync::Arc;

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use tandem_model::Version;
use tandem_wire::log::{InRecord, OutRecord, VERSION_HEADER};

use crate::error::ConsumeError;

/// The approximate memory of a record besides its key and value, in bytes.
const OVERHEAD: usize = 128;

/// The approximate memory of a record to write, in bytes.
pub(crate) fn out_weight(record: &OutRecord) -> usize {
    record.key.len() + record.value.as_ref().map_or(0, Vec::len) + OVERHEAD
}

/// The approximate memory of a read record, in bytes.
pub(crate) fn in_weight(record: &InRecord) -> usize {
    record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len) + OVERHEAD
}

/// Converts a record to the driver's form.
pub(crate) fn to_kafka<D: rdkafka::IntoOpaque>(
    record: &OutRecord,
    opaque: D,
) -> BaseRecord<'_, [u8], [u8], D> {
    let mut out =
        BaseRecord::with_opaque_to(&record.topic, opaque).partition(record.partition).key(&record.key[..]);
    if let Some(value) = &record.value {
        out = out.payload(&value[..]);
    }
    if let Some(Version(version)) = record.version {
        let text = version.to_string();
        out = out.headers(
            OwnedHeaders::new_with_capacity(1)
                .insert(Header { key: VERSION_HEADER, value: Some(text.as_bytes()) }),
        );
    }
    if let Some(ms) = record.timestamp_ms {
        out = out.timestamp(ms);
    }
    out
}

/// Converts a record from the driver's form.
///
/// # Errors
/// The version header is not a number.
pub(crate) fn from_kafka(message: &BorrowedMessage<'_>, topic: Arc<str>) -> Result<InRecord, ConsumeError> {
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
    Ok(InRecord {
        topic,
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        version,
        timestamp_ms: message.timestamp().to_millis(),
    })
}
