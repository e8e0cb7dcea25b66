//! The errors of bytes, rows and schemas.

use tandem_model::Disposition;

/// A row, record or schema that cannot be written or read. Messages name columns and kinds of values, never
/// the values.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The number of cells in the row is not the number of columns of its table.
    #[error(
        "a row of {table} has {cells} cells, but its table definition has {columns} columns: the row was made with another definition"
    )]
    CellCount {
        /// `database.table`.
        table: String,
        /// The number of cells in the row.
        cells: usize,
        /// The number of columns in the definition.
        columns: usize,
    },
    /// A value is not of its column's type, or out of its range.
    #[error("a {kind} does not fit column `{column}` of type {ty}")]
    DoesNotFit {
        /// The column.
        column: String,
        /// Its type as MySQL writes it.
        ty: String,
        /// The kind of value.
        kind: &'static str,
    },
    /// A change lacks an image that its operation needs.
    #[error("a change with op `{op}` lacks its row image `{image}`")]
    MissingImage {
        /// The envelope's letter.
        op: &'static str,
        /// `before` or `after`.
        image: &'static str,
    },
    /// The record ends before its schema does.
    #[error("the record ends in the middle of a field: it is cut short or was written with another schema")]
    Truncated,
    /// The record does not start with a zero byte and a schema id.
    #[error(
        "the record does not start with byte 0 and a schema id: it was not written in the framing of Confluent's serializers"
    )]
    NotFramed,
    /// The record was written with another schema.
    #[error("the record was written with schema {found}, but read with schema {expected}")]
    OtherSchema {
        /// The reader's schema.
        expected: u32,
        /// The record's schema.
        found: u32,
    },
    /// The bytes are not a valid encoding.
    #[error("the record is corrupt: {0}")]
    Corrupt(&'static str),
    /// A cell's bytes are not a valid encoding of its column's type.
    #[error("the record is corrupt: the bytes of column `{column}` are not a valid {ty}")]
    CorruptColumn {
        /// The column.
        column: String,
        /// Its type as MySQL writes it.
        ty: String,
    },
    /// The schema is not one of Tandem's.
    #[error(
        "the schema is not one that this release of Tandem writes ({0}): read it with the release that wrote it, or with a generic Avro reader"
    )]
    ForeignSchema(String),
    /// A control record of a later release.
    #[error(
        "a {record} record has format {found}, but this release reads formats up to {known}: upgrade this process"
    )]
    LaterFormat {
        /// The record's name.
        record: &'static str,
        /// Its format.
        found: i64,
        /// The newest known format.
        known: i64,
    },
    /// A control record of an earlier release.
    #[error(
        "a {record} record has format {found} of an earlier release, but this release reads format {known}: finish the \
         migration with the earlier release, or begin anew with another `kafka.prefix`"
    )]
    EarlierFormat {
        /// The record's name.
        record: &'static str,
        /// Its format.
        found: i64,
        /// The known format.
        known: i64,
    },
    /// A control record that does not match its schema.
    #[error("a {record} record cannot be {action}: {cause}")]
    Control {
        /// The record's name.
        record: &'static str,
        /// `written` or `read`.
        action: &'static str,
        /// The cause, from Avro or the model.
        cause: String,
    },
}

impl WireError {
    /// What the caller does next. A row or record does not become valid by itself, so nothing is retried.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::CellCount { .. }
            | Self::DoesNotFit { .. }
            | Self::MissingImage { .. }
            | Self::Truncated
            | Self::NotFramed
            | Self::OtherSchema { .. }
            | Self::Corrupt(_)
            | Self::CorruptColumn { .. }
            | Self::Control { .. } => Disposition::Refuse,
            // Another release reads these.
            Self::ForeignSchema(_) | Self::LaterFormat { .. } | Self::EarlierFormat { .. } => {
                Disposition::Stop
            }
        }
    }
}
