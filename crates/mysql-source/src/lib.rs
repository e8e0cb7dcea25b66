//! MySQL as a source: binlog stream and row decoder, table definitions, chunk and key reads,
//! preflight. The only crate that knows mysql_async.
//!
//! - [`Mysql`]: a pool of connections, [preflight](Mysql::preflight) and table definitions.
//! - [`BinlogStream`]: the change log, row by row, each row as Avro, with the definition that its
//!   table had when the row was written. An event that is not understood is an error, never a skip.
//! - [`ClientPool`]: clients' own reads and [transactions](ClientTransaction), in strict mode.
//! - [`Reader`]: one connection that reads chunks, keys, the executed GTID set and the binlog's end.
//!
//! The stream goes straight from the binlog's bytes to Avro's; the reader gives
//! [`Value`](tandem_model::Value)s. For the same stored row both come to the same bytes.

mod binlog;
mod bytes;
mod cell;
mod charset;
mod client;
mod client_pool;
mod client_transaction;
mod config;
mod decimal;
mod decoder;
mod dump;
mod error;
mod event;
mod excluded;
mod grants;
mod json;
mod json_number;
mod lease;
mod machine;
mod metadata;
mod partition_read;
mod payload;
mod preflight;
mod query;
mod reader;
mod replica;
mod rows;
mod select;
mod statement;
mod table_error;
mod table_map;
mod tables;
mod temporal;
mod tls;
mod transaction;
mod values;
mod visible;

pub use binlog::BinlogStream;
pub use client::Mysql;
pub use client_pool::ClientPool;
pub use client_transaction::{ClientTransaction, Commit};
pub use config::MysqlConfig;
pub use decoder::EventDecoder;
pub use error::{BinlogError, MysqlError};
pub use event::{BinlogEvent, RowsEvent, RowsKind, StatementKind};
pub use excluded::ExcludedColumns;
pub use grants::Need;
pub use partition_read::{Bound, PartitionRead};
pub use preflight::{Finding, Severity};
pub use reader::Reader;
pub use table_error::{Refusal, TableError};
pub use tls::{MysqlTls, TlsMode};
