//! The arguments of `tandem gateways`.

use clap::{Args, Subcommand};

use crate::cli::common::{ConfigArg, JsonArg};

#[derive(Subcommand)]
pub(crate) enum GatewaysCommand {
    /// List the gateways that have announced themselves: what each acts on, and when it was last heard
    List(ListArgs),
    /// Take back the announcements of a gateway that is gone for good, so that nobody waits for it
    ///
    /// A gateway that ends by itself is taken back by itself. One that was killed, or whose machine is gone, is silent: it may
    /// still serve clients, so the gates wait for it. A gateway that still runs announces itself again within a second.
    Forget(ForgetArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

#[derive(Args)]
pub(crate) struct ForgetArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// The gateway's name, as `list` prints it
    pub(crate) name: String,
}
