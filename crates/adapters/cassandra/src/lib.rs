//! The Cassandra adapter: timestamped writes, reads with write times, token scans and schema checks.
//!
//! This is the only crate that uses the driver. It passes values through as the bytes of CQL's binary
//! protocol (native protocol v4, section 6) and never decodes them.
//!
//! Any write may be repeated, delayed or run concurrently with any other, because Cassandra keeps the newest
//! cell. Every write carries its version as `USING TIMESTAMP`, on the statement and never on a batch. This is
//! why [`Target::write`] may retry without limit.
//!
//! The exceptions are tables of Tandem's own whose rows change by compare-and-set, see [`Conditional`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tandem_cassandra::{CassandraConfig, Target};
//!
//! let config = CassandraConfig::new(vec!["localhost:9042".to_owned()], "shop");
//! let target = Target::connect(&config).await?;
//! if let Some(table) = target.describe("orders").await? {
//!     target.prepare(&[table]).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod conditional;
mod connect;
mod error;
mod read;
mod retry;
mod schema;
mod statement;
mod write;

pub use conditional::{Cells, Conditional, Freshness, KeyedCells, RowScan, Swap};
pub use connect::{CassandraConfig, Consistency, Target};
pub use error::{ConnectError, FailedWrite, ReadError, Rejection, SchemaError, WriteError};
pub use read::{Scan, Slice, SliceBound, TokenRange};
pub use schema::{Finding, Owner, TableLimits};

#[cfg(test)]
mod tests {
    use super::*;

    /// Callers spawn all of these futures.
    #[test]
    fn futures_can_be_spawned() {
        fn send<F: Future + Send>(_: impl Fn(Target) -> F) {}
        send(|t| async move { t.write(vec![]).await });
        send(|t| async move { t.read("t", &[]).await });
        send(|t| async move { t.prepare(&[]).await });
        send(|t| async move { t.check_schema(&[]).await });
        send(|t| async move { t.scan_keys("t", TokenRange::WHOLE).ok()?.next_page().await.ok() });
        send(|_| async move { Target::connect(&CassandraConfig::new(vec![], "k")).await });
    }
}
