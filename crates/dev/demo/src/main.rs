//! `cargo xtask demo`: one command migrates a real, live database from MySQL to Cassandra and shows that both
//! hold the same rows in the end. `cargo xtask compare` is its last phase alone.
//!
//! Tandem is a black box here: a binary with a command line, a configuration file and `/metrics`. This
//! program uses no crate of the product.

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

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    run::command(&args::DemoArgs::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
