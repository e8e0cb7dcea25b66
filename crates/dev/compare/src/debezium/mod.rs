//! `compare debezium`: compares Debezium's and Tandem's events for the same binlog, field by field. An
//! intended difference is a rule with a name and a reason. Any other difference is an error.

mod avro;
mod binlog;
mod capture;
mod events;
mod report;
mod rules;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::captures::Layout;
use crate::process;

/// The statements that run if no file is given.
const STATEMENTS: &str = include_str!("statements.sql");

/// The arguments of `cargo xtask compare debezium`.
#[derive(Debug, Args)]
pub struct DebeziumArgs {
    /// Run the statements of this file, on an empty MySQL, instead of those built in
    #[arg(long, value_name = "FILE")]
    sql: Option<PathBuf>,
    /// Whether the tables share a topic or have topics of their own
    #[arg(long, value_enum, default_value_t = Layout::Shared)]
    layout: Layout,
    /// Write the result as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Use this tandem binary instead of the one that is built (also: TANDEM_BIN)
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,
}

/// `cargo xtask compare debezium`.
///
/// # Errors
/// If a file cannot be read or written, a server does not start, or a capture does not publish everything.
pub fn command(args: &DebeziumArgs) -> Result<ExitCode> {
    let sql = match &args.sql {
        None => STATEMENTS.to_owned(),
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?,
    };
    let (sql, left_out) = without_drops(&sql);
    if left_out > 0 {
        eprintln!("left out, since there is nothing to drop: {left_out} × DROP … IF EXISTS");
    }
    let binary = process::binary(args.bin.as_deref())?;
    let captured = crate::runtime()?.block_on(capture::both(binary, args.layout, &sql))?;
    let report = report::Report::of(&captured);
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report.to_json())?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    report.print();
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The statements without `DROP … IF EXISTS`, with which dumps begin. MySQL is empty here, but would log the
/// statements. Tandem stops when a table that it maps is dropped.
fn without_drops(sql: &str) -> (String, usize) {
    let drops = |line: &str| {
        let mut words = line.split_ascii_whitespace().map(str::to_ascii_lowercase);
        let mut next = || words.next().unwrap_or_default();
        next() == "drop"
            && ["database", "schema", "table", "view"].contains(&next().as_str())
            && (next(), next()) == ("if".to_owned(), "exists".to_owned())
            && line.trim_end().ends_with(';')
    };
    let kept: Vec<&str> = sql.lines().filter(|line| !drops(line)).collect();
    let left_out = sql.lines().count() - kept.len();
    (kept.join("\n") + "\n", left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_drops_that_may_find_nothing_are_left_out() {
        let sql = "DROP TABLE IF EXISTS `a`;\n drop database if exists d ;\nDROP TABLE a;\nDROP TABLE IF EXISTS\n b;\n";
        assert_eq!(without_drops(sql), ("DROP TABLE a;\nDROP TABLE IF EXISTS\n b;\n".to_owned(), 2));
    }
}
