//! The arguments of both kinds of mutants, and the folder where they are built.

use std::path::{Path, PathBuf};

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct MutantsArgs {
    /// Only mutants whose file name contains this
    #[arg(long)]
    pub(super) only: Option<String>,
    /// Leave out mutants whose test needs MySQL, Kafka or Cassandra
    #[arg(long)]
    pub(super) without_servers: bool,
    /// Instead, let cargo-mutants change the pure crates, and compare its survivors with
    /// tests/mutants/survivors.txt; --only is then a regular expression over the changes
    #[arg(long, conflicts_with = "without_servers")]
    pub(super) generated: bool,
    /// With --generated: this package only (may be given again)
    #[arg(long, requires = "generated")]
    pub(super) package: Vec<String>,
    /// With --generated: the number of mutants tested in parallel
    #[arg(long, requires = "generated", default_value_t = 1)]
    pub(super) jobs: u8,
}

/// A separate folder below the workspace's build folder. So the mutants' artefacts are never taken for those
/// of the working tree.
pub(super) fn folder(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("mutants")
}
