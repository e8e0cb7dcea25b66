//! The Cassandra adapter: prepared timestamped writes, reads with writetimes, token scans, schema.
//!
//! The only crate that knows the driver. Values pass through it as the bytes of CQL's binary
//! protocol (native protocol v4, section 6) and are never decoded here.
//!
//! Every write carries its version as `USING TIMESTAMP`, on the statement and never on a batch, so
//! any write may be repeated, delayed or run beside any other: Cassandra keeps the newest cell.
//! That is why [`Target::write`] may retry for ever.

mod connect;
mod error;
mod read;
mod retry;
mod schema;
mod statement;
mod write;

pub use connect::{CassandraConfig, Consistency, Target};
pub use error::{ConnectError, FailedWrite, ReadError, Rejection, SchemaError, WriteError};
pub use read::{Scan, Slice, SliceBound, TokenRange};
pub use schema::Finding;

#[cfg(test)]
mod tests {
    use super::*;

    /// Callers spawn all of these.
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
