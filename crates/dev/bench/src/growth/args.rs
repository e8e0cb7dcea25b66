//! The arguments of `bench growth`.

use std::path::PathBuf;

use clap::Args;
use tandem_compare::captures::Layout;

#[derive(Debug, Args)]
pub(crate) struct GrowthArgs {
    /// The numbers of tables to measure
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,500")]
    pub(super) tables: Vec<u32>,
    /// Also measure ten tables while MySQL's executed GTID set has so many runs
    #[arg(long, value_delimiter = ',')]
    pub(super) gtid_runs: Vec<u32>,
    /// Transactions a second of the fixed load, each of four rows
    #[arg(long, default_value_t = 100)]
    pub(super) rate: u32,
    /// Seconds of the fixed load
    #[arg(long, default_value_t = 30)]
    pub(super) seconds: u64,
    /// Seconds of each attempt to find the highest rate; 0 leaves it out
    #[arg(long, default_value_t = 10)]
    pub(super) step_seconds: u64,
    /// Whether the tables share topics or have topics of their own
    #[arg(long, value_enum, default_value_t = Layout::Shared)]
    pub(super) layout: Layout,
    /// Partitions of each change topic
    #[arg(long, default_value_t = 6)]
    pub(super) partitions: u32,
    /// Minutes of the fixed load before it is measured
    #[arg(long, default_value_t = 0)]
    pub(super) soak_minutes: u64,
    /// Use this tandem binary instead of the one that is built (also: TANDEM_BIN)
    #[arg(long, value_name = "PATH")]
    pub(super) bin: Option<PathBuf>,
    /// Write the figures to this file as well
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}
