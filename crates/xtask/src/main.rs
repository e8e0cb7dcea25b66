//! `cargo xtask`: everything a developer runs around Tandem.

mod bench;
mod charsets;
mod demo;
mod differential;
mod mutants;
mod peers;
mod seeds;
mod stack;
mod test_cmd;
mod topic;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Runs real MySQL, Kafka and Cassandra, and the tests against them.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the three servers and print what to export: eval "$(cargo xtask up)"
    Up(stack::UpArgs),
    /// Stop the servers of an instance
    Down(stack::DownArgs),
    /// Show the servers of all instances
    Status(stack::StatusArgs),
    /// Migrate a live database before your eyes
    Demo(demo::DemoArgs),
    /// Compare MySQL with Cassandra by plain SELECT and plain CQL
    Compare(demo::CompareArgs),
    /// Run all tests against fresh servers
    Test(test_cmd::TestArgs),
    /// Measure parts of Tandem
    Bench(bench::BenchArgs),
    /// Write down what MySQL's character sets mean, as MySQL converts them
    Charsets(charsets::CharsetsArgs),
    /// Record transactions for the tests with damaged events and for fuzzing
    Seeds,
    /// Break one rule of the product at a time, and require that a test notices
    Mutants(mutants::MutantsArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(args) => stack::up(&args),
        Command::Down(args) => stack::down(&args),
        Command::Status(args) => stack::status(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Compare(args) => demo::compare(&args),
        Command::Test(args) => test_cmd::test(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Charsets(args) => charsets::charsets(&args),
        Command::Seeds => seeds::seeds(),
        Command::Mutants(args) => mutants::mutants(&args),
    }
}
