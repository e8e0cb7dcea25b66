//! What a batch of records asks of MySQL.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tandem_kafka::SchemaStore;
use tandem_model::{Change, Epoch, Row, TableDef, TableName, Value, Version};
use tandem_mysql::{KeptVersion, PartitionOffset, RowKey};
use tandem_protocol::cutover::reverse::needed;
use tandem_wire::TableSchema;
use tandem_wire::log::InRecord;

use crate::error::ReverseError;

/// The size of a record key's frame in bytes.
const FRAME: usize = 5;

/// A native write of the log.
#[derive(Debug, Clone)]
pub(crate) struct NativeChange {
    /// The index of its record in the batch.
    pub(crate) record: usize,
    pub(crate) row: RowKey,
    pub(crate) epoch: Epoch,
    pub(crate) change: Change,
}

/// Decodes records. Keeps what it has learned of the tables' schemas.
pub(crate) struct Decoder {
    /// The prefix of the migration. Another migration of the same table has versions of its own.
    prefix: String,
    /// For the keys of each table, by the id of the envelope's schema.
    keys: HashMap<u32, Arc<TableSchema>>,
}

impl Decoder {
    pub(crate) fn of(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), keys: HashMap::new() }
    }

    /// The native writes among the records, in their order.
    pub(crate) async fn decode(
        &mut self,
        schemas: &SchemaStore,
        records: &[InRecord],
    ) -> Result<Vec<NativeChange>, ReverseError> {
        let mut changes = Vec::with_capacity(records.len());
        for (number, record) in records.iter().enumerate() {
            // A record without a value is a tombstone for other consumers. The delete itself came in the record before it.
            let Some(value) = &record.value else { continue };
            let at = |source| ReverseError::Record {
                topic: record.topic.to_string(),
                partition: record.partition,
                offset: record.offset,
                source,
            };
            let id = tandem_wire::schema_id(value).map_err(at)?;
            let change = schemas.get(id).await?.decode(value).map_err(at)?;
            let Some(native) = change.source.native else { continue };
            let keys = self
                .keys
                .entry(id)
                .or_insert_with(|| Arc::new(TableSchema::new(Arc::clone(&change.table), "")));
            let row = row_key(&self.prefix, keys, &change).map_err(at)?;
            changes.push(NativeChange { record: number, row, epoch: native.epoch, change });
        }
        Ok(changes)
    }
}

/// The hash of a row's migration, table and key.
fn row_key(prefix: &str, keys: &TableSchema, change: &Change) -> Result<RowKey, tandem_wire::WireError> {
    let mut bytes = Vec::new();
    keys.encode_key_values(&change.table.key_of(change.image()), &mut bytes)?;
    let mut hash = Sha256::new();
    hash.update(prefix);
    hash.update([0]);
    hash.update(change.table.name.to_string());
    hash.update([0]);
    hash.update(&bytes[FRAME..]);
    Ok(hash.finalize().into())
}

/// What becomes of a table's rows.
#[derive(Debug)]
pub(crate) struct TableRows<'a> {
    pub(crate) table: &'a Arc<TableDef>,
    pub(crate) put: Vec<&'a Row>,
    pub(crate) deleted: Vec<Vec<Value>>,
}

/// Of these changes, those that MySQL needs. `kept` has the versions of their rows.
pub(crate) fn needed_of<'a>(
    changes: &'a [NativeChange],
    kept: &HashMap<RowKey, Version>,
) -> Vec<&'a NativeChange> {
    let versions: Vec<(RowKey, Version)> =
        changes.iter().map(|native| (native.row, native.change.version)).collect();
    needed(&versions, |row| kept.get(row).copied()).into_iter().map(|index| &changes[index]).collect()
}

/// Orders changes by table. Each row comes once.
pub(crate) fn by_table<'a>(needed: &[&'a NativeChange]) -> Vec<TableRows<'a>> {
    let mut tables: BTreeMap<&TableName, Vec<TableRows<'a>>> = BTreeMap::new();
    for native in needed {
        let change = &native.change;
        let of_name = tables.entry(&change.table.name).or_default();
        let same = of_name.iter().position(|rows| *rows.table == change.table);
        let at = same.unwrap_or_else(|| {
            of_name.push(TableRows { table: &change.table, put: Vec::new(), deleted: Vec::new() });
            of_name.len() - 1
        });
        let rows = &mut of_name[at];
        match &change.after {
            Some(row) => rows.put.push(row),
            None => rows.deleted.push(change.table.key_of(change.image())),
        }
    }
    tables.into_values().flatten().collect()
}

/// The versions to keep.
pub(crate) fn versions(needed: &[&NativeChange]) -> Vec<KeptVersion> {
    let kept = |native: &&NativeChange| KeptVersion {
        row: native.row,
        epoch: native.epoch,
        version: native.change.version,
    };
    needed.iter().map(kept).collect()
}

/// Up to where the log is applied once these records are.
pub(crate) fn offsets(records: &[InRecord]) -> Vec<PartitionOffset> {
    let mut next: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for record in records {
        let known = next.entry((&record.topic, record.partition)).or_default();
        *known = (*known).max(record.offset + 1);
    }
    next.into_iter()
        .map(|((topic, partition), next)| PartitionOffset { topic: topic.to_owned(), partition, next })
        .collect()
}
