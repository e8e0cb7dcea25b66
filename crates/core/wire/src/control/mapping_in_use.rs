//! The record of the mapping by which apply writes.

use serde::{Deserialize, Serialize};

use super::record::sealed::Sealed;
use super::record::{ControlRecord, ControlSchema};

/// The key of the record in `<prefix>.control`.
pub const MAPPING_KEY: &[u8] = b"mapping";

/// The mapping by which apply writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingInUse {
    /// One more with each other mapping.
    pub generation: i64,
    /// A hash of the target tables of all mapped tables.
    pub layout: String,
    /// A hash of the configured mapping, for readers that do not know MySQL's definitions.
    pub configured: String,
    /// The mapped tables, by name.
    pub tables: Vec<TableInUse>,
    /// When the mapping came into use, in microseconds since the epoch.
    pub at_us: i64,
}

/// A mapped table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableInUse {
    /// `database.table` of the source.
    pub table: String,
    /// A hash of the table's target tables.
    pub layout: String,
    /// The version of a watermark that covers every change that was applied by another layout of the table. `None` if
    /// none was.
    pub since: Option<i64>,
}

impl Sealed for MappingInUse {}

impl ControlRecord for MappingInUse {
    type Fields = Self;

    fn schema() -> &'static ControlSchema {
        static SCHEMA: ControlSchema =
            ControlSchema::new("MappingInUse", include_str!("../../../../../schemas/mapping-in-use.avsc"));
        &SCHEMA
    }

    fn to_fields(&self) -> Self {
        self.clone()
    }

    fn from_fields(fields: Self) -> Result<Self, String> {
        Ok(fields)
    }
}
