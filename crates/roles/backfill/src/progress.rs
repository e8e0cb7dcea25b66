//! The progress of each table's backfill, stored in `<prefix>.control`.

use std::collections::HashMap;

use tandem_kafka::{ConsumeError, KafkaConfig, read_all};
use tandem_model::{Disposition, Remedy};
use tandem_wire::WireError;
use tandem_wire::control::{
    BackfillProgress, RESNAPSHOT_KEY, Resnapshot, decode_backfill_progress, decode_control,
    encode_backfill_progress, is_progress_key, progress_key,
};
use tandem_wire::log::OutRecord;

/// Why progress could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    /// Reading the topic failed.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// A record of the topic is not a valid progress record.
    #[error("backfill progress in the control topic cannot be read: {0}")]
    Decode(#[from] WireError),
}

impl ProgressError {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Consume(error) => error.retry(),
            Self::Decode(error) => error.retry(),
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Consume(error) => error.remedy(),
            Self::Decode(_) => None,
        }
    }
}

/// The progress of the copies that count: those begun after the newest re-snapshot.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// The newest re-snapshot. Without one these are the first copies.
    pub(crate) resnapshot: Option<Resnapshot>,
    /// The progress by `database.table`. A table without an entry has not begun.
    pub(crate) tables: HashMap<String, BackfillProgress>,
}

/// Reads the newest progress of every table's copy, by `database.table`. A table without an entry has not begun, or was
/// copied only before the newest re-snapshot.
///
/// # Errors
///
/// Fails if the control topic cannot be read or holds an invalid record.
pub async fn read_progress(config: &KafkaConfig) -> Result<HashMap<String, BackfillProgress>, ProgressError> {
    Ok(Copies::read(config).await?.tables)
}

impl Copies {
    /// Reads the current state from the control topic.
    pub(crate) async fn read(config: &KafkaConfig) -> Result<Self, ProgressError> {
        let (mut resnapshot, mut newest) = (None, HashMap::new());
        for record in read_all(config, &config.topics().control()).await? {
            let (Some(key), Some(value)) = (record.key, record.value) else { continue };
            if key == RESNAPSHOT_KEY {
                resnapshot = Some(decode_control(&value)?);
            } else if is_progress_key(&key) {
                newest.insert(key, decode_backfill_progress(&value)?);
            }
        }
        let counts = |(key, progress): &(Vec<u8>, BackfillProgress)| {
            *key == progress_key(&progress.table, resnapshot.as_ref())
        };
        let tables = newest.into_iter().filter(counts).map(|(_, p)| (p.table.clone(), p)).collect();
        Ok(Self { resnapshot, tables })
    }
}

/// The record that stores `progress`.
pub(crate) fn progress_record(
    config: &KafkaConfig,
    resnapshot: Option<&Resnapshot>,
    progress: &BackfillProgress,
) -> OutRecord {
    let key = progress_key(&progress.table, resnapshot);
    OutRecord::control(config.topics().control(), key, encode_backfill_progress(progress))
}
