//! The MySQL adapter: connections, the binlog stream, table definitions, chunk and key reads, clients'
//! transactions and preflight. The only crate that knows mysql_async.
//!
//! - [`Mysql`]: a pool of connections, [preflight](Mysql::preflight) and table definitions.
//! - [`BinlogStream`]: the binlog as [`tandem_binlog`] decodes it, event by event.
//! - [`ClientPool`]: clients' own reads and [transactions](ClientTransaction), in strict mode.
//! - [`Reader`]: one connection that reads chunks, keys, the executed GTID set and the binlog's end.
//!
//! The stream goes straight from the binlog's bytes to Avro's; the reader gives
//! [`Value`](tandem_model::Value)s. For the same stored row both come to the same bytes.

mod client;
mod connect;
mod error;
mod mysql;
mod read;
mod schema;
mod stream;

pub use client::{Bound, ClientPool, ClientTransaction, Commit, PartitionRead};
pub use connect::{MysqlConfig, MysqlTls, TlsMode, split_password};
pub use error::{BinlogError, MysqlError};
pub use mysql::Mysql;
pub use read::Reader;
pub use schema::{Finding, Need, Refusal, Severity, TableError};
pub use stream::BinlogStream;
