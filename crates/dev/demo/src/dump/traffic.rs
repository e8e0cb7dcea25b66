//! Random traffic on the tables of any database: updates, deletes and inserts that its schema accepts.
//!
//! Foreign keys stay enabled, as for an application. Columns of a foreign key get values of existing parent
//! rows. MySQL may still refuse a statement, for example because a parent has children or a key is a
//! duplicate. The refusal is counted, and the traffic continues.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Value};
use rand::Rng as _;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use tandem_compare::stores::canonical::{Form, of_mysql};
use tandem_compare::stores::schema::{self, TableInfo, list, tick};

use super::plausible;
use crate::sample::{Generator, insert};
use crate::traffic::{Step, execute};

/// Keys kept in memory for each table. The other rows of a larger table are left alone.
const KEYS_HELD: usize = 50_000;
/// Rows of each table that are reserved for the corruptions.
const RESERVED: usize = 3;

type Key = Vec<Value>;

/// Reserved rows: the keys by table, in canonical spelling.
pub(crate) type Reserved = HashMap<String, HashSet<Vec<String>>>;

#[derive(Debug)]
struct Target {
    info: TableInfo,
    keys: Mutex<Vec<Key>>,
    /// The next value of the key, if the key is one integer.
    next: Mutex<Option<i64>>,
}

/// The tables and the keys of their rows, kept up to date by the traffic.
#[derive(Debug)]
pub(crate) struct DumpTraffic {
    tables: Vec<Target>,
    /// Values seen in referenced columns, by table and columns.
    parents: HashMap<(String, Vec<String>), Vec<Key>>,
}

impl DumpTraffic {
    /// Reads the tables of a database. Reserves some rows of each and keeps the keys of the others.
    pub(crate) async fn prepare(conn: &mut Conn, database: &str) -> Result<(Self, Reserved)> {
        let tables = schema::mysql_tables(conn, database).await?;
        if tables.is_empty() {
            bail!("database {database} has no tables: does the dump fill a database of another name?");
        }
        let mut reserved = Reserved::new();
        let mut targets = Vec::new();
        let mut parents = HashMap::new();
        let mut order = Generator::new(0xD);
        for info in tables {
            for key in &info.foreign_keys {
                let id = (key.parent.clone(), key.parent_columns.clone());
                if let std::collections::hash_map::Entry::Vacant(vacant) = parents.entry(id) {
                    let parent = TableInfo {
                        database: database.to_owned(),
                        name: key.parent.clone(),
                        ..TableInfo::default()
                    };
                    vacant.insert(rows(conn, &parent, &key.parent_columns).await?);
                }
            }
            if info.primary_key.is_empty() {
                continue;
            }
            let mut keys = rows(conn, &info, &info.primary_key).await?;
            keys.shuffle(order.rng());
            // At least half of a small table's rows stay for the traffic.
            let aside = keys.split_off(keys.len() - RESERVED.min(keys.len() / 2));
            let names = aside.iter().map(|key| spell(&info, key)).collect::<Result<_>>()?;
            reserved.insert(info.name.clone(), names);
            let next = highest(conn, &info).await?;
            targets.push(Target { info, keys: Mutex::new(keys), next: Mutex::new(next) });
        }
        Ok((Self { tables: targets, parents }, reserved))
    }

    /// Performs one random step on one table.
    pub(crate) async fn step(&self, conn: &mut Conn, g: &mut Generator) -> Result<Step, Error> {
        let Some(table) = self.tables.choose(g.rng()) else { return Ok(Step { kind: "none", rows: 0 }) };
        match g.rng().random_range(0..100) {
            0..30 => self.insert(conn, g, table).await,
            30..70 => self.update(conn, g, table).await,
            70..78 => self.many(conn, g).await,
            78..87 => delete_and_insert(conn, g, table).await,
            87..90 => change_key(conn, g, table).await,
            90..95 => self.replace(conn, g, table).await,
            _ => delete(conn, g, table).await,
        }
    }

    async fn insert(&self, conn: &mut Conn, g: &mut Generator, table: &Target) -> Result<Step, Error> {
        let nothing = Step { kind: "insert", rows: 0 };
        let mut row = self.new_values(g, &table.info);
        if let [only] = table.info.primary_key.as_slice()
            && !table.info.foreign_keys.iter().any(|k| k.columns.contains(only))
            && let Some(next) = lock(&table.next).as_mut()
        {
            *next += 1;
            row.insert(only.clone(), (*next).into());
        }
        let columns: Vec<String> = writable(&table.info).filter(|c| row.contains_key(*c)).cloned().collect();
        let key: Option<Key> = table.info.primary_key.iter().map(|c| row.get(c).cloned()).collect();
        let Some(key) = key else { return Ok(nothing) };
        let values: Vec<Value> = columns.iter().filter_map(|c| row.remove(c)).collect();
        let into = format!("{} ({})", table.info.sql_name(), list(&columns, tick));
        let rows = execute(conn, &insert("INSERT", &into, columns.len(), 1), values).await?;
        lock(&table.keys).push(key);
        Ok(Step { rows, ..nothing })
    }

