//! The `tandem` binary: command line, configuration, and wiring of the other crates.

mod cli;
mod commands;
mod config;
mod connect;
mod remedy;
mod role;
mod run;
mod tls;

use std::process::ExitCode;

use clap::Parser as _;

/// The allocator, also for the C libraries. For each record, librdkafka frees memory on another thread than the one that
/// allocated it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // This must run before any client initialises OpenSSL. Otherwise OpenSSL frees its state when `main` returns, while
    // librdkafka's threads and ours are still ending. That occasionally crashed a finished command.
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
    // A client's thread that still waits for a server must not keep the process alive.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(remedy) = remedy::of(&error) {
                eprintln!("  remedy: {remedy}");
            }
            ExitCode::FAILURE
        }
    }
}
