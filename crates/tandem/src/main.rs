//! The `tandem` binary.

mod config;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use config::Config;
use tandem_mapping::{compile_all, create_table};
use tandem_model::TableName;
use tandem_mysql_source::{Mysql, MysqlConfig, Severity};

/// Row tombstones must outlive every older write still under way: ten days, above the log's
/// retention of seven.
const GC_GRACE: Duration = Duration::from_hours(240);

/// The replica id that Tandem poses as where it asks MySQL about its binlog.
const SERVER_ID: u32 = 64_001;

/// Moves a live dataset from MySQL to Apache Cassandra.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ask MySQL whether its settings, the account and the mapped tables allow a migration
    Check {
        /// The configuration
        #[arg(long, default_value = "tandem.toml")]
        config: PathBuf,
    },
    /// Print the CQL of the target tables that the mapping makes of MySQL's tables
    Schema {
        /// The configuration
        #[arg(long, default_value = "tandem.toml")]
        config: PathBuf,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Check { config } => check(&Config::load(&config)?).await,
        Command::Schema { config } => schema(&Config::load(&config)?).await,
    }
}

async fn check(config: &Config) -> anyhow::Result<()> {
    let mysql = Mysql::connect(&MysqlConfig::new(&config.mysql.url, SERVER_ID)).await?;
    let findings = mysql.preflight().await?;
    for finding in &findings {
        let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
        println!("{severity}: {}: {}\n  remedy: {}", finding.setting, finding.problem, finding.remedy);
    }
    plans(config, &mysql).await?;
    if findings.iter().any(|f| f.severity == Severity::Error) {
        bail!("MySQL is not ready for a migration: see above");
    }
    println!("MySQL is ready: {} tables mapped", config.table.len());
    Ok(())
}

async fn schema(config: &Config) -> anyhow::Result<()> {
    let mysql = Mysql::connect(&MysqlConfig::new(&config.mysql.url, SERVER_ID)).await?;
    for plan in plans(config, &mysql).await? {
        for target in plan.targets() {
            println!(
                "{}\n",
                create_table(&config.cassandra.keyspace, target.table(), GC_GRACE.as_secs() as u32)
            );
        }
    }
    Ok(())
}

async fn plans(config: &Config, mysql: &Mysql) -> anyhow::Result<Vec<tandem_mapping::TablePlan>> {
    let mut tables = Vec::new();
    for table in &config.table {
        let name: TableName = table.source.parse().map_err(anyhow::Error::msg).context("[[table]] source")?;
        tables.push(Arc::new(mysql.table_def(&name).await?));
    }
    Ok(compile_all(&config.table, &tables)?)
}
