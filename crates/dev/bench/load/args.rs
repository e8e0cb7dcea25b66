//! The arguments that `cargo xtask bench gateway` passes to the load.

use std::path::PathBuf;

use clap::Parser;

#[derive(Debug, Parser)]
pub(crate) struct Args {
    #[arg(long)]
    pub(crate) gateway: String,
    #[arg(long)]
    pub(crate) mysql: String,
    #[arg(long)]
    pub(crate) database: String,
    #[arg(long)]
    pub(crate) nodes: String,
    #[arg(long)]
    pub(crate) keyspace: String,
    #[arg(long)]
    pub(crate) phase: String,
    #[arg(long)]
    pub(crate) rows: i64,
    #[arg(long)]
    pub(crate) connections: usize,
    /// Seconds of load before anything is measured, so that the servers' JVMs compile the hot code
    #[arg(long)]
    pub(crate) warm_up: f64,
    /// Seconds of each measurement
    #[arg(long)]
    pub(crate) seconds: f64,
    /// The binary of the migration
    #[arg(long)]
    pub(crate) tandem: PathBuf,
    /// The configuration of the migration
    #[arg(long)]
    pub(crate) config: PathBuf,
}
