//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tandem_model::TableName;
use tracing_subscriber::EnvFilter;

use crate::cli::common::{ConfigArg, JsonArg};
use crate::cli::dead_letters::DeadLettersCommand;
use crate::cli::gateways::GatewaysCommand;
use crate::cli::phase::PhaseCommand;
use crate::cli::table::TableCommand;
use crate::role::Role;

mod common;
pub(crate) mod dead_letters;
pub(crate) mod gateways;
pub(crate) mod phase;
pub(crate) mod table;

/// What the long-lived roles log: Tandem's own doings, the libraries' troubles. The Cassandra
/// driver's warnings speak of every retry of its own.
const ROLES_LOG: &str = "info,scylla=error,mysql_async=warn,rdkafka=warn";
/// What commands log besides what they print.
const COMMANDS_LOG: &str = "warn,scylla=error";

/// Moves a live dataset from MySQL to Apache Cassandra without downtime.
///
/// A first migration: `tandem init` writes tandem.toml from MySQL's schema, `tandem schema create`
/// creates the tables in Cassandra, `tandem check` says what stands in the way, `tandem run`
/// migrates, `tandem status` says how far it is, and `tandem verify --full` compares everything.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args)]
pub(crate) struct LogArgs {
    /// How log lines are written, on stderr
    #[arg(long, global = true, env = "TANDEM_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What is logged, such as `info` or `warn,tandem_capture=debug`
    #[arg(long, global = true, env = "TANDEM_LOG", value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write a first tandem.toml, and the CQL of its tables, from a MySQL database's schema
    Init(InitArgs),
    /// Check both stores, Kafka and the mapping, and name everything that stands in the way
    Check {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Show or create the Cassandra tables of the mapping
    Schema {
        #[command(subcommand)]
        command: SchemaCommand,
    },
    /// Run every role in one process: capture, apply, backfill, verify, reconcile; and reverse, the gateway and the
    /// controller if there are [reverse], [gateway] and [controller] sections
    Run(RunArgs),
    /// Run capture: publish MySQL's changes to Kafka
    Capture(RunArgs),
    /// Run apply: write the changes in Kafka to Cassandra
    Apply(RunArgs),
    /// Run the backfill: publish the rows that were there before, then end
    Backfill(RunArgs),
    /// Compare both stores: each changed row, for ever, or every row once with --full
    Verify {
        #[command(flatten)]
        run: RunArgs,
        /// Compare every row of every table once, while changes go on, and report
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        json: JsonArg,
        /// With --full: end with status 1 if mismatches were found
        #[arg(long, requires = "full")]
        exit_code: bool,
    },
    /// Run reconcile: repair confirmed mismatches from MySQL
    Reconcile(RunArgs),
    /// Run reverse: bring what Cassandra has decided back to MySQL
    Reverse(RunArgs),
    /// Run the gateway: the data API in front of both stores
    Gateway(RunArgs),
    /// Run the controller: walks the migration through its phases, and serves the control API
    Controller(RunArgs),
    /// Look at the phase of the migration, or change it, through the controller's API
    Phase {
        #[command(subcommand)]
        command: PhaseCommand,
    },
    /// Look at the changes that could not be applied, and settle them
    DeadLetters {
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// Look at the tables that have halted, and lead them on
    Table {
        #[command(subcommand)]
        command: TableCommand,
    },
    /// Look at the gateways, and forget those that are gone
    Gateways {
        #[command(subcommand)]
        command: GatewaysCommand,
    },
    /// Let the log go on behind what capture can no longer read, and have every table copied anew
    ///
    /// For a capture that stopped for good: its binlogs were purged, an event cannot be carried (a statement without row
    /// images), or a fail-over lost transactions. A table that halted needs `tandem table rebuild` only. Without --yes it says what is missing
    /// and changes nothing.
    ///
    /// With --yes the log goes on at what MySQL has executed by now. What happened in between stands on no topic,
    /// so every copy of a table is void, as is every full verification: start the roles again, which copies all
    /// tables anew, then run `tandem verify --full` until it finds nothing. Refused while a capture publishes (stop
    /// every one: a capture that hangs is not noticed), and while Cassandra serves reads (`tandem phase back`).
    Resnapshot(ResnapshotArgs),
    /// Print the changes on the log, decoded, with their rows' values, as they come
    Tail(TailArgs),
    /// Say how far the migration is: lag, rows, backfill, mismatches, dead letters
    Status {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        json: JsonArg,
        /// Print every table and topic, not only those that are not in order
        #[arg(long)]
        all: bool,
    },
}

#[derive(Args)]
pub(crate) struct ResnapshotArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    /// Do it
    #[arg(long)]
    pub(crate) yes: bool,
    /// Why, for the record
    #[arg(long, default_value = "by hand")]
    pub(crate) reason: String,
}

#[derive(Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// Only of this table (`database.table`); may be repeated
    #[arg(long, value_name = "TABLE")]
    pub(crate) table: Vec<TableName>,
    /// Where to begin: `beginning`, `end`, or a version
    #[arg(long, value_name = "PLACE", default_value = "end")]
    pub(crate) from: TailStart,
    /// End after so many changes
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) count: Option<u64>,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TailStart {
    /// With what the log still holds.
    Beginning,
    /// With what comes from now on.
    End,
    /// With the first change of this version or a higher one.
    Version(i64),
}

