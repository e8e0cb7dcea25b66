//! The demo's arguments.

use std::path::PathBuf;

/// Migrates a live database from MySQL to Cassandra, from the first row to the read switch. Clients use two
/// gateways, old jobs write to MySQL directly, processes are killed, rows are corrupted. Ends with `equal` or
/// a list of differences, and with a checker's verdict on the clients' journals.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo")]
pub(crate) struct DemoArgs {
    /// Invoices in the sample database
    #[arg(long, default_value_t = 10_000, conflicts_with = "sql")]
    pub(crate) rows: u64,
    /// Rows a second that the traffic changes; 0: no traffic
    #[arg(long, default_value_t = 200)]
    pub(crate) rate: u64,
    /// Write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Keep tandem and a little traffic running at the end, until Ctrl-C
    #[arg(long)]
    pub(crate) stay: bool,
    /// Use this SQL dump instead of the sample database
    #[arg(long, value_name = "FILE", requires = "database")]
    pub(crate) sql: Option<PathBuf>,
    /// The database that the dump fills
    #[arg(long, value_name = "NAME", requires = "sql")]
    pub(crate) database: Option<String>,
    /// Do not kill the process in the middle of the backfill
    #[arg(long)]
    pub(crate) no_kill: bool,
    /// Leave the servers that the demo started running, with their data
    #[arg(long)]
    pub(crate) keep_data: bool,
    /// Use this tandem binary instead of the one that is built (also: TANDEM_BIN)
    #[arg(long, value_name = "PATH")]
    pub(crate) bin: Option<PathBuf>,
}
