//! The records of the watermark topic.
//!
//! A full record has the whole watermark. A delta completes a full one, so that the cost of a watermark follows what
//! changed and not the number of tables, topics and GTID runs. `watermark_log` in `tandem-protocol` writes and completes
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tandem_model::{BinlogPosition, CapturedTables, PartialTransaction, TableName, Version, Watermark};

use super::record::sealed::Sealed;
use super::record::{ControlRecord, ControlSchema};

/// A record of the watermark topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatermarkRecord {
    /// The full record that a delta completes. `None` in a full record.
    pub base: Option<WatermarkBase>,
    /// The watermark. In a delta, it has only what the full record lacks: the added transactions, no tables, and the
    /// offsets of the topics that changed.
    pub watermark: Watermark,
}

/// A full record of the watermark topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatermarkBase {
    /// Its offset.
    pub offset: i64,
    /// Its version.
    pub version: Version,
}

impl WatermarkRecord {
    /// The key of the record: the source in a full record, and `<source>.delta` in a delta. Compaction therefore keeps
    /// the last full record, however many deltas follow it.
    pub fn key(&self) -> Vec<u8> {
        let delta = if self.base.is_some() { ".delta" } else { "" };
        format!("{}{delta}", self.watermark.source).into_bytes()
    }
}

/// The Avro fields of a watermark.
#[derive(Debug, Serialize, Deserialize)]
pub struct WatermarkFields {
    source: String,
    base_offset: Option<i64>,
    base_version: Option<i64>,
    gtid_set: String,
    file: String,
    pos: i64,
    version: i64,
    tables: Vec<TableFields>,
    offsets: BTreeMap<String, Vec<i64>>,
    partial_gtid: Option<String>,
    partial_rows: i64,
    clock_us: i64,
}

/// A captured table, or a retired one without a topic.
#[derive(Debug, Serialize, Deserialize)]
struct TableFields {
    database: String,
    table: String,
    topic: Option<String>,
}

impl TableFields {
    fn all(tables: &CapturedTables) -> Vec<Self> {
        let of = |name: &TableName, topic: Option<&Arc<str>>| Self {
            database: name.database.clone(),
            table: name.table.clone(),
            topic: topic.map(|topic| topic.as_ref().to_owned()),
        };
        let captured = tables.captured.iter().map(|(name, topic)| of(name, Some(topic)));
        captured.chain(tables.retired.iter().map(|name| of(name, None))).collect()
    }

    fn tables(all: Vec<Self>) -> CapturedTables {
        let mut tables = CapturedTables::default();
        for Self { database, table, topic } in all {
            let name = TableName { database, table };
            match topic {
                Some(topic) => {
                    tables.captured.insert(name, topic.into());
                }
                None => {
                    tables.retired.insert(name);
                }
            }
        }
        tables
    }
}

impl Sealed for WatermarkRecord {}

impl ControlRecord for WatermarkRecord {
    type Fields = WatermarkFields;

    fn schema() -> &'static ControlSchema {
        static SCHEMA: ControlSchema =
            ControlSchema::of_format(2, "Watermark", include_str!("../../../../../schemas/watermark.avsc"));
        &SCHEMA
    }

    fn to_fields(&self) -> WatermarkFields {
        let watermark = &self.watermark;
        WatermarkFields {
            source: watermark.source.clone(),
            base_offset: self.base.map(|base| base.offset),
            base_version: self.base.map(|base| base.version.0),
            gtid_set: watermark.gtid_set.to_string(),
            file: watermark.position.file.to_string(),
            pos: watermark.position.pos as i64,
            version: watermark.version.0,
            tables: TableFields::all(&watermark.tables),
            offsets: watermark.offsets.clone(),
            partial_gtid: watermark.partial.as_ref().map(|partial| partial.gtid.to_string()),
            partial_rows: watermark.partial.as_ref().map_or(0, |partial| partial.rows as i64),
            clock_us: watermark.clock_us,
        }
    }

    fn from_fields(fields: WatermarkFields) -> Result<Self, String> {
        let number = |n: i64| u64::try_from(n).map_err(|_| "a number is negative".to_owned());
        let partial = match fields.partial_gtid {
            None => None,
            Some(gtid) => Some(PartialTransaction {
                gtid: gtid.parse().map_err(|_| "its partial transaction is not a GTID".to_owned())?,
                rows: number(fields.partial_rows)?,
            }),
        };
        let base = match (fields.base_offset, fields.base_version) {
            (None, None) => None,
            (Some(offset), Some(version)) => Some(WatermarkBase { offset, version: Version(version) }),
            _ => return Err("its full record is named by half".to_owned()),
        };
        let watermark = Watermark {
            source: fields.source,
            gtid_set: fields.gtid_set.parse().map_err(|_| "its GTID set is invalid".to_owned())?,
            position: BinlogPosition { file: fields.file.into(), pos: number(fields.pos)? },
            version: Version(fields.version),
            tables: Arc::new(TableFields::tables(fields.tables)),
            offsets: fields.offsets,
            partial,
            clock_us: fields.clock_us,
        };
        Ok(Self { base, watermark })
    }
}
