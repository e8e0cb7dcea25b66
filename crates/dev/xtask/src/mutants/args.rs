//! What both kinds of mutants have in common: the arguments, and where they are built.

use std::path::{Path, PathBuf};

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct MutantsArgs {
    /// Only those whose file name contains this
    #[arg(long)]
    pub(super) only: Option<String>,
    /// Leave out those whose test needs MySQL, Kafka or Cassandra
    #[arg(long)]
    pub(super) without_servers: bool,
    /// Instead, let cargo-mutants change the pure crates by itself, and hold its survivors against
    /// tests/mutants/survivors.txt; --only is then a regular expression over the changes
    #[arg(long, conflicts_with = "without_servers")]
    pub(super) generated: bool,
    /// With --generated: this package only (may be given again)
    #[arg(long, requires = "generated")]
    pub(super) package: Vec<String>,
    /// With --generated: mutants tested at a time
    #[arg(long, requires = "generated", default_value_t = 1)]
    pub(super) jobs: u8,
}

/// A folder of the mutants' own, under the one where this workspace builds: their artefacts must not
/// pass for those of the working tree.
pub(super) fn folder(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("mutants")
}
