//! The way of native writes back to MySQL.
//!
//! One transaction makes rows what Cassandra has decided, and keeps beside them the version of each row and the offset up to
//! which each partition of the log is applied. So a record counts once, however often and in whatever order it comes, and a
//! MySQL that has failed over and lost transactions says itself what it lacks.

mod session;
mod sql;

pub use session::{Deleted, KeptVersion, PartitionOffset, ReverseSession, RowKey};
