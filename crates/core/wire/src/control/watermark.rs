//! The encoding of the model's watermark.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tandem_model::{BinlogPosition, CapturedTables, PartialTransaction, TableName, Version, Watermark};

use super::record::sealed::Sealed;
use super::record::{ControlRecord, ControlSchema};

/// The Avro fields of a watermark.
#[derive(Debug, Serialize, Deserialize)]
pub struct WatermarkFields {
    source: String,
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

impl Sealed for Watermark {}

impl ControlRecord for Watermark {
    type Fields = WatermarkFields;

    fn schema() -> &'static ControlSchema {
        static SCHEMA: ControlSchema =
            ControlSchema::new("Watermark", include_str!("../../../../../schemas/watermark.avsc"));
        &SCHEMA
    }

    fn to_fields(&self) -> WatermarkFields {
        WatermarkFields {
            source: self.source.clone(),
            gtid_set: self.gtid_set.to_string(),
            file: self.position.file.to_string(),
            pos: self.position.pos as i64,
            version: self.version.0,
            tables: TableFields::all(&self.tables),
            offsets: self.offsets.clone(),
            partial_gtid: self.partial.as_ref().map(|partial| partial.gtid.to_string()),
            partial_rows: self.partial.as_ref().map_or(0, |partial| partial.rows as i64),
            clock_us: self.clock_us,
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
        Ok(Self {
            source: fields.source,
            gtid_set: fields.gtid_set.parse().map_err(|_| "its GTID set is invalid".to_owned())?,
            position: BinlogPosition { file: fields.file.into(), pos: number(fields.pos)? },
            version: Version(fields.version),
            tables: Arc::new(TableFields::tables(fields.tables)),
            offsets: fields.offsets,
            partial,
            clock_us: fields.clock_us,
        })
    }
}
