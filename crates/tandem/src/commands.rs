//! The commands, one module each.

mod check;
mod dead_letters;
mod gateways;
mod init;
mod phase;
mod resnapshot;
mod schema;
mod status;
mod table;
mod tail;
mod verify;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::Command;
use crate::config::Config;
use crate::run::roles;

/// Runs a command until it ends.
pub(crate) async fn execute(command: Command) -> Result<ExitCode> {
    let roles = command.roles();
    match command {
        Command::Init(args) => init::run(&args).await,
        Command::Check { config, json } => check::run(&Config::load(&config.config)?, json.json).await,
        Command::Schema { command } => schema::run(command).await,
        Command::Status { config, json, all } => {
            status::run(&Config::load(&config.config)?, json.json, all).await
        }
        Command::DeadLetters { command } => dead_letters::run(command).await,
        Command::Table { command } => table::run(command).await,
        Command::Gateways { command } => gateways::run(command).await,
        Command::Resnapshot(args) => resnapshot::run(&Config::load(&args.config.config)?, &args).await,
        Command::Tail(args) => tail::run(&Config::load(&args.config.config)?, &args).await,
        Command::Verify { run, full: true, json, exit_code } => {
            verify::run(&Config::load(&run.config.config)?, json.json, exit_code).await
        }
        Command::Phase { command } => phase::run(command).await,
        Command::Run(run) => {
            let config = Config::load(&run.config.config)?;
            roles::run(&config, &config.roles(), run.listen).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Capture(run)
        | Command::Apply(run)
        | Command::Backfill(run)
        | Command::Verify { run, .. }
        | Command::Reconcile(run)
        | Command::Reverse(run)
        | Command::Gateway(run)
        | Command::Controller(run) => {
            roles::run(&Config::load(&run.config.config)?, roles, run.listen).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