impl std::str::FromStr for TailStart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => Ok(Self::Beginning),
            "end" => Ok(Self::End),
            number => number
                .parse()
                .map(Self::Version)
                .map_err(|_| "it is `beginning`, `end`, or a version (microseconds since 1970)".to_owned()),
        }
    }
}

#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// Where to serve /metrics, /healthz and /readyz, instead of [http] listen
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Args)]
pub(crate) struct InitArgs {
    /// MySQL, as mysql://user:password@host:3306. The password is written to a file of its own, which only you
    /// may read
    #[arg(long, env = "TANDEM_MYSQL_URL", hide_env_values = true)]
    pub(crate) mysql_url: String,
    /// Kafka's brokers, as host:9092,host:9092
    #[arg(long, env = "TANDEM_KAFKA_BROKERS")]
    pub(crate) kafka_brokers: String,
    /// Cassandra's contact points, as host:9042,host:9042
    #[arg(long, env = "TANDEM_CASSANDRA_NODES", value_delimiter = ',')]
    pub(crate) cassandra_nodes: Vec<String>,
    /// The MySQL database to migrate
    #[arg(long)]
    pub(crate) database: String,
    /// Leave a table of it out; may be given several times
    #[arg(long, value_name = "TABLE")]
    pub(crate) exclude: Vec<String>,
    /// The Cassandra keyspace, by default the database's name in small letters
    #[arg(long)]
    pub(crate) keyspace: Option<String>,
    /// The first part of the names of all topics and groups
    #[arg(long, default_value = "tandem")]
    pub(crate) prefix: String,
    /// Where to write; the CQL goes beside it as schema.cql
    #[arg(long, default_value = "tandem.toml", value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Overwrite what is there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Subcommand)]
pub(crate) enum SchemaCommand {
    /// Print the CQL of the keyspace's tables
    Show {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Create the keyspace and the tables that are not there, and make them this migration's; change no table that is
    /// there
    Create {
        #[command(flatten)]
        config: ConfigArg,
        /// Also make tables this migration's that hold rows and belong to nobody. Rows that MySQL does not have are
        /// deleted once a full verification has found them
        #[arg(long)]
        adopt: bool,
        /// Also make tables this migration's that belong to the migration with this kafka.prefix, which must have ended
        #[arg(long, value_name = "PREFIX")]
        take_over: Option<String>,
    },
}

impl Command {
    /// Whether it runs roles until it is told to stop.
    pub(crate) fn is_long_lived(&self) -> bool {
        match self {
            Self::Run(_)
            | Self::Capture(_)
            | Self::Apply(_)
            | Self::Backfill(_)
            | Self::Reconcile(_)
            | Self::Reverse(_)
            | Self::Gateway(_)
            | Self::Controller(_) => true,
            Self::Verify { full, .. } => !full,
            Self::Init(_)
            | Self::Check { .. }
            | Self::Schema { .. }
            | Self::Phase { .. }
            | Self::DeadLetters { .. }
            | Self::Table { .. }
            | Self::Gateways { .. }
            | Self::Resnapshot(_)
            | Self::Tail(_)
            | Self::Status { .. } => false,
        }
    }

    /// The roles that it runs, if it is one that runs any. Reverse, the gateway and the controller of `run` are the
    /// configuration's to ask for.
    pub(crate) fn roles(&self) -> &'static [Role] {
        match self {
            Self::Run(_) => &Role::OF_EVERY_RUN,
            Self::Capture(_) => &[Role::Capture],
            Self::Apply(_) => &[Role::Apply],
            Self::Backfill(_) => &[Role::Backfill],
            Self::Verify { full: false, .. } => &[Role::Verify],
            Self::Reconcile(_) => &[Role::Reconcile],
            Self::Reverse(_) => &[Role::Reverse],
            Self::Gateway(_) => &[Role::Gateway],
            Self::Controller(_) => &[Role::Controller],
            Self::Verify { .. }
            | Self::Init(_)
            | Self::Check { .. }
            | Self::Schema { .. }
            | Self::Phase { .. }
            | Self::DeadLetters { .. }
            | Self::Table { .. }
            | Self::Gateways { .. }
            | Self::Resnapshot(_)
            | Self::Tail(_)
            | Self::Status { .. } => &[],
        }
    }
}

impl LogArgs {
    /// Starts logging to stderr.
    pub(crate) fn start(&self, long_lived: bool) {
        let default = if long_lived { ROLES_LOG } else { COMMANDS_LOG };
        let filter = EnvFilter::new(self.log.as_deref().unwrap_or(default));
        let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => logger.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
            LogFormat::Json => logger.json().init(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn long_lived_commands_are_those_with_roles() {
        for arguments in [
            &["run"][..],
            &["capture"],
            &["apply"],
            &["backfill"],
            &["reconcile"],
            &["gateway"],
            &["controller"],
            &["phase", "status"],
            &["phase", "auto", "on"],
            &["verify"],
            &["verify", "--full"],
            &["status"],
            &["tail", "--from", "17"],
            &["check"],
            &["dead-letters", "list"],
            &["table", "status"],
            &["table", "resume", "d.t"],
            &["gateways", "list"],
            &["gateways", "forget", "a:80"],
            &["dead-letters", "retry", "t.changes/0/17"],
            &["schema", "show"],
        ] {
            let cli = Cli::try_parse_from([&["tandem"], arguments].concat()).unwrap();
            assert_eq!(cli.command.is_long_lived(), !cli.command.roles().is_empty(), "{arguments:?}");
        }
    }
}
