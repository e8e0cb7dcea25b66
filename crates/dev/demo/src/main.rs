//! `cargo xtask demo`: one command migrates a real, live database from MySQL to Cassandra and shows
//! that both hold the same in the end. `cargo xtask compare` is its last step alone.
//!
//! Tandem is a black box here: a binary with a command line, a configuration file and `/metrics`.
//! Nothing in this program uses a crate of the product.

mod args;
mod clients;
mod corrupt;
mod dump;
mod names;
mod processes;
mod report;
mod rollout;
mod run;
mod sample;
mod traffic;
mod ui;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

/// Where the build goes: `CARGO_TARGET_DIR`, or `target` in the workspace's folder.
fn target_folder() -> PathBuf {
    let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target"));
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

fn main() -> ExitCode {
    run::command(&args::DemoArgs::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
