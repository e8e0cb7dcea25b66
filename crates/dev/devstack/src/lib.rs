//! Starts, stops and kills real MySQL, Kafka and Cassandra for demo, tests and benches; Debezium, to
//! be compared with; and Apicurio, a schema registry.
//!
//! No container engine is involved: MySQL comes from Debian packages, Kafka and Cassandra from
//! Maven artifacts, all of them unpacked once into a cache folder ([`Cache`]) and run from there as
//! ordinary processes of the calling user.
//!
//! What holds everywhere in this crate:
//!
//! - A server is *ready* only when it answered its own protocol **and** the listening socket belongs
//!   to the very process that was started; another server on the same port never passes for it.
//! - A process is named by its id *and* its start time, so a reused id is never signalled.
//! - Every server's state (ports, process, arguments) is in `state.json` beside its data, written
//!   atomically; a later process finds it again with [`Stack::load`], and a restart keeps the ports.
//! - Servers outlive the process that started them, except those made by an `ephemeral` function:
//!   these are killed and removed on drop, and swept by a later run if the owner died before.
//! - Waiting is polling with a deadline. An error names the cause, what to do, and the end of the
//!   server's log.

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
pub use cassandra::Cassandra;
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

/// Tells the user on stderr what is going on, so that nobody looks at a silent screen.
pub(crate) fn say(message: &str) {
    // On a terminal cargo may have drawn its progress bar on this line: that is cleared, and cargo draws it again.
    let clear = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
    eprintln!("{clear}devstack: {message}");
}