    async fn update(&self, conn: &mut Conn, g: &mut Generator, table: &Target) -> Result<Step, Error> {
        let Some(key) = some_key(g, table) else { return Ok(Step { kind: "update", rows: 0 }) };
        let free: Vec<String> =
            writable(&table.info).filter(|c| !table.info.primary_key.contains(c)).cloned().collect();
        if free.is_empty() {
            return Ok(Step { kind: "update", rows: 0 });
        }
        let mut values = self.new_values(g, &table.info);
        let mut kind = "update";
        let some = g.rng().random_range(1..=free.len().min(3));
        let chosen: Vec<String> = free.choose_multiple(g.rng(), some).cloned().collect();
        let mut set = Vec::new();
        let mut parameters = Vec::new();
        for name in &chosen {
            let nullable = table.info.column(name).is_some_and(|c| c.nullable);
            if nullable && g.rng().random_range(0..4) == 0 {
                values.insert(name.clone(), Value::NULL);
                kind = "update to NULL";
            }
            let Some(value) = values.remove(name) else { continue };
            set.push(format!("{} = ?", tick(name)));
            parameters.push(value);
        }
        if set.is_empty() {
            return Ok(Step { kind, rows: 0 });
        }
        parameters.extend(key);
        let sql =
            format!("UPDATE {} SET {} WHERE {}", table.info.sql_name(), set.join(", "), by_key(&table.info));
        Ok(Step { kind, rows: execute(conn, &sql, parameters).await? })
    }

    /// Several updates of several tables in one transaction.
    async fn many(&self, conn: &mut Conn, g: &mut Generator) -> Result<Step, Error> {
        conn.query_drop("BEGIN").await?;
        let mut rows = 0;
        for _ in 0..g.rng().random_range(2..8) {
            if let Some(table) = self.tables.choose(g.rng()) {
                rows += self.update(conn, g, table).await?.rows;
            }
        }
        conn.query_drop("COMMIT").await?;
        Ok(Step { kind: "transaction of many rows", rows })
    }

    async fn replace(&self, conn: &mut Conn, g: &mut Generator, table: &Target) -> Result<Step, Error> {
        let nothing = Step { kind: "replace", rows: 0 };
        let Some(key) = some_key(g, table) else { return Ok(nothing) };
        let mut row = self.new_values(g, &table.info);
        row.extend(table.info.primary_key.iter().cloned().zip(key));
        let columns: Vec<String> = writable(&table.info).filter(|c| row.contains_key(*c)).cloned().collect();
        let values = columns.iter().filter_map(|c| row.remove(c)).collect();
        let into = format!("{} ({})", table.info.sql_name(), list(&columns, tick));
        let rows = execute(conn, &insert("REPLACE", &into, columns.len(), 1), values).await?;
        Ok(Step { rows, ..nothing })
    }

    /// A value for each column that can be written. Foreign keys get the values of a parent row.
    fn new_values(&self, g: &mut Generator, info: &TableInfo) -> HashMap<String, Value> {
        let mut row = HashMap::new();
        for column in info.columns.iter().filter(|c| !c.generated) {
            if column.nullable && g.rng().random_range(0..6) == 0 {
                row.insert(column.name.clone(), Value::NULL);
            } else if let Some(value) = plausible::value(column, g) {
                row.insert(column.name.clone(), value);
            }
        }
        for key in &info.foreign_keys {
            let held = self.parents.get(&(key.parent.clone(), key.parent_columns.clone()));
            if let Some(parent) = held.and_then(|held| held.choose(g.rng())) {
                row.extend(key.columns.iter().cloned().zip(parent.iter().cloned()));
            }
        }
        row
    }
}

/// Changes a row's key if the key is one integer.
async fn change_key(conn: &mut Conn, g: &mut Generator, table: &Target) -> Result<Step, Error> {
    let nothing = Step { kind: "change of the primary key", rows: 0 };
    let new: Value = match (table.info.primary_key.as_slice(), lock(&table.next).as_mut()) {
        ([_], Some(next)) => {
            *next += 1;
            (*next).into()
        }
        _ => return Ok(nothing),
    };
    let Some(old) = some_key(g, table) else { return Ok(nothing) };
    let sql = format!(
        "UPDATE {} SET {} = ? WHERE {}",
        table.info.sql_name(),
        list(&table.info.primary_key, tick),
        by_key(&table.info)
    );
    let rows = execute(conn, &sql, [vec![new.clone()], old.clone()].concat()).await?;
    if rows > 0 {
        let mut keys = lock(&table.keys);
        keys.retain(|key| *key != old);
        keys.push(vec![new]);
    }
    Ok(Step { rows, ..nothing })
}

