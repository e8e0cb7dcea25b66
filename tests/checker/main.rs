//! The checker: proves from the clients' journals and both stores that no acknowledged write was lost, and
//! that no client read anything older than its token requires.
//!
//! It shares no code with Tandem. It reads MySQL with plain SELECT and Cassandra with plain CQL, and relies
//! only on the clients' journals. The keys and values in its output are those of the clients.

mod journal;
mod judge;
mod stores;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

use judge::Verdict;

/// The number of violations that are printed.
const SHOWN: usize = 50;

/// Proves from journals and stores that no acknowledged write was lost and no read was stale.
///
/// A journal has one JSON object per line: client, began_us, ended_us, entity, key (texts), op (write or
/// read), value (written or read; null: no row), outcome (ok, failed, unknown), token (from a write's
/// response or a read's request header) and served_by.
#[derive(Debug, Parser)]
#[command(name = "tandem-checker")]
struct Arguments {
    /// The addresses of the stores, and the tables of each entity (JSON)
    #[arg(long, value_name = "FILE")]
    stores: PathBuf,
    /// Write the verdict as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The clients' journals
    #[arg(required = true, value_name = "JOURNAL")]
    journals: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(verdict) if verdict.violations.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Verdict> {
    let operations = journal::read(&arguments.journals)?;
    let stores = stores::Stores::load(&arguments.stores)?;
    let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
    let tables = runtime.block_on(stores.read(&journal::keys(&operations)))?;
    let verdict = judge::judge(&operations, &tables);
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&verdict.json()).context("write the verdict as JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    println!("{verdict}");
    for violation in verdict.violations.iter().take(SHOWN) {
        println!("  {violation}");
    }
    if verdict.violations.len() > SHOWN {
        println!("  and {} more", verdict.violations.len() - SHOWN);
    }
    Ok(verdict)
}
