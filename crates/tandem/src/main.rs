//! The `tandem` binary: command line, configuration, wiring. What it wires is in the other crates.

mod cli;
mod commands;
mod config;
mod connect;
mod role;
mod run;
mod tls;

use std::process::ExitCode;

use clap::Parser as _;

/// Of the C libraries too: librdkafka frees on one thread what it took on another, for each record.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any client does it: without this, OpenSSL frees what it holds when `main` returns, while
    // librdkafka's threads and our own still end, and now and then a finished command died of that.
    openssl::init();
    let cli = cli::Cli::parse();
    cli.log.start(cli.command.is_long_lived());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads could be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(commands::execute(cli.command));
    // A client's thread that still waits for a server must not hold the process.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