/// Deletes a row and inserts it again unchanged, in one transaction.
async fn delete_and_insert(conn: &mut Conn, g: &mut Generator, table: &Target) -> Result<Step, Error> {
    let nothing = Step { kind: "delete and insert again", rows: 0 };
    let Some(key) = some_key(g, table) else { return Ok(nothing) };
    let columns: Vec<String> = writable(&table.info).cloned().collect();
    let (name, by) = (table.info.sql_name(), by_key(&table.info));
    conn.query_drop("BEGIN").await?;
    let select = format!("SELECT {} FROM {name} WHERE {by} FOR UPDATE", list(&columns, tick));
    let found: Option<mysql_async::Row> = conn.exec_first(select, key.clone()).await?;
    let Some(row) = found else {
        conn.query_drop("COMMIT").await?;
        return Ok(nothing);
    };
    let mut rows = execute(conn, &format!("DELETE FROM {name} WHERE {by}"), key).await?;
    let into = format!("{name} ({})", list(&columns, tick));
    rows += execute(conn, &insert("INSERT", &into, columns.len(), 1), row.unwrap()).await?;
    conn.query_drop("COMMIT").await?;
    Ok(Step { rows, ..nothing })
}

async fn delete(conn: &mut Conn, g: &mut Generator, table: &Target) -> Result<Step, Error> {
    let nothing = Step { kind: "delete", rows: 0 };
    let Some(key) = some_key(g, table) else { return Ok(nothing) };
    let sql = format!("DELETE FROM {} WHERE {}", table.info.sql_name(), by_key(&table.info));
    let rows = execute(conn, &sql, key.clone()).await?;
    lock(&table.keys).retain(|k| *k != key);
    Ok(Step { rows, ..nothing })
}

fn some_key(g: &mut Generator, table: &Target) -> Option<Key> {
    lock(&table.keys).choose(g.rng()).cloned()
}

fn writable(info: &TableInfo) -> impl Iterator<Item = &String> {
    info.columns.iter().filter(|c| !c.generated).map(|c| &c.name)
}

/// `` `a` = ? AND `b` = ? ``.
fn by_key(info: &TableInfo) -> String {
    info.primary_key.iter().map(|c| format!("{} = ?", tick(c))).collect::<Vec<_>>().join(" AND ")
}

/// Some columns of the rows of a table, at most [`KEYS_HELD`].
async fn rows(conn: &mut Conn, info: &TableInfo, columns: &[String]) -> Result<Vec<Key>> {
    let columns = list(columns, tick);
    let sql = format!("SELECT {columns} FROM {} ORDER BY {columns} LIMIT {KEYS_HELD}", info.sql_name());
    let rows: Vec<mysql_async::Row> =
        conn.exec(sql, ()).await.with_context(|| format!("read the keys of {}", info.name))?;
    Ok(rows.into_iter().map(mysql_async::Row::unwrap).collect())
}

/// The highest key, if the key is one integer.
async fn highest(conn: &mut Conn, info: &TableInfo) -> Result<Option<i64>> {
    let [only] = info.primary_key.as_slice() else { return Ok(None) };
    if !info.column(only).is_some_and(|c| c.data_type.ends_with("int")) {
        return Ok(None);
    }
    let sql = format!("SELECT COALESCE(MAX({}), 0) FROM {}", tick(only), info.sql_name());
    conn.query_first(sql).await.with_context(|| format!("read the highest key of {}", info.name))
}

/// A key in the spelling in which it is read from Cassandra.
fn spell(info: &TableInfo, key: &[Value]) -> Result<Vec<String>> {
    let cell = |(name, value): (&String, &Value)| {
        let data_type = info.column(name).map_or("", |c| c.data_type.as_str());
        let form = match data_type {
            "decimal" => Form::Decimal,
            "date" => Form::Date,
            "datetime" | "timestamp" => Form::Timestamp,
            _ => Form::Text,
        };
        Ok(of_mysql(value, data_type, form)?.unwrap_or_default())
    };
    info.primary_key.iter().zip(key).map(cell).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_compare::stores::schema::Column;

    #[test]
    fn keys_are_spelled_as_cassandra_shows_them() {
        let column = |name: &str, data_type: &str| Column {
            name: name.into(),
            data_type: data_type.into(),
            ..Column::default()
        };
        let info = TableInfo {
            columns: vec![column("n", "int"), column("b", "binary"), column("t", "datetime")],
            primary_key: vec!["t".into(), "n".into(), "b".into()],
            ..TableInfo::default()
        };
        let key = [Value::Date(2020, 1, 2, 3, 4, 5, 0), Value::Int(7), Value::Bytes(vec![1])];
        assert_eq!(spell(&info, &key).unwrap(), ["2020-01-02 03:04:05.000", "7", "0x01"]);
        assert_eq!(by_key(&info), "`t` = ? AND `n` = ? AND `b` = ?");
    }
}
