//! `up`, `down` and `status`.
//!
//! stdout has only what a program reads (exports, the table, JSON). Messages go to stderr.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use tandem_devstack::{Endpoints, ServerStatus, Stack, down_instance, list, remove_instance};

const DEFAULT_NAME: &str = "dev";

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Name of the instance; several can run side by side
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Name of the instance
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Delete its data as well
    #[arg(long)]
    remove: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn up(args: &UpArgs) -> Result<ExitCode> {
    let endpoints = Endpoints::of(Stack::up(&args.name)?);
    for (name, value) in endpoints.env() {
        println!("export {name}={value}");
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn down(args: &DownArgs) -> Result<ExitCode> {
    if args.remove {
        let was_there = remove_instance(&args.name)?;
        let what = if was_there { "stopped and removed" } else { "did not exist" };
        eprintln!("instance {:?} {what}", args.name);
    } else {
        down_instance(&args.name)?;
        eprintln!("instance {:?} stopped; its data is kept", args.name);
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn status(args: &StatusArgs) -> Result<ExitCode> {
    let rows = list()?;
    if args.json {
        let rows: Vec<_> = rows.iter().map(row_as_json).collect();
        println!("{}", serde_json::to_string_pretty(&rows).context("write JSON")?);
    } else if rows.is_empty() {
        eprintln!("no instances: start one with `cargo xtask up`");
    } else {
        print!("{}", table(&rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn row_as_json(row: &ServerStatus) -> serde_json::Value {
    json!({
        "instance": row.instance,
        "server": row.server,
        "pid": row.pid,
        "port": row.port,
        "condition": row.condition.to_string(),
        "uptime_seconds": row.uptime.map(|u| u.as_secs()),
    })
}

/// One line for each server, in aligned columns.
fn table(rows: &[ServerStatus]) -> String {
    let header = ["instance", "server", "pid", "port", "condition", "uptime"].map(str::to_owned);
    let row = |row: &ServerStatus| {
        [
            row.instance.clone(),
            row.server.to_owned(),
            row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            row.port.to_string(),
            row.condition.to_string(),
            row.uptime.map_or_else(|| "-".to_owned(), human),
        ]
    };
    let lines: Vec<[String; 6]> = [header].into_iter().chain(rows.iter().map(row)).collect();
    let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..6).map(width).collect();
    let padded = |line: &[String; 6]| {
        let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(padded).collect()
}

/// "42s", "7m05s", "3h12m", "2d04h".
fn human(time: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match time.as_secs() {
        s @ 0..MINUTE => format!("{s}s"),
        s @ MINUTE..HOUR => format!("{}m{:02}s", s / MINUTE, s % MINUTE),
        s @ HOUR..DAY => format!("{}h{:02}m", s / HOUR, s % HOUR / MINUTE),
        s => format!("{}d{:02}h", s / DAY, s % DAY / HOUR),
    }
}

#[cfg(test)]
mod tests {
    use tandem_devstack::Condition;

    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |instance: &str, port| ServerStatus {
            instance: instance.to_owned(),
            server: "MySQL",
            pid: None,
            port,
            condition: Condition::Down,
            uptime: None,
        };
        let text = table(&[row("dev", 7), row("a-longer-name", 15_001)]);
        let places: Vec<_> = text.lines().map(|line| line.find("MySQL").or(line.find("server"))).collect();
        assert_eq!(places, [Some(15); 3], "{text}");
    }

    #[test]
    fn durations_are_short() {
        let texts = [42, 425, 11_520, 187_200].map(|s| human(Duration::from_secs(s)));
        assert_eq!(texts, ["42s", "7m05s", "3h12m", "2d04h"]);
    }
}
