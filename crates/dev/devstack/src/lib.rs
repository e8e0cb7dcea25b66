//! Starts, stops and kills real servers for the demo, the tests and the benches: MySQL, Kafka and Cassandra;
//! Debezium, as a peer to compare with; and Apicurio, a schema registry.
//!
//! No container engine is involved. MySQL comes from Debian packages, the others from Maven artifacts. All
//! are unpacked once into a cache folder ([`Cache`]) and run from there as ordinary processes of the calling
//! user.
//!
//! What holds everywhere in this crate:
//!
//! - A server is *ready* only if it has answered its own protocol **and** the listening socket belongs to the
//!   process that was started. Another server on the same port is never mistaken for it.
//! - A process is identified by its id *and* its start time, so a reused id is never signalled.
//! - The state of a server (ports, process, arguments) is in `state.json` beside its data, written
//!   atomically. A later process finds the server again with [`Stack::load`]. A restart keeps the ports.
//! - Servers outlive the process that started them, except those made by an `ephemeral` function. These are
//!   killed and removed on drop, or by a later run if the owner died first.
//! - Waiting is polling with a deadline. An error names the cause, the remedy, and the end of the server's
//!   log.

mod apicurio;
mod apt;
mod cache;
mod cassandra;
mod debezium;
mod endpoints;
mod fetch;
mod instance;
mod kafka;
mod maven;
mod mysql;
mod ownership;
mod ports;
mod probe;
mod process;
mod server;
mod socket;
mod stack;
mod state;
mod tools;

use std::io::IsTerminal as _;

pub use apicurio::{Apicurio, ApicurioOptions};
pub use cache::Cache;
pub use cassandra::{Cassandra, CassandraOptions};
pub use debezium::{Debezium, DebeziumOptions};
pub use endpoints::{CASSANDRA_ENV, Endpoints, KAFKA_ENV, MYSQL_ENV};
pub use fetch::{Package, fetch};
pub use instance::{ServerStatus, down_instance, list, remove_instance};
pub use kafka::{Kafka, KafkaOptions};
pub use mysql::{Mysql, MysqlOptions};
pub use ownership::sweep_orphans;
pub use process::ProcessId;
pub use server::{Condition, Server};
pub use stack::Stack;

/// Reports progress on stderr.
pub(crate) fn say(message: &str) {
    // On a terminal, cargo may have drawn its progress bar on this line. Clear it; cargo draws it again.
    let clear = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
    eprintln!("{clear}devstack: {message}");
}
