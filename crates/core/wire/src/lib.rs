//! The bytes on the log: schemas, schema ids, rows and envelopes to and from Avro.
//!
//! This is the only crate that knows Avro. It does no I/O.
//!
//! - [`Images`] are rows as Avro, encoded from values here or by the binlog's decoder with [`cell`].
//! - [`TableSchema`] frames them: the key and the Debezium-shaped envelope of one table definition.
//! - [`ReadSchema`] and [`ReadKeySchema`] read what it wrote.
//! - [`log`] has the log's records as a producer takes them, and the names of its topics.
//! - [`control`] holds the records by which Tandem's roles speak to each other.
//!
//! Every record is framed as Kafka's tools expect it: a zero byte, the schema's id as four bytes
//! big-endian, then Avro's binary encoding (Avro specification, "Binary Encoding"). The encoder and
//! the reader of rows are written by hand, since they are on the path of every row; `apache-avro`
//! is used for the control records, and in the tests as the judge of the hand-written code.

pub mod cell;
mod column;
pub mod control;
mod envelope;
mod error;
mod images;
pub mod log;
mod names;
mod primitive;
mod read_schema;
mod schema;
mod schema_id;

pub use envelope::EncodedChange;
pub use error::WireError;
pub use images::{Image, Images};
pub use read_schema::{ReadKeySchema, ReadSchema};
pub use schema::{TableSchema, key_subject, value_subject};
pub use schema_id::{fingerprint, id_of, normalise, schema_id};
