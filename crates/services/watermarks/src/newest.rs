//! Reads the newest watermark.

use std::sync::Arc;

use tandem_kafka::{ConsumeError, KafkaConfig, read_at, read_last};
use tandem_model::{Disposition, Remedy, Watermark};
use tandem_protocol::watermark_log::{BaseError, WatermarkReader};
use tandem_wire::WireError;
use tandem_wire::control::{WatermarkRecord, decode_watermark};
use tandem_wire::log::InRecord;

/// How often the newest watermark is read again because its full record is gone by then.
const ATTEMPTS: u32 = 3;

/// Why a watermark could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WatermarkReadError {
    /// Reading the topic failed.
    #[error("reading the watermark topic: {0}")]
    Consume(#[from] ConsumeError),
    /// A record of the topic could not be decoded.
    #[error("the watermark at offset {offset} cannot be read: {source}")]
    Decode {
        /// The offset of the record.
        offset: i64,
        /// The reason.
        source: WireError,
    },
    /// A delta does not fit the full record that it completes.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The full record of the newest watermark is gone, again and again.
    #[error("the newest watermark completes another one that `{topic}` does not hold any more")]
    NoFull {
        /// The watermark topic.
        topic: String,
    },
}

impl WatermarkReadError {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Consume(error) => error.retry(),
            Self::Base(error) => error.retry(),
            Self::NoFull { .. } => Disposition::Retry,
            // Every later watermark is behind the bad record.
            Self::Decode { .. } => Disposition::Stop,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Consume(error) => error.remedy(),
            Self::Decode { .. } | Self::Base(_) | Self::NoFull { .. } => None,
        }
    }
}

/// The newest watermark of the log.
#[derive(Debug, Clone)]
pub struct NewestWatermark {
    /// The watermark.
    pub watermark: Arc<Watermark>,
    /// The offset of its record.
    pub offset: i64,
    /// Completes the records that follow.
    pub reader: WatermarkReader,
}

impl NewestWatermark {
    /// Reads the newest committed watermark. Returns `None` if there is none yet.
    ///
    /// # Errors
    /// Reading the topic fails, or it does not exist, or its last record is damaged.
    pub async fn read(config: &KafkaConfig) -> Result<Option<Self>, WatermarkReadError> {
        let topic = config.topics().watermarks();
        for _ in 0..ATTEMPTS {
            let Some(last) = read_last(config, &topic, 0).await? else { return Ok(None) };
            let record = decode(&last)?;
            let mut reader = WatermarkReader::default();
            if let Some(base) = record.base {
                // A capture that started in between has written another full record, and compaction removed this one.
                let Some(full) = read_at(config, &topic, 0, base.offset).await? else { continue };
                reader.complete(full.offset, decode(&full)?)?;
            }
            if let Some(watermark) = reader.complete(last.offset, record)? {
                return Ok(Some(Self { watermark, offset: last.offset, reader }));
            }
        }
        Err(WatermarkReadError::NoFull { topic })
    }
}

/// The watermark of the next record of the topic. Returns `None` as [`WatermarkReader::complete`] does.
///
/// # Errors
/// The record is damaged.
pub fn read_watermark(
    reader: &mut WatermarkReader,
    record: &InRecord,
) -> Result<Option<Arc<Watermark>>, WatermarkReadError> {
    if record.value.is_none() {
        return Ok(None);
    }
    Ok(reader.complete(record.offset, decode(record)?)?)
}

fn decode(record: &InRecord) -> Result<WatermarkRecord, WatermarkReadError> {
    decode_watermark(record.value.as_deref().unwrap_or_default())
        .map_err(|source| WatermarkReadError::Decode { offset: record.offset, source })
}

#[cfg(test)]
mod tests {
    use tandem_model::Version;
    use tandem_wire::control::WatermarkBase;

    use super::*;

    #[test]
    fn each_error_says_what_follows() {
        use Disposition::{Retry, Stop};
        let base = WatermarkBase { offset: 1, version: Version(2) };
        for (error, expected) in [
            (WatermarkReadError::from(ConsumeError::Closed), Retry),
            (ConsumeError::NoTopic("t".into()).into(), Stop),
            (WatermarkReadError::NoFull { topic: "t".into() }, Retry),
            (WatermarkReadError::Decode { offset: 1, source: WireError::Truncated }, Stop),
            (BaseError { offset: 3, base }.into(), Stop),
        ] {
            assert_eq!(error.retry(), expected, "{error:?}");
        }
    }
}
