//! The shared parts of the end-to-end tests: servers, a migration for each test, processes, requests, and one
//! way to wait for an event.

mod certificates;
mod eventually;
mod http;
mod kafka;
mod link;
mod migration;
mod mysql;
mod process;
mod samples;
mod servers;

pub(crate) use certificates::{Authority, Identity, SelfSigned};
pub(crate) use eventually::{MINUTE, Probe, eventually};
pub(crate) use http::{Answer, free_port, http, silent_clients, until_readyz};
pub(crate) use kafka::{control_record, phase_record, read_to_end};
pub(crate) use link::{Fault, Link};
pub(crate) use migration::{Migration, captured};
pub(crate) use mysql::{connect, executed, host_of, own_server, random_server_id};
pub(crate) use process::{Finished, Running, finish};
pub(crate) use samples::{ORDERS, ORDERS_MAPPING, T, T_MAPPING, T_WITH_TEXT};
pub(crate) use servers::{
    COMPARE_BIN, Servers, TANDEM_BIN, brokers, full, mysql_url, nodes, required, unique_id,
};
