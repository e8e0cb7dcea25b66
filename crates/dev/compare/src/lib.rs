//! Shared by the demo, the comparisons and the benches. They see Tandem from outside only: a binary with a
//! command line and `/metrics`, topics that any Kafka client can read, and two stores that answer plain
//! SELECT and plain CQL.
//!
//! Nothing here uses a crate of the product. A comparison that shared code with the product would share its
//! mistakes.
//!
//! - [`stores`] compares MySQL with Cassandra, row by row.
//! - [`debezium`] has Debezium and Tandem capture the same binlog and compares the events, field by field.
//! - [`process`] runs the `tandem` binary, stops it and kills it.
//! - [`captures`] configures Debezium and Tandem so that both capture one MySQL into one Kafka.
//! - [`topic`] reads a topic.

pub mod captures;
pub mod debezium;
pub mod process;
pub mod stores;
pub mod topic;

use anyhow::{Context, Result};

/// The async runtime of a program.
///
/// # Errors
/// If the operating system refuses a thread.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the async runtime")
}
