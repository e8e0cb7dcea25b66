//! The rows of both stores, read with plain SELECT and plain CQL.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use futures::TryStreamExt as _;
use mysql_async::prelude::Queryable as _;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::value::{CqlValue, Row};
use serde::Deserialize;

use crate::journal::Key;

/// The addresses of the stores, and the tables of each entity.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stores {
    mysql_url: String,
    cassandra_nodes: Vec<String>,
    entities: Vec<Entity>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entity {
    /// Its name in the journals.
    name: String,
    mysql: Place,
    cassandra: Vec<Place>,
}

/// A table with an entity's rows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// Database or keyspace, and table.
    table: [String; 2],
    /// The columns of a journal's key, in the key's order.
    key: Vec<String>,
    /// The column in which clients write their values.
    value: String,
}

/// The rows of one table that the journals name.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) entity: String,
    pub(crate) name: String,
    /// The values under a key. There are several if a moved row was left behind.
    pub(crate) rows: HashMap<Vec<String>, Vec<Option<String>>>,
}

impl Stores {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))
    }

    /// Reads every table completely, and keeps the rows in `keys`.
    pub(crate) async fn read(&self, keys: &BTreeSet<Key>) -> Result<Vec<Table>> {
        if let Some((unknown, _)) =
            keys.iter().find(|(name, _)| self.entities.iter().all(|e| e.name != *name))
        {
            bail!("the journals name the entity {unknown}, for which no table is given");
        }
        let mysql = mysql_async::Opts::from_url(&self.mysql_url).context("mysql_url")?;
        let mut mysql = mysql_async::Conn::new(mysql).await.context("connect to MySQL")?;
        let cassandra = SessionBuilder::new().known_nodes(&self.cassandra_nodes).build().await;
        let cassandra = cassandra.context("connect to Cassandra")?;
        let mut tables = Vec::new();
        for entity in &self.entities {
            let named = |key: &Vec<String>| keys.contains(&(entity.name.clone(), key.clone()));
            let mut table = |store: &str, place: &Place, read: Vec<(Vec<String>, Option<String>)>| {
                let mut rows: HashMap<Vec<String>, Vec<Option<String>>> = HashMap::new();
                for (key, value) in read.into_iter().filter(|(key, _)| named(key)) {
                    rows.entry(key).or_default().push(value);
                }
                let name = format!("{store} {}", place.table.join("."));
                tables.push(Table { entity: entity.name.clone(), name, rows });
            };
            table("MySQL", &entity.mysql, read_mysql(&mut mysql, &entity.mysql).await?);
            for place in &entity.cassandra {
                table("Cassandra", place, read_cassandra(&cassandra, place).await?);
            }
        }
        mysql.disconnect().await.context("leave MySQL")?;
        Ok(tables)
    }
}

impl Place {
    /// `SELECT` of the key's columns and the value, with names quoted by `quote`.
    fn select(&self, quote: char, column: fn(String) -> String) -> String {
        let quoted =
            |name: &String| format!("{quote}{}{quote}", name.replace(quote, &format!("{quote}{quote}")));
        let columns: Vec<String> =
            self.key.iter().chain([&self.value]).map(|name| column(quoted(name))).collect();
        format!("SELECT {} FROM {}.{}", columns.join(", "), quoted(&self.table[0]), quoted(&self.table[1]))
    }
}

type Found = Vec<(Vec<String>, Option<String>)>;

/// Splits a row's values into key and value.
fn split(mut row: Vec<Option<String>>) -> Result<(Vec<String>, Option<String>)> {
    let value = row.pop().context("a row without columns")?;
    let key = row.into_iter().collect::<Option<Vec<String>>>().context("NULL in a key")?;
    Ok((key, value))
}

async fn read_mysql(conn: &mut mysql_async::Conn, place: &Place) -> Result<Found> {
    let select = place.select('`', |name| format!("CAST({name} AS CHAR)"));
    let rows: Vec<mysql_async::Row> = conn.query(&select).await.with_context(|| select.clone())?;
    rows.into_iter()
        .map(|row| split((0..row.len()).map(|i| row.get::<Option<String>, _>(i).flatten()).collect()))
        .collect()
}

async fn read_cassandra(session: &Session, place: &Place) -> Result<Found> {
    let select = place.select('"', |name| name);
    let rows = session.query_iter(select.as_str(), ()).await.with_context(|| select.clone())?;
    let rows: Vec<Row> = rows.rows_stream::<Row>()?.try_collect().await.with_context(|| select.clone())?;
    rows.into_iter()
        .map(|row| {
            split(row.columns.into_iter().map(|cell| cell.map(text).transpose()).collect::<Result<_>>()?)
        })
        .collect()
}

/// The value in the spelling of a client.
fn text(value: CqlValue) -> Result<String> {
    Ok(match value {
        CqlValue::Ascii(text) | CqlValue::Text(text) => text,
        CqlValue::TinyInt(n) => n.to_string(),
        CqlValue::SmallInt(n) => n.to_string(),
        CqlValue::Int(n) => n.to_string(),
        CqlValue::BigInt(n) => n.to_string(),
        other => bail!("{other:?}: only texts and integers can be compared"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let place = Place { table: ["a\"b".into(), "t".into()], key: vec!["k".into()], value: "v`w".into() };
        assert_eq!(place.select('"', |name| name), "SELECT \"k\", \"v`w\" FROM \"a\"\"b\".\"t\"");
        assert!(place.select('`', |name| name).contains("`v``w`"));
    }
}
