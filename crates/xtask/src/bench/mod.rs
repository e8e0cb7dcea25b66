//! `bench`: figures of the decoder and of capture, on binlogs made by a real MySQL, and of the gateway.

mod capture;
mod decode;
mod drain;
mod gateway;
mod invoices;
mod usage;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Decode recorded rows of a 17-column invoice table: Tandem, mysql_common's rows(), the raw stream
    Decode(decode::DecodeArgs),
    /// Drain long binlogs into Kafka, Debezium and Tandem one after the other
    Capture(capture::CaptureArgs),
    /// What the gateway adds to the stores' own time: gets and puts by phase, at half of its
    /// greatest rate and with the machine's cores half busy
    Gateway(gateway::GatewayArgs),
}

pub(crate) fn bench(args: &BenchArgs) -> Result<ExitCode> {
    match &args.what {
        What::Decode(args) => decode::decode(args),
        What::Capture(args) => capture::capture(args),
        What::Gateway(args) => gateway::gateway(args),
    }
}
