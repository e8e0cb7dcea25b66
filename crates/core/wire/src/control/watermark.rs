//! The model's watermark as a record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tandem_model::{BinlogPosition, Cut, Version, Watermark};

use super::record::sealed::Sealed;
use super::record::{ControlRecord, ControlSchema};

/// Avro's fields of a watermark.
#[derive(Debug, Serialize, Deserialize)]
pub struct WatermarkFields {
    source: String,
    gtid_set: String,
    file: String,
    pos: i64,
    version: i64,
    offsets: BTreeMap<String, Vec<i64>>,
    cut_gtid: Option<String>,
    cut_rows: i64,
    clock_us: i64,
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
            offsets: self.offsets.clone(),
            cut_gtid: self.cut.as_ref().map(|cut| cut.gtid.to_string()),
            cut_rows: self.cut.as_ref().map_or(0, |cut| cut.rows as i64),
            clock_us: self.clock_us,
        }
    }

    fn from_fields(fields: WatermarkFields) -> Result<Self, String> {
        let number = |n: i64| u64::try_from(n).map_err(|_| "a number is negative".to_owned());
        let cut = match fields.cut_gtid {
            None => None,
            Some(gtid) => Some(Cut {
                gtid: gtid.parse().map_err(|_| "its cut names no GTID".to_owned())?,
                rows: number(fields.cut_rows)?,
            }),
        };
        Ok(Self {
            source: fields.source,
            gtid_set: fields.gtid_set.parse().map_err(|_| "it holds no GTID set".to_owned())?,
            position: BinlogPosition { file: fields.file.into(), pos: number(fields.pos)? },
            version: Version(fields.version),
            offsets: fields.offsets,
            cut,
            clock_us: fields.clock_us,
        })
    }
}
