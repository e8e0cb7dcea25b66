//! The formats of the log: schemas, schema ids, rows and envelopes in Avro.
//!
//! This is the only crate that knows Avro. It does no I/O.
//!
//! - [`Images`] are rows in Avro. They are encoded from values, or by the binlog decoder with [`cell`].
//! - [`TableSchema`] writes the records of one table definition: the key and the Debezium-shaped envelope.
//! - [`ReadSchema`] and [`ReadKeySchema`] read these records.
//! - [`log`] holds the records that a producer writes, and the names of the topics.
//! - [`control`] holds the records by which Tandem's roles communicate.
//!
//! Every record is framed as Kafka's tools expect: a zero byte, the schema id as four bytes big-endian, then
//! Avro's binary encoding (Avro specification, "Binary Encoding"). The encoder and reader of rows are
//! handwritten because every row passes through them. `apache-avro` encodes the control records. In the tests
//! it also checks the handwritten code.

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
pub use schema::{TABLE_IDENTIFIER, TableSchema};
pub use schema_id::{fingerprint, id_of, normalise, schema_id};
