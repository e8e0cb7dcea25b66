//! Decodes MySQL's binlog: raw events in, row images in Avro out. No I/O.
//!
//! [`EventDecoder`] processes one raw event at a time and returns [`BinlogEvent`]s: the begin and end of each
//! transaction, the rows that it changed, and the statements that change a schema. Every row comes with the
//! definition that its table had when the row was written.
//!
//! Invariants:
//!
//! - An unknown event is a [`DecodeError`] with its position. It is never skipped.
//! - Every bound is checked. Damaged bytes yield an error, never a panic.
//! - The binlog and a `SELECT` yield the same Avro bytes for the same stored row.
//!
//! ```
//! use tandem_binlog::EventDecoder;
//!
//! // The collations that `information_schema.COLLATIONS` lists, and a filter for the tables to decode.
//! let collations = [(255, "utf8mb4".to_owned())];
//! let mut decoder = EventDecoder::new(collations, |table| table.database == "shop");
//! assert!(decoder.feed(b"not an event").is_err());
//! ```

mod cursor;
mod decoder;
mod error;
mod event;
mod excluded;
mod rows;
mod types;

pub use cursor::{Cursor, Malformed};
pub use decoder::EventDecoder;
pub use error::DecodeError;
pub use event::{BinlogEvent, GATEWAY_LOCALE, Origin, REVERSE_LOCALE, RowsEvent, RowsKind, StatementKind};
pub use excluded::ExcludedColumns;
pub use types::charset::is_supported_charset;
pub use types::temporal::DateTimeFields;
