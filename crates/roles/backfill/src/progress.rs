//! The progress of each table's backfill, stored in `<prefix>.control`.

use std::collections::HashMap;

use tandem_kafka::{ConsumeError, KafkaConfig, read_all};
use tandem_model::{Disposition, Remedy, TableName};
use tandem_protocol::mapping_in_use::is_of_mapping_in_use;
use tandem_wire::WireError;
use tandem_wire::control::{
    BackfillProgress, MAPPING_KEY, MappingInUse, RESNAPSHOT_KEY, Resnapshot, TableState, copies_from,
    decode_backfill_progress, decode_control, encode_backfill_progress, is_progress_key, is_table_state_key,
    progress_key,
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

/// The progress of the copies that count: those begun after the newest re-snapshot, and after the newest order to copy
/// their table again.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// The newest re-snapshot.
    resnapshot: Option<Resnapshot>,
    /// The mapping by which apply writes, if one has begun.
    pub(crate) in_use: Option<MappingInUse>,
    /// The states of tables, by `database.table`.
    states: HashMap<String, TableState>,
    /// The progress by `database.table`. A table without an entry has not begun.
    pub(crate) tables: HashMap<String, BackfillProgress>,
}

/// Reads the newest progress of every table's copy, by `database.table`. A table without an entry has not begun, or only
/// copies of it exist that do not count any more.
///
/// # Errors
///
/// Fails if the control topic cannot be read or holds an invalid record.
pub async fn read_progress(config: &KafkaConfig) -> Result<HashMap<String, BackfillProgress>, ProgressError> {
    let mut copies = Copies::read(config).await?;
    let mut tables = std::mem::take(&mut copies.tables);
    tables.retain(|_, progress| is_of_mapping_in_use(copies.in_use.as_ref(), progress));
    Ok(tables)
}

impl Copies {
    /// Reads the current state from the control topic.
    pub(crate) async fn read(config: &KafkaConfig) -> Result<Self, ProgressError> {
        let (mut resnapshot, mut in_use, mut states, mut newest) =
            (None, None, HashMap::new(), HashMap::new());
        for record in read_all(config, &config.topics().control()).await? {
            let (Some(key), Some(value)) = (record.key, record.value) else { continue };
            if key == RESNAPSHOT_KEY {
                resnapshot = Some(decode_control(&value)?);
            } else if is_table_state_key(&key) {
                let state: TableState = decode_control(&value)?;
                states.insert(state.table.clone(), state);
            } else if key == MAPPING_KEY {
                in_use = Some(decode_control(&value)?);
            } else if is_progress_key(&key) {
                newest.insert(key, decode_backfill_progress(&value)?);
            }
        }
        let mut copies = Self { resnapshot, in_use, states, tables: HashMap::new() };
        let counts = |key: &[u8], progress: &BackfillProgress| {
            *key == progress_key(&progress.table, copies.counted_from(&progress.table))
        };
        let counting = newest.into_iter().filter(|(key, progress)| counts(key, progress));
        copies.tables = counting.map(|(_, p)| (p.table.clone(), p)).collect();
        Ok(copies)
    }

    /// The state of a table.
    pub(crate) fn state(&self, table: &TableName) -> Option<&TableState> {
        self.states.get(&table.to_string())
    }

    /// The version from which copies of a table count. Without one its first copy counts.
    pub(crate) fn from(&self, table: &TableName) -> Option<i64> {
        self.counted_from(&table.to_string())
    }

    fn counted_from(&self, table: &str) -> Option<i64> {
        copies_from(self.resnapshot.as_ref().map(|r| r.version), self.states.get(table))
    }
}

/// The record that stores `progress` of a copy that counts from a version.
pub(crate) fn progress_record(
    config: &KafkaConfig,
    from: Option<i64>,
    progress: &BackfillProgress,
) -> OutRecord {
    let key = progress_key(&progress.table, from);
    OutRecord::control(config.topics().control(), key, encode_backfill_progress(progress))
}
