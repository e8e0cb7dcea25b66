//! Plain connections to both stores, and the definitions of their tables.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::cluster::metadata::Table;

const CONNECT_DEADLINE: Duration = Duration::from_secs(20);

/// Connects to MySQL: utf8mb4, TIMESTAMPs in UTC.
///
/// # Errors
/// If the URL is malformed, or MySQL refuses the connection or does not answer within 20 s.
pub async fn mysql(url: &str) -> Result<Conn> {
    let opts =
        Opts::from_url(url).context("MySQL's URL is not of the form mysql://user:password@host:port")?;
    let at = format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port());
    let opts = OptsBuilder::from_opts(opts)
        .stmt_cache_size(256)
        .prefer_socket(false)
        .setup(vec!["SET NAMES utf8mb4", "SET time_zone = '+00:00'"]);
    match tokio::time::timeout(CONNECT_DEADLINE, Conn::new(opts)).await {
        Ok(connected) => connected.with_context(|| format!("cannot connect to MySQL at {at}")),
        Err(_) => bail!("MySQL at {at} did not answer within {} s", CONNECT_DEADLINE.as_secs()),
    }
}

/// Connects to Cassandra.
///
/// # Errors
/// If no node accepts the connection.
pub async fn cassandra(nodes: &[String]) -> Result<Session> {
    let session = SessionBuilder::new().known_nodes(nodes).connection_timeout(CONNECT_DEADLINE).build().await;
    session.with_context(|| format!("cannot connect to Cassandra at {}", nodes.join(", ")))
}

/// A MySQL column, from `information_schema`.
#[derive(Debug, Clone, Default)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// `DATA_TYPE`: the type's bare name.
    pub data_type: String,
    /// `COLUMN_TYPE`: with widths, `unsigned`, members.
    pub full_type: String,
    /// Whether it accepts NULL.
    pub nullable: bool,
    /// `CHARACTER_MAXIMUM_LENGTH`.
    pub max_chars: Option<u64>,
    /// `NUMERIC_PRECISION`.
    pub precision: Option<u64>,
    /// `NUMERIC_SCALE`.
    pub scale: Option<u64>,
    /// `DATETIME_PRECISION`: digits of a second's fraction.
    pub fsp: Option<u64>,
    /// Computed by MySQL; cannot be written.
    pub generated: bool,
}

/// A foreign key: columns of a table that reference columns of another.
#[derive(Debug, Clone, Default)]
pub struct ForeignKey {
    /// The referencing columns.
    pub columns: Vec<String>,
    /// The referenced table.
    pub parent: String,
    /// The referenced columns, in the same order.
    pub parent_columns: Vec<String>,
}

/// A MySQL table.
#[derive(Debug, Clone, Default)]
pub struct TableInfo {
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
    /// All columns, in MySQL's order.
    pub columns: Vec<Column>,
    /// Column names in the key's order.
    pub primary_key: Vec<String>,
    /// Its foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
}

impl TableInfo {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// `` `database`.`table` ``.
    pub fn sql_name(&self) -> String {
        format!("{}.{}", tick(&self.database), tick(&self.name))
    }
}

/// A name in MySQL's quotes.
pub fn tick(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A name in CQL's quotes.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names joined as a list, each quoted by `how`.
pub fn list<'a>(names: impl IntoIterator<Item = &'a String>, how: fn(&str) -> String) -> String {
    names.into_iter().map(|n| how(n)).collect::<Vec<_>>().join(", ")
}

/// All base tables of a database, by name.
///
/// # Errors
/// If MySQL refuses a query.
pub async fn mysql_tables(conn: &mut Conn, database: &str) -> Result<Vec<TableInfo>> {
    let names: Vec<String> = conn
        .exec(
            "SELECT TABLE_NAME AS n FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = ? AND TABLE_TYPE = 'BASE TABLE' ORDER BY TABLE_NAME",
            (database,),
        )
        .await
        .with_context(|| format!("read the tables of {database}"))?;
    let mut tables = Vec::new();
    for name in names {
        tables.push(mysql_table(conn, database, &name).await?);
    }
    Ok(tables)
}

/// The number of rows in all tables of a database.
///
/// # Errors
/// If MySQL refuses a query.
pub async fn count_rows(conn: &mut Conn, database: &str) -> Result<u64> {
    let mut rows = 0;
    for table in mysql_tables(conn, database).await? {
        let sql = format!("SELECT COUNT(*) FROM {}", table.sql_name());
        rows += conn.query_first::<u64, _>(sql).await?.unwrap_or_default();
    }
    Ok(rows)
}

/// One table's definition.
///
/// # Errors
/// If there is no such table, or MySQL refuses a query.
pub async fn mysql_table(conn: &mut Conn, database: &str, table: &str) -> Result<TableInfo> {
    let asking = || format!("read the definition of {database}.{table}");
    let rows: Vec<mysql_async::Row> = conn
        .exec(
            "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE = 'YES', \
             CAST(CHARACTER_MAXIMUM_LENGTH AS UNSIGNED), CAST(NUMERIC_PRECISION AS UNSIGNED), \
             CAST(NUMERIC_SCALE AS UNSIGNED), CAST(DATETIME_PRECISION AS UNSIGNED), \
             GENERATION_EXPRESSION <> '' \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
            (database, table),
        )
        .await
        .with_context(asking)?;
    if rows.is_empty() {
        bail!("MySQL has no table {database}.{table}");
    }
    let mut info =
        TableInfo { database: database.to_owned(), name: table.to_owned(), ..TableInfo::default() };
    for row in rows {
        let text = |i: usize| row.get::<String, _>(i).unwrap_or_default();
        let number = |i: usize| row.get::<Option<u64>, _>(i).flatten();
        info.columns.push(Column {
            name: text(0),
            data_type: text(1).to_ascii_lowercase(),
            full_type: text(2),
            nullable: number(3) == Some(1),
            max_chars: number(4),
            precision: number(5),
            scale: number(6),
            fsp: number(7),
            generated: number(8) == Some(1),
        });
    }
    let keys: Vec<(String, String, Option<String>, Option<String>)> = conn
        .exec(
            "SELECT CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_TABLE_NAME, REFERENCED_COLUMN_NAME \
             FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? \
             AND (CONSTRAINT_NAME = 'PRIMARY' OR REFERENCED_TABLE_NAME IS NOT NULL) \
             ORDER BY CONSTRAINT_NAME, ORDINAL_POSITION",
            (database, table),
        )
        .await
        .with_context(asking)?;
    let mut last = String::new();
    for (constraint, column, parent, parent_column) in keys {
        let (Some(parent), Some(parent_column)) = (parent, parent_column) else {
            info.primary_key.push(column);
            continue;
        };
        if last != constraint {
            info.foreign_keys.push(ForeignKey { parent, ..ForeignKey::default() });
            last = constraint;
        }
        if let Some(key) = info.foreign_keys.last_mut() {
            key.columns.push(column);
            key.parent_columns.push(parent_column);
        }
    }
    Ok(info)
}

/// The definition of a Cassandra table.
///
/// # Errors
/// If there is no such table, or Cassandra does not answer.
pub async fn cassandra_table(session: &Session, keyspace: &str, table: &str) -> Result<Table> {
    let find =
        || session.get_cluster_state().get_keyspace(keyspace).and_then(|k| k.tables.get(table).cloned());
    if let Some(found) = find() {
        return Ok(found);
    }
    session.refresh_metadata().await.context("read Cassandra's schema")?;
    find().with_context(|| format!("Cassandra has no table {keyspace}.{table}"))
}
