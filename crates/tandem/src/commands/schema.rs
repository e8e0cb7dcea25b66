//! `tandem schema`: the Cassandra tables of the mapping.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use tandem_cassandra::Target;
use tandem_mapping::{TablePlan, compile_all, create_table};
use tandem_mysql::Mysql;

use crate::cli::SchemaCommand;
use crate::config::Config;
use crate::connect::ownership::{self, Consent};
use crate::connect::servers::{gc_grace_seconds, target_tables};

/// Shows or creates the tables.
pub(crate) async fn run(command: SchemaCommand) -> Result<ExitCode> {
    match command {
        SchemaCommand::Show { config } => show(&Config::load(&config.config)?).await,
        SchemaCommand::Create { config, adopt, take_over } => {
            create(&Config::load(&config.config)?, &Consent { adopt, take_over }).await
        }
    }
}

async fn show(config: &Config) -> Result<ExitCode> {
    let (keyspace, seconds) = (config.cassandra()?.keyspace, gc_grace_seconds(&config.kafka()?));
    for table in target_tables(&plans(config).await?) {
        println!("{};\n", create_table(&keyspace, &table, seconds).trim_end().trim_end_matches(';'));
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(config: &Config, consent: &Consent) -> Result<ExitCode> {
    let tables = target_tables(&plans(config).await?);
    let target = Target::connect(&config.cassandra()?).await?;
    let kafka = config.kafka()?;
    let refused = ownership::refused(&target, &tables, &kafka.prefix, consent).await?;
    if !refused.is_empty() {
        let lines: Vec<String> = refused.iter().map(|(_, problem)| problem.to_string()).collect();
        bail!("{}", lines.join("\n"));
    }
    if !target.keyspace_exists().await? {
        target.create_keyspace().await?;
        println!(
            "created keyspace {} (replication factor {})",
            target.keyspace(),
            target.replication_factor()
        );
    }
    let seconds = gc_grace_seconds(&kafka);
    for (number, table) in (1..).zip(&tables) {
        let place = format!("{number} of {}", tables.len());
        if target.gc_grace(&table.name).await?.is_some() {
            println!("table {} exists ({place})", table.name);
        } else {
            target.execute_ddl(&create_table(target.keyspace(), table, seconds)).await?;
            println!("created table {} ({place})", table.name);
        }
    }
    let findings = target.check_schema(&tables).await?;
    if !findings.is_empty() {
        let lines: Vec<String> = findings
            .iter()
            .map(|f| {
                let remedy = f.remedy.as_ref().map(|m| format!("\n  remedy: {m}")).unwrap_or_default();
                format!("table {}: {}{remedy}", f.table, f.problem)
            })
            .collect();
        bail!("existing tables do not match the mapping:\n{}", lines.join("\n"));
    }
    let held_rows = ownership::claim(&target, &tables, &kafka.prefix, consent).await?;
    for table in tables.iter().filter(|table| held_rows.contains(&table.name)) {
        println!(
            "table {} held rows: the copy overwrites each cell, and `tandem verify --full` finds extra rows",
            table.name
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn plans(config: &Config) -> Result<Vec<Arc<TablePlan>>> {
    let mysql = Mysql::connect(&config.mysql()?).await?;
    let mut tables = Vec::new();
    for name in config.tables()? {
        tables.push(Arc::new(mysql.table_def(&name).await?));
    }
    let plans = compile_all(&config.table, &tables).context("the mapping")?;
    Ok(plans.into_iter().map(Arc::new).collect())
}
