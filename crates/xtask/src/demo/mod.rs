//! `cargo xtask demo`: one command migrates a real, live database from MySQL to Cassandra and shows
//! that both hold the same in the end. `cargo xtask compare` is its last step alone.
//!
//! Tandem is a black box here: a binary with a command line, a configuration file and `/metrics`.
//! Nothing in this module uses a crate of Tandem beside `tandem-devstack`.

mod args;
mod canonical;
mod clients;
mod clients_table;
mod compare;
mod config;
mod corrupt;
mod diff;
mod dump;
mod dump_traffic;
mod fleet;
mod metrics;
mod place;
mod plausible;
pub(crate) mod process;
mod report;
mod run;
mod sample;
mod sample_schema;
mod sample_traffic;
mod stores;
mod story;
mod traffic;
mod tried;
mod ui;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) use args::DemoArgs;
pub(crate) use compare::{CompareArgs, command as compare};
pub(crate) use process::{Tandem, binary};
pub(crate) use run::command as demo;
pub(crate) use stores::mysql;

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the async runtime")
}
