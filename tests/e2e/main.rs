//! Tests against real servers, named by `TANDEM_MYSQL_URL`, `TANDEM_KAFKA_BROKERS` and
//! `TANDEM_CASSANDRA_NODES`. `cargo xtask test` starts them; without them the tests fail.

// A test fails by panicking. Its statements are built in the most readable way.
#![allow(clippy::unwrap_used, clippy::format_collect)]

mod capture;
mod cassandra_target;
mod checker;
mod controller;
mod convergence;
mod dead_letters;
mod debezium;
mod event_log;
mod excluded;
mod filters;
mod first_copy;
mod gateway;
mod history;
mod huge;
mod migration;
mod mysql_source;
mod native;
mod outages;
mod owners;
mod refusals;
mod registry;
mod replay;
mod resnapshot;
mod role_down;
mod rolling;
mod security;
mod support;
mod table_names;
mod tables;
