//! The arguments of `tandem phase`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::common::{ConfigArg, JsonArg};

#[derive(Subcommand)]
pub(crate) enum PhaseCommand {
    /// Show the phase, and every gate before the next with its numbers
    Status(PhaseArgs),
    /// Go on to the next phase, or the canary's next percentage, if every gate is met
    Advance(OrderArgs),
    /// Go back to the phase before, or the canary's percentage before; needs no gate
    Back(OrderArgs),
    /// Let the controller take no step by itself, neither forth nor back
    Pause(OrderArgs),
    /// End a pause
    Resume(OrderArgs),
    /// Let the controller go on by itself, or not
    Auto {
        /// Whether it goes on by itself
        #[arg(value_enum)]
        on: OnOff,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Show who changed the phase, when and why; with --json also what was measured then
    History(PhaseArgs),
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum OnOff {
    On,
    Off,
}

#[derive(Args)]
pub(crate) struct PhaseArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
    /// A controller, instead of [controller] urls or listen; may be given several times
    #[arg(long, value_name = "https://HOST:PORT")]
    pub(crate) url: Vec<String>,
    /// The CA of the controllers' certificates, as PEM, instead of [controller] ca
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Where the token is; by default in the environment variable TANDEM_CONTROLLER_TOKEN
    #[arg(long, value_name = "env:NAME|file:PATH")]
    pub(crate) token: Option<String>,
}

#[derive(Args)]
pub(crate) struct OrderArgs {
    #[command(flatten)]
    pub(crate) args: PhaseArgs,
    /// Why, for the audit trail
    #[arg(long, default_value = "by hand")]
    pub(crate) reason: String,
}
