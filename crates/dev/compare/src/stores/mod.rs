//! Compares both stores independently of Tandem: plain SELECT, plain CQL, no crate of the product.
//!
//! All rows of a MySQL table are held in memory in a packed spelling, while Cassandra's rows are streamed. So
//! a table needs roughly its own size in memory.

pub mod canonical;
pub mod config;
mod diff;
pub mod schema;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, Table, presets};
use futures::TryStreamExt as _;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use scylla::client::session::Session;
use scylla::statement::Statement;
use scylla::value::Row;
use serde_json::{Value as Json, json};

use canonical::{Form, of_cassandra, of_mysql};
use config::{Config, Source, Target};
use diff::{Cells, Difference, TableDiff};
use schema::{TableInfo, list, quote, tick};

/// Differences kept and printed for each table. All are counted.
const SHOWN: usize = 20;

/// The arguments of `cargo xtask compare`.
#[derive(Debug, clap::Args)]
pub struct StoresArgs {
    /// The tandem.toml that says what goes where
    #[arg(long)]
    config: PathBuf,
    /// Write the result as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The comparison of one target table with its source.
#[derive(Debug)]
struct TableResult {
    /// The table in Cassandra.
    name: String,
    /// `database.table` in MySQL.
    source: String,
    mysql_rows: u64,
    cassandra_rows: u64,
    /// Rows that are missing, extra or not the same.
    differing: u64,
    differences: Vec<Difference>,
}

/// The comparison of both stores.
#[derive(Debug, Default)]
pub struct Comparison {
    tables: Vec<TableResult>,
}

/// `cargo xtask compare`.
///
/// # Errors
/// As for [`compare`], or if the configuration cannot be read or the result cannot be written.
pub fn command(args: &StoresArgs) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let comparison = crate::runtime()?.block_on(compare(&config, |_| ()))?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&comparison.to_json())?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    comparison.print();
    Ok(if comparison.equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compares every table of `config`. `about_to` is called with a table's name before its comparison.
///
/// # Errors
/// If a store does not answer, or a table, a column or a type cannot be compared.
pub async fn compare(config: &Config, mut about_to: impl FnMut(&str)) -> Result<Comparison> {
    let mut conn = schema::mysql(&config.mysql.url).await?;
    let session = schema::cassandra(&config.cassandra.nodes).await?;
    let mut comparison = Comparison::default();
    for source in &config.tables {
        let (database, table) = source.parts()?;
        let info = schema::mysql_table(&mut conn, &database, &table).await?;
        for target in &source.targets {
            about_to(&target.table);
            let result = table_result(&mut conn, &session, &config.cassandra.keyspace, source, &info, target)
                .await
                .with_context(|| format!("compare {} with {}", source.source, target.table))?;
            comparison.tables.push(result);
        }
    }
    let _ = conn.disconnect().await;
    Ok(comparison)
}

/// A column in both stores.
struct Pair {
    mysql: String,
    data_type: String,
    cassandra: String,
    form: Form,
}

async fn table_result(
    conn: &mut Conn,
    session: &Session,
    keyspace: &str,
    source: &Source,
    info: &TableInfo,
    target: &Target,
) -> Result<TableResult> {
    let shape = schema::cassandra_table(session, keyspace, &target.table).await?;
    let key: Vec<String> = shape.partition_key.iter().chain(&shape.clustering_key).cloned().collect();
    let mut pairs = Vec::new();
    for column in &info.columns {
        let Some(name) = target.name_of(&column.name) else { continue };
        let found = shape
            .columns
            .get(&name)
            .with_context(|| format!("column {} of MySQL is not in Cassandra as {name}", column.name))?;
        pairs.push(Pair {
            mysql: column.name.clone(),
            data_type: column.data_type.clone(),
            cassandra: name,
            form: Form::of(&found.typ)?,
        });
    }
    if let Some(unexplained) = shape.columns.keys().find(|c| !pairs.iter().any(|p| p.cassandra == **c)) {
        bail!("column {unexplained} of Cassandra has no column in MySQL");
    }
    let named: Vec<String> =
        target.key().iter().map(|k| target.name_of(k).unwrap_or_else(|| (*k).to_owned())).collect();
    if named != key {
        bail!("its key is ({}), but tandem.toml says ({})", key.join(", "), named.join(", "));
    }
    // Key columns first, in the key's order, then the others.
    pairs.sort_by_key(|p| key.iter().position(|k| *k == p.cassandra).unwrap_or(usize::MAX));
    let others = pairs[key.len()..].iter().map(|p| p.cassandra.clone()).collect();
    let mut diff = TableDiff::new(key, others, SHOWN);
    read_mysql(conn, info, &pairs, &mut diff).await?;
    read_cassandra(session, keyspace, &target.table, &pairs, &mut diff).await?;
    diff.finish();
    Ok(TableResult {
        name: target.table.clone(),
        source: source.source.clone(),
        mysql_rows: diff.mysql_rows,
        cassandra_rows: diff.cassandra_rows,
        differing: diff.differing,
        differences: diff.differences,
    })
}

async fn read_mysql(conn: &mut Conn, info: &TableInfo, pairs: &[Pair], diff: &mut TableDiff) -> Result<()> {
    let columns = list(pairs.iter().map(|p| &p.mysql), tick);
    let order = list(&info.primary_key, tick);
    let order = if order.is_empty() { order } else { format!(" ORDER BY {order}") };
    let sql = format!("SELECT {columns} FROM {}{order}", info.sql_name());
    let mut rows = conn.exec_stream::<mysql_async::Row, _, _>(sql, ()).await.context("read MySQL")?;
    while let Some(row) = rows.try_next().await.context("read MySQL")? {
        let mut cells: Cells = row
            .unwrap()
            .iter()
            .zip(pairs)
            .map(|(value, pair)| {
                of_mysql(value, &pair.data_type, pair.form).with_context(|| pair.mysql.clone())
            })
            .collect::<Result<_>>()?;
        let others = cells.split_off(pairs.len() - diff.other_columns());
        diff.expect(&cells, &others);
    }
    Ok(())
}

async fn read_cassandra(
    session: &Session,
    keyspace: &str,
    table: &str,
    pairs: &[Pair],
    diff: &mut TableDiff,
) -> Result<()> {
    let columns = list(pairs.iter().map(|p| &p.cassandra), quote);
    let cql = format!("SELECT {columns} FROM {}.{}", quote(keyspace), quote(table));
    let statement = Statement::new(cql).with_page_size(2000);
    let prepared = session.prepare(statement).await.context("read Cassandra")?;
    let pager = session.execute_iter(prepared, ()).await.context("read Cassandra")?;
    let mut rows = pager.rows_stream::<Row>().context("read Cassandra")?;
    while let Some(row) = rows.try_next().await.context("read Cassandra")? {
        let mut cells: Cells = row
            .columns
            .iter()
            .zip(pairs)
            .map(|(value, pair)| of_cassandra(value.as_ref()).with_context(|| pair.cassandra.clone()))
            .collect::<Result<_>>()?;
        let others = cells.split_off(pairs.len() - diff.other_columns());
        diff.find(&cells, &others);
    }
    Ok(())
}

impl Comparison {
    /// Whether nothing differs.
    pub fn equal(&self) -> bool {
        self.tables.iter().all(|t| t.differing == 0 && t.mysql_rows == t.cassandra_rows)
    }

    /// Prints the rows of both sides for every table, and the first differences of each.
    pub fn print(&self) {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header(["MySQL table", "Cassandra table", "rows in MySQL", "in Cassandra", "differing"]);
        for result in &self.tables {
            table.add_row([
                result.source.clone(),
                result.name.clone(),
                thousands(result.mysql_rows),
                thousands(result.cassandra_rows),
                thousands(result.differing),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{table}");
        for result in self.tables.iter().filter(|t| t.differing > 0) {
            println!("{}: {} rows differ", result.name, thousands(result.differing));
            for difference in &result.differences {
                println!("  {difference}");
            }
            if result.differences.len() >= SHOWN {
                println!("  … only the first {SHOWN} are shown");
            }
        }
        println!("{}", if self.equal() { "equal" } else { "NOT equal" });
    }

    /// `{equal, tables: [...]}`.
    pub fn to_json(&self) -> Json {
        json!({ "equal": self.equal(), "tables": self.tables_json() })
    }

    /// The tables alone.
    pub fn tables_json(&self) -> Vec<Json> {
        let table = |t: &TableResult| {
            let differences: Vec<String> = t.differences.iter().map(ToString::to_string).collect();
            json!({
                "name": t.name,
                "source": t.source,
                "mysql_rows": t.mysql_rows,
                "cassandra_rows": t.cassandra_rows,
                "differing": t.differing,
                "differences": differences,
            })
        };
        self.tables.iter().map(table).collect()
    }
}

/// `1234567` as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(n), text);
        }
    }

    #[test]
    fn no_rows_equal_but_counts_must_agree() {
        let table = |mysql_rows, cassandra_rows, differing| TableResult {
            name: "t".into(),
            source: "d.t".into(),
            mysql_rows,
            cassandra_rows,
            differing,
            differences: vec![],
        };
        let equal = |t| Comparison { tables: vec![t] }.equal();
        assert!(equal(table(0, 0, 0)));
        assert!(!equal(table(2, 2, 1)));
        assert!(!equal(table(2, 1, 0)));
    }
}
