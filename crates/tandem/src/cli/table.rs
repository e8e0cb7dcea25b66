//! The arguments of `tandem table`.

use clap::{Args, Subcommand};
use tandem_model::TableName;

use crate::cli::common::{ConfigArg, JsonArg};

#[derive(Subcommand)]
pub(crate) enum TableCommand {
    /// Show the tables that are not live, why, and what leads on
    Status(StatusArgs),
    /// Add a table: capture takes it up, it is copied and verified, and the others stay in their phase
    ///
    /// Write its section into tandem.toml and create its targets first (`tandem schema create`), then start the roles with it,
    /// one after the other. Until the table is live, MySQL serves its reads. This command is optional for a new table:
    /// capture does the same when it first starts with it. A table that was removed needs it.
    Add(TableArgs),
    /// Take a table out: it is no longer captured, MySQL serves its reads, and its rows stay in Cassandra
    ///
    /// Take its section out of tandem.toml when you next start the roles. Until then it counts as a table that is not live.
    Remove(OrderArgs),
    /// Halt a table: its changes wait on the log, its reads come from MySQL, and the others go on
    Halt(OrderArgs),
    /// Apply the changes of a halted table again, from the first one that was not applied
    ///
    /// Remove the cause first: correct the mapping and start the roles again, or restore the target. The changes waited on
    /// the log. Apply replays them beside new ones, then verify compares the table, and then it is live.
    Resume(TableArgs),
    /// Copy a table again, and verify it, while the others go on
    ///
    /// For a table that the log lacks changes of: after a TRUNCATE, a RENAME or a DROP, or because it was taken out of
    /// tandem.toml and put back. Capture takes it up, the backfill copies it with NULLs written, verify finds the rows that
    /// vanished, and then it is live. Until then its reads come from MySQL.
    Rebuild(OrderArgs),
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    /// Show every table, not only those that are not live
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Args)]
pub(crate) struct TableArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    /// The table, as `database.table`
    #[arg(value_name = "TABLE")]
    pub(crate) table: TableName,
}

#[derive(Args)]
pub(crate) struct OrderArgs {
    #[command(flatten)]
    pub(crate) of: TableArgs,
    /// Why, for the record
    #[arg(long, default_value = "by hand")]
    pub(crate) reason: String,
}
