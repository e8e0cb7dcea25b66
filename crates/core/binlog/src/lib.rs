//! MySQL's binlog: from the bytes of events to row images in Avro. No I/O.
//!
//! [`EventDecoder`] takes one raw event at a time and gives [`BinlogEvent`]s: where a transaction
//! begins and ends, the rows that it changed, and the statements that change a schema. Every row comes
//! with the definition that its table had when the row was written.
//!
//! Invariants:
//!
//! - An event that is not understood is a [`DecodeError`] with its position, never a skip.
//! - Every bound is checked: damaged bytes give an error, not a panic.
//! - For one stored row, the binlog and a `SELECT` give the same Avro bytes.
//!
//! ```
//! use tandem_binlog::EventDecoder;
//!
//! // Collations as `information_schema.COLLATIONS` lists them, and the tables whose rows are wanted.
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
pub use event::{BinlogEvent, GATEWAY_LOCALE, RowsEvent, RowsKind, StatementKind};
pub use excluded::ExcludedColumns;
pub use types::charset::is_supported_charset;
pub use types::temporal::DateTimeFields;
