//! `tandem check`: shows every problem of the setup at once.

use std::process::ExitCode;

use anyhow::Result;

use crate::config::Config;
use crate::connect::servers::{inspect, inspect_acls};

/// Checks and prints. Returns status 1 if something must be fixed first.
pub(crate) async fn run(config: &Config, json: bool) -> Result<ExitCode> {
    let found = inspect(config, &config.roles()).await?;
    let mut problems = found.problems;
    if found.admin.is_some() {
        problems.extend(inspect_acls(&config.kafka()?).await);
    }
    let fatal = problems.iter().filter(|p| p.fatal).count();
    if json {
        let report = serde_json::json!({ "ready": fatal == 0, "problems": problems });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for problem in &problems {
            eprintln!("{}: {problem}", if problem.fatal { "error" } else { "warning" });
        }
        if fatal == 0 {
            println!("ready: {} tables can be migrated", config.table.len());
        } else {
            eprintln!("not ready: {fatal} to fix");
        }
    }
    Ok(if fatal == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
