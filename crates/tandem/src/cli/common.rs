//! Arguments that several commands have.

use std::path::PathBuf;

use clap::Args;

#[derive(Args)]
pub(crate) struct ConfigArg {
    /// The configuration
    #[arg(long, short, default_value = "tandem.toml", value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Args)]
pub(crate) struct JsonArg {
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
