//! `tandem init`: a first configuration, with a table of the same shape for each of MySQL's.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tandem_kafka::KafkaConfig;
use tandem_mapping::{TableConfig, TablePlan, compile_all, create_table, same_shape};
use tandem_mysql::{Mysql, MysqlConfig, TableError, split_password};

use crate::cli::InitArgs;
use crate::config::Config;
use crate::connect::servers::gc_grace_seconds;

/// Any replica id will do: no binlog is read here.
const SERVER_ID: u32 = 1;

/// The pause between two messages of progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// Cassandra's longest keyspace name.
const KEYSPACE: usize = 48;

#[derive(Serialize)]
struct Tables<'a> {
    table: &'a [TableConfig],
}

/// Writes `tandem.toml` and `schema.cql`.
pub(crate) async fn run(args: &InitArgs) -> Result<ExitCode> {
    let schema_cql = args.out.with_file_name("schema.cql");
    let (url, password) = split_password(&args.mysql_url)?;
    // Absolute, since the configuration may be read from any folder.
    let password_file = std::path::absolute(args.out.with_file_name("mysql-password"))?;
    let secret = password.as_deref().map(|password| (&password_file, password));
    for path in [&args.out, &schema_cql].into_iter().chain(secret.map(|(path, _)| path)) {
        if path.exists() && !args.force {
            bail!("{} is there already: give --force to overwrite it, or another --out", path.display());
        }
    }
    let mysql = Mysql::connect(&MysqlConfig::new(&args.mysql_url, SERVER_ID)).await?;
    let names = mysql.list_tables(&args.database).await?;
    if names.is_empty() {
        bail!("database {} has no tables, or the account may not see them", args.database);
    }
    if let Some(unknown) = args.exclude.iter().find(|e| !names.iter().any(|n| n.table == **e)) {
        bail!("--exclude {unknown}: database {} has no such table", args.database);
    }
    let (mut tables, mut refused) = (Vec::new(), Vec::new());
    let mut said = Instant::now();
    for (number, name) in names.iter().filter(|n| !args.exclude.contains(&n.table)).enumerate() {
        if said.elapsed() > PROGRESS {
            eprintln!("{number} of {} tables read", names.len() - args.exclude.len());
            said = Instant::now();
        }
        match mysql.table_def(name).await {
            Ok(table) => tables.push(Arc::new(table)),
            Err(TableError::Refused { table, problems }) => {
                refused.extend(problems.iter().map(|p| format!("table {table}: {p}")));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if !refused.is_empty() {
        bail!(
            "these tables cannot be migrated as they are:\n{}\nFix them, or leave each out with --exclude TABLE",
            refused.join("\n")
        );
    }
    let configs: Vec<TableConfig> = tables.iter().map(|t| same_shape(t)).collect();
    let plans = compile_all(&configs, &tables)
        .with_context(|| "a table cannot be mapped in its own shape (leave it out with --exclude TABLE)")?;

    let keyspace = args.keyspace.clone().unwrap_or_else(|| keyspace_for(&args.database));
    let text = config_text(args, &url, secret.map(|(path, _)| path.as_path()), &keyspace, &configs)?;
    let kafka = KafkaConfig::new(&args.kafka_brokers, &args.prefix);
    let mut cql = String::from("-- What `tandem schema create` creates, once the keyspace is there.\n");
    for target in plans.iter().flat_map(TablePlan::targets) {
        let statement = create_table(&keyspace, target.table(), gc_grace_seconds(&kafka));
        let _ = write!(cql, "\n{};\n", statement.trim_end().trim_end_matches(';'));
    }
    if let Some((path, password)) = secret {
        write_secret(path, password)?;
        println!("wrote {}, which only you may read: MySQL's password", path.display());
    }
    write(&args.out, &text)?;
    write(&schema_cql, &cql)?;
    Config::load(&args.out).context("what was just written cannot be read back")?;
    println!("wrote {} ({} tables) and {}", args.out.display(), configs.len(), schema_cql.display());
    println!("next: edit it, then `tandem schema create`, `tandem check`, `tandem run`");
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file that only its owner may read, whatever was there before.
fn write_secret(path: &Path, secret: &str) -> Result<()> {
    let written = || -> std::io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{secret}")
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

/// A keyspace's name has letters, digits and underscores, 48 at most, and begins with a letter.
fn keyspace_for(database: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let name: String = database.chars().map(plain).collect();
    let mut name =
        if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("db_{name}") };
    name.truncate(KEYSPACE);
    name
}

fn config_text(
    args: &InitArgs,
    url: &str,
    password: Option<&Path>,
    keyspace: &str,
    configs: &[TableConfig],
) -> Result<String> {
    let nodes: Vec<toml::Value> = args.cassandra_nodes.iter().map(|n| n.trim().into()).collect();
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut text = format!(
        "# Written by `tandem init` from database {}.\n\n\
         [mysql]\n\
         # The password is kept elsewhere: \"file:PATH\" or \"env:NAME\".\n\
         {}url = {}\n\n\
         [kafka]\n\
         brokers = {}\n\
         prefix = {}\n\n\
         [cassandra]\n\
         nodes = {}\n\
         keyspace = {}\n\n\
         # Each MySQL table, and the Cassandra tables that it fills. A table may have several targets:\n\
         # add one for each query, with the source's key somewhere in its own key.\n\n",
        args.database.escape_default(),
        password
            .map(|path| format!("password = {}\n", quoted(&format!("file:{}", path.display()))))
            .unwrap_or_default(),
        quoted(url),
        quoted(&args.kafka_brokers),
        quoted(&args.prefix),
        toml::Value::Array(nodes),
        quoted(keyspace),
    );
    text.push_str(&toml::to_string(&Tables { table: configs }).context("writing the mapping")?);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_owners_alone_and_replaces_what_was_there() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mysql-password");
        std::fs::write(&path, "open to all").unwrap();
        write_secret(&path, "hush").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hush\n");
    }

    #[test]
    fn keyspaces_have_legal_names() {
        assert_eq!(keyspace_for("Chinook"), "chinook");
        assert_eq!(keyspace_for("2nd-shop"), "db_2nd_shop");
        assert_eq!(keyspace_for(&"ü".repeat(60)).len(), 48);
    }
}
