//! Tests against real servers, named by `TANDEM_MYSQL_URL`, `TANDEM_KAFKA_BROKERS` and
//! `TANDEM_CASSANDRA_NODES`: `cargo xtask test` starts them.

// A test fails by panicking, and builds its statements as it reads best.
#![allow(clippy::unwrap_used, clippy::format_collect)]

mod capture;
mod cassandra_target;
mod controller;
mod convergence;
mod event_log;
mod filters;
mod gateway;
mod migration;
mod mysql_source;
mod refusals;
mod security;
mod support;
