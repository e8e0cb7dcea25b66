//! Where the backfill of each table stands, as it is kept in `<prefix>.control`.

use std::collections::HashMap;

use tandem_event_log::{ConsumeError, KafkaConfig, OutRecord, Topics, read_all};
use tandem_model::TableName;
use tandem_wire::WireError;
use tandem_wire::control::{BackfillProgress, decode_backfill_progress, encode_backfill_progress};

/// Progress could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    /// Reading the topic failed.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// A record of the topic is no progress record.
    #[error("backfill progress in the control topic cannot be read: {0}")]
    Decode(#[from] WireError),
}

/// The key of a table's progress record.
fn record_key(table: &TableName) -> Vec<u8> {
    format!("backfill/{table}").into_bytes()
}

/// The newest progress of every table, by `database.table`. A table without any has not begun.
pub async fn read_progress(config: &KafkaConfig) -> Result<HashMap<String, BackfillProgress>, ProgressError> {
    let mut newest = HashMap::new();
    for record in read_all(config, &Topics::new(&config.prefix).control()).await? {
        let is_progress = record.key.as_deref().is_some_and(|k| k.starts_with(b"backfill/"));
        if let (true, Some(value)) = (is_progress, &record.value) {
            let progress = decode_backfill_progress(value)?;
            newest.insert(progress.table.clone(), progress);
        }
    }
    Ok(newest)
}

/// The record that keeps `progress`.
pub(crate) fn progress_record(
    config: &KafkaConfig,
    table: &TableName,
    progress: &BackfillProgress,
) -> OutRecord {
    OutRecord {
        topic: Topics::new(&config.prefix).control().into(),
        partition: 0,
        key: record_key(table),
        value: Some(encode_backfill_progress(progress)),
        version: None,
        timestamp_ms: None,
    }
}
