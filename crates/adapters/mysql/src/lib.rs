//! The MySQL adapter. This is the only crate that uses mysql_async.
//!
//! - [`Mysql`]: a connection pool, the [preflight](Mysql::preflight) checks and table definitions.
//! - [`BinlogStream`]: the binlog, event by event, as [`tandem_binlog`] decodes it.
//! - [`Reader`]: one connection that reads chunks, keys, the executed GTID set and the end of the binlog.
//! - [`ReverseSession`]: writes rows that Cassandra has decided, each once.
//! - [`ClientPool`]: client reads and client [transactions](ClientTransaction), in strict mode.
//!
//! The stream converts the binlog's bytes directly to Avro. The reader returns
//! [`Value`](tandem_model::Value)s. Both encode the same stored row to the same bytes.
//!
//! ```no_run
//! # async fn example() -> Result<(), tandem_mysql::MysqlError> {
//! use tandem_mysql::{Mysql, MysqlConfig};
//!
//! let config = MysqlConfig::new("mysql://tandem:secret@localhost:3306", 4711);
//! let mysql = Mysql::connect(&config).await?;
//! for finding in mysql.preflight().await? {
//!     println!("{}: {}", finding.setting, finding.remedy);
//! }
//! let executed = mysql.reader().await?.executed().await?;
//! println!("{executed}");
//! # Ok(())
//! # }
//! ```

mod client;
mod connect;
mod error;
mod mysql;
mod read;
mod reverse;
mod schema;
mod stream;

pub use client::{Bound, ClientPool, ClientTransaction, Commit, Forgotten, PartitionRead};
pub use connect::{MysqlConfig, MysqlTls, TlsMode, split_password};
pub use error::{BinlogError, MysqlError};
pub use mysql::Mysql;
pub use read::Reader;
pub use reverse::{Deleted, KeptVersion, PartitionOffset, ReverseSession, RowKey};
pub use schema::{Finding, Need, Severity, TableError, TableProblem};
pub use stream::BinlogStream;
