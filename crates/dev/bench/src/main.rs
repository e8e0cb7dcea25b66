//! `cargo xtask bench`: measures the decoder and capture, on binlogs from a real MySQL, the gateway, and a whole
//! migration.
//!
//! Everything that is measured is built with optimisation, in one cargo command, before anything starts.

mod capture;
mod decode;
mod drain;
mod gateway;
mod growth;
mod invoices;
mod reads;
mod stage;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures parts of Tandem.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Decode recorded rows of a 17-column invoice table: Tandem, mysql_common's rows(), the raw stream
    Decode(decode::DecodeArgs),
    /// Drain long binlogs into Kafka, Debezium and Tandem one after the other
    Capture(capture::CaptureArgs),
    /// Measure the time that the gateway adds to the stores' own: gets and puts by phase, at half of its
    /// highest rate and with the machine's cores half busy
    Gateway(gateway::GatewayArgs),
    /// Measure how many reads Cassandra answers of clients that write half of the time and send their tokens
    Reads(reads::ReadsArgs),
    /// Measure a whole migration under the same load with 1, 10, 100 and 500 tables
    Growth(growth::GrowthArgs),
}

fn main() -> ExitCode {
    let outcome = match &Cli::parse().what {
        What::Decode(args) => decode::decode(args),
        What::Capture(args) => capture::capture(args),
        What::Gateway(args) => gateway::gateway(args),
        What::Reads(args) => reads::reads(args),
        What::Growth(args) => growth::growth(args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
