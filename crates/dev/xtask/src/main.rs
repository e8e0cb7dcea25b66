//! `cargo xtask`: the commands for developers of Tandem.
//!
//! It compiles no driver. What needs drivers (the demo, the benches, the comparisons, the fixtures) is a
//! separate program. One cargo command builds it on demand; it is then started with the rest of the command
//! line.

mod build;
mod mutants;
mod programs;
mod servers;
mod test_cmd;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use programs::{PassedOn, Program};

/// Runs real MySQL, Kafka and Cassandra, and everything that is tested on them.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the three servers and print what to export: eval "$(cargo xtask up)"
    Up(servers::UpArgs),
    /// Stop the servers of an instance
    Down(servers::DownArgs),
    /// Show the servers of all instances
    Status(servers::StatusArgs),
    /// Migrate a live database, with faults and a report at the end
    Demo(PassedOn),
    /// Compare MySQL with Cassandra, or Tandem's events with Debezium's
    Compare(PassedOn),
    /// Run all tests against fresh servers
    Test(test_cmd::TestArgs),
    /// Measure parts of Tandem
    Bench(PassedOn),
    /// Write tables of MySQL's character sets, as MySQL converts them
    Charsets(PassedOn),
    /// Record transactions for the tests with damaged events and for fuzzing
    Seeds(PassedOn),
    /// Break one rule of the product at a time, and require that a test notices
    Mutants(mutants::MutantsArgs),
}

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(args) => servers::up(&args),
        Command::Down(args) => servers::down(&args),
        Command::Status(args) => servers::status(&args),
        Command::Demo(args) => programs::start(Program::Demo, &args),
        Command::Compare(args) => programs::start(Program::Compare, &args),
        Command::Test(args) => test_cmd::test(&args),
        Command::Bench(args) => programs::start(Program::Bench, &args),
        Command::Charsets(args) => programs::start(Program::Charsets, &args),
        Command::Seeds(args) => programs::start(Program::Seeds, &args),
        Command::Mutants(args) => mutants::mutants(&args),
    }
}
