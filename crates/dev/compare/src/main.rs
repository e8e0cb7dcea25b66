//! `cargo xtask compare`: compares both stores, or both captures, with code that shares nothing with Tandem.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tandem_compare::debezium::{self, DebeziumArgs};
use tandem_compare::stores::{self, StoresArgs};

/// Compares MySQL with Cassandra, row by row; or Tandem's change events with Debezium's.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask compare",
    bin_name = "cargo xtask compare",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    stores: Option<StoresArgs>,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Capture the same binlog with Debezium and with Tandem, and compare the events field by field
    Debezium(DebeziumArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match (&cli.other, &cli.stores) {
        (Some(Other::Debezium(args)), _) => debezium::command(args),
        (None, Some(args)) => stores::command(args),
        (None, None) => {
            Err(anyhow::anyhow!("--config is missing: it names the tandem.toml that says what goes where"))
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
