//! The arguments of `tandem dead-letters`.

use clap::{Args, Subcommand, ValueEnum};
use tandem_model::TableName;
use tandem_wire::control::RecordPlace;

use crate::cli::common::{ConfigArg, JsonArg};

#[derive(Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List the open dead letters, the oldest first
    List(ListArgs),
    /// Show one dead letter: its record, and why it could not be applied
    Show(ShowArgs),
    /// Read the rows from MySQL again and write them; what succeeds is settled
    ///
    /// Reconcile does this by itself, at once when a row changes and otherwise now and then. The rows must be correct in
    /// MySQL, or the mapping must be able to carry them now. Reverse tries its own dead letters again by itself.
    Retry(RetryArgs),
    /// Give dead letters up: Cassandra, or MySQL, stays without their changes
    ///
    /// Reads of the rows may come from Cassandra again, and checks include them. A full verification counts only if it
    /// began afterwards.
    Discard(DiscardArgs),
}

/// Whose dead letters a command is about.
#[derive(Args)]
pub(crate) struct OfArg {
    /// Whose: apply's, which Cassandra lacks, or reverse's, which MySQL lacks
    #[arg(long, value_enum, default_value_t = Of::Apply)]
    pub(crate) of: Of,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Of {
    Apply,
    Reverse,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) of: OfArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    /// Only of this table (`database.table`)
    #[arg(long, value_name = "TABLE")]
    pub(crate) table: Option<TableName>,
    /// List those that were discarded instead
    #[arg(long)]
    pub(crate) discarded: bool,
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) of: OfArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    /// The dead letter, as `list` prints it
    #[arg(value_name = "TOPIC/PARTITION/OFFSET")]
    pub(crate) place: RecordPlace,
    /// Show the values of the row, too
    #[arg(long)]
    pub(crate) values: bool,
}

#[derive(Args)]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Args)]
pub(crate) struct DiscardArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) of: OfArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    /// Why, for the record
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) which: Which,
}

/// The dead letters that a command is about.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// These dead letters, as `list` prints them
    #[arg(value_name = "TOPIC/PARTITION/OFFSET")]
    pub(crate) places: Vec<RecordPlace>,
    /// All of this table (`database.table`)
    #[arg(long, value_name = "TABLE")]
    pub(crate) table: Option<TableName>,
    /// All
    #[arg(long)]
    pub(crate) all: bool,
}
