//! Corrupts rows in Cassandra with out-of-band writes: a changed cell, a deleted row, an inserted row.
//!
//! Only quiet rows are used. The traffic leaves them alone, so only verification and repair can fix them. The
//! statements are plain CQL with the current time as their timestamp.

use anyhow::{Context, Result};
use futures::TryStreamExt as _;
use mysql_async::Conn;
use num_bigint::BigInt;
use scylla::client::session::Session;
use scylla::cluster::metadata::Table;
use scylla::statement::Statement;
use scylla::value::{CqlDate, CqlDecimal, CqlTimestamp, CqlValue, CqlVarint, Row};

use tandem_compare::stores::canonical::of_cassandra;
use tandem_compare::stores::config::{Config, Source, Target};
use tandem_compare::stores::schema::{self, TableInfo, list, quote};

use crate::dump::Reserved;
use crate::sample::QUIET;

/// Which rows the traffic leaves alone.
#[derive(Debug)]
pub(crate) enum Quiet {
    /// Those whose first key column is a multiple of [`QUIET`].
    Multiples,
    /// These, by table.
    Rows(Reserved),
}

impl Quiet {
    fn has(&self, table: &str, key: &[String]) -> bool {
        match self {
            Self::Multiples => {
                key.first().and_then(|k| k.parse::<u64>().ok()).is_some_and(|k| k.is_multiple_of(QUIET))
            }
            Self::Rows(rows) => rows.get(table).is_some_and(|keys| keys.contains(key)),
        }
    }
}

/// One change that was made to Cassandra.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Corruption {
    /// The table in Cassandra.
    pub(crate) table: String,
    /// The row's key and what was done to it.
    pub(crate) what: String,
}

/// Corrupts rows of up to `tables` target tables. In each table it changes one cell, deletes one row and
/// inserts one row, as far as there are quiet rows.
pub(crate) async fn corrupt(config: &Config, quiet: &Quiet, tables: usize) -> Result<Vec<Corruption>> {
    let mut conn = schema::mysql(&config.mysql.url).await?;
    let session = schema::cassandra(&config.cassandra.nodes).await?;
    let mut done = Vec::new();
    let mut touched = 0;
    for (source, target) in by_priority(config) {
        if touched == tables {
            break;
        }
        let mut corruptor =
            Corruptor::new(&mut conn, &session, &config.cassandra.keyspace, source, target).await?;
        let before = done.len();
        corruptor.corrupt(quiet, &mut done).await.with_context(|| format!("corrupt {}", target.table))?;
        touched += usize::from(done.len() > before);
    }
    let _ = conn.disconnect().await;
    Ok(done)
}

/// The targets in the order of their use: the last target of each table before the others.
fn by_priority(config: &Config) -> Vec<(&Source, &Target)> {
    let mut targets: Vec<(usize, &Source, &Target)> = Vec::new();
    for source in &config.tables {
        for (n, target) in source.targets.iter().rev().enumerate() {
            targets.push((n, source, target));
        }
    }
    targets.sort_by_key(|(n, source, target)| {
        (*n, std::cmp::Reverse(source.targets.len() + target.key().len()))
    });
    targets.into_iter().map(|(_, source, target)| (source, target)).collect()
}

/// Corrupts rows of one table.
struct Corruptor<'a> {
    session: &'a Session,
    name: String,
    target: &'a Target,
    info: TableInfo,
    shape: Table,
    /// Key columns first, then the others, by name.
    columns: Vec<String>,
    key_length: usize,
    /// Where the source's key columns are in `columns`.
    source_key: Vec<usize>,
}

impl<'a> Corruptor<'a> {
    async fn new(
        conn: &mut Conn,
        session: &'a Session,
        keyspace: &str,
        source: &Source,
        target: &'a Target,
    ) -> Result<Self> {
        let (database, table) = source.parts()?;
        let info = schema::mysql_table(conn, &database, &table).await?;
        let shape = schema::cassandra_table(session, keyspace, &target.table).await?;
        let mut columns: Vec<String> =
            shape.partition_key.iter().chain(&shape.clustering_key).cloned().collect();
        let key_length = columns.len();
        let mut others: Vec<String> =
            shape.columns.keys().filter(|c| !columns.contains(c)).cloned().collect();
        others.sort();
        columns.extend(others);
        let place = |column: &String| {
            let name = target.name_of(column).with_context(|| format!("{column} is left out"))?;
            columns.iter().position(|c| *c == name).with_context(|| format!("{name} is not in Cassandra"))
        };
        let source_key = info.primary_key.iter().map(place).collect::<Result<_>>()?;
        let name = format!("{}.{}", quote(keyspace), quote(&target.table));
        Ok(Self { session, name, target, info, shape, columns, key_length, source_key })
    }

    async fn corrupt(&mut self, quiet: &Quiet, done: &mut Vec<Corruption>) -> Result<()> {
        let mut rows = self.quiet_rows(quiet).await?.into_iter();
        let mut say = |what| done.push(Corruption { table: self.target.table.clone(), what });
        if let Some(row) = rows.next() {
            say(self.add_row(&row).await?);
            // If a table has only one quiet row, a cell of it is changed. If the row has only key columns, it
            // is deleted.
            match self.change_cell(&row).await? {
                Some(changed) => say(changed),
                None => say(self.delete_row(&row).await?),
            }
        }
        if let Some(row) = rows.next() {
            say(self.delete_row(&row).await?);
        }
        Ok(())
    }

    /// At most two quiet rows.
    async fn quiet_rows(&self, quiet: &Quiet) -> Result<Vec<Vec<Option<CqlValue>>>> {
        let cql = format!("SELECT {} FROM {}", list(&self.columns, quote), self.name);
        let prepared = self.session.prepare(Statement::new(cql).with_page_size(500)).await?;
        let mut rows = self.session.execute_iter(prepared, ()).await?.rows_stream::<Row>()?;
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await? {
            let key: Vec<String> = self
                .source_key
                .iter()
                .map(|i| Ok(of_cassandra(row.columns[*i].as_ref())?.unwrap_or_default()))
                .collect::<Result<_>>()?;
            if quiet.has(&self.info.name, &key) {
                found.push(row.columns);
                if found.len() == 2 {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Changes a cell that has a value; `None` if the row has no cell that can be changed.
    async fn change_cell(&self, row: &[Option<CqlValue>]) -> Result<Option<String>> {
        // Texts and amounts are easier to recognise in the report than flags.
        let weight = |value: &CqlValue| match value {
            CqlValue::Decimal(_) => 0,
            CqlValue::Text(_) => 1,
            _ => 2,
        };
        let mut candidates: Vec<usize> = (self.key_length..row.len())
            .filter(|i| row[*i].as_ref().and_then(other_than).is_some())
            .collect();
        candidates.sort_by_key(|i| row[*i].as_ref().map_or(9, weight));
        let Some(&at) = candidates.first() else { return Ok(None) };
        let Some(new) = row[at].as_ref().and_then(other_than) else { return Ok(None) };
        let column = &self.columns[at];
        let cql = format!("UPDATE {} SET {} = ? WHERE {}", self.name, quote(column), self.by_key());
        let mut values = vec![Some(new)];
        values.extend_from_slice(&row[..self.key_length]);
        let prepared = self.session.prepare(cql).await?;
        self.session.execute_unpaged(&prepared, values).await?;
        Ok(Some(format!("{}: another value in {column}", self.key_text(row)?)))
    }

    async fn delete_row(&self, row: &[Option<CqlValue>]) -> Result<String> {
        let cql = format!("DELETE FROM {} WHERE {}", self.name, self.by_key());
        let prepared = self.session.prepare(cql).await?;
        self.session.execute_unpaged(&prepared, &row[..self.key_length]).await?;
        Ok(format!("{}: row deleted", self.key_text(row)?))
    }

    /// Inserts a copy of a row under a key that MySQL does not have.
    async fn add_row(&self, row: &[Option<CqlValue>]) -> Result<String> {
        let mut copy = row.to_vec();
        // One column of the source's key, the last where possible, gets a value that no row has.
        for &at in self.source_key.iter().rev() {
            if let Some(unused) = copy[at].as_ref().and_then(unused) {
                copy[at] = Some(unused);
                break;
            }
        }
        let marks = vec!["?"; copy.len()].join(", ");
        let cql = format!("INSERT INTO {} ({}) VALUES ({marks})", self.name, list(&self.columns, quote));
        let prepared = self.session.prepare(cql).await?;
        self.session.execute_unpaged(&prepared, &copy).await?;
        Ok(format!("{}: row inserted that MySQL does not have", self.key_text(&copy)?))
    }

    fn by_key(&self) -> String {
        let key = self.shape.partition_key.iter().chain(&self.shape.clustering_key);
        key.map(|c| format!("{} = ?", quote(c))).collect::<Vec<_>>().join(" AND ")
    }

    fn key_text(&self, row: &[Option<CqlValue>]) -> Result<String> {
        let cell = |i: usize| -> Result<String> {
            Ok(format!("{}={}", self.columns[i], of_cassandra(row[i].as_ref())?.unwrap_or_default()))
        };
        Ok((0..self.key_length).map(cell).collect::<Result<Vec<_>>>()?.join(" "))
    }
}

/// Another value of the same type; `None` for types that are left alone.
fn other_than(value: &CqlValue) -> Option<CqlValue> {
    Some(match value {
        CqlValue::TinyInt(v) => CqlValue::TinyInt(v ^ 1),
        CqlValue::SmallInt(v) => CqlValue::SmallInt(v ^ 1),
        CqlValue::Int(v) => CqlValue::Int(v ^ 1),
        CqlValue::BigInt(v) => CqlValue::BigInt(v ^ 1),
        CqlValue::Decimal(v) => {
            let (unscaled, scale) = v.as_signed_be_bytes_slice_and_exponent();
            let other: BigInt = BigInt::from_signed_bytes_be(unscaled) + 1;
            CqlValue::Decimal(CqlDecimal::from_signed_be_bytes_and_exponent(
                other.to_signed_bytes_be(),
                scale,
            ))
        }
        CqlValue::Text(v) => CqlValue::Text(format!("{v} (changed by somebody else)")),
        CqlValue::Timestamp(v) => CqlValue::Timestamp(CqlTimestamp(v.0 + 86_400_000)),
        CqlValue::Date(v) => CqlValue::Date(CqlDate(v.0 ^ 1)),
        CqlValue::Double(v) => CqlValue::Double(v + 1.0),
        CqlValue::Float(v) => CqlValue::Float(v + 1.0),
        _ => return None,
    })
}

/// A value of the same type that no row has.
fn unused(value: &CqlValue) -> Option<CqlValue> {
    const NUMBER: i32 = 2_000_000_073;
    Some(match value {
        CqlValue::TinyInt(_) => CqlValue::TinyInt(i8::MAX),
        CqlValue::SmallInt(_) => CqlValue::SmallInt(32_073),
        CqlValue::Int(_) => CqlValue::Int(NUMBER),
        CqlValue::BigInt(_) => CqlValue::BigInt(i64::from(NUMBER)),
        CqlValue::Varint(_) => {
            CqlValue::Varint(CqlVarint::from_signed_bytes_be(BigInt::from(NUMBER).to_signed_bytes_be()))
        }
        CqlValue::Text(v) => CqlValue::Text(format!("{v}~")),
        CqlValue::Timestamp(_) => CqlValue::Timestamp(CqlTimestamp(4_102_444_799_000)),
        CqlValue::Date(v) => CqlValue::Date(CqlDate(v.0 + 30_000)),
        CqlValue::Blob(v) => CqlValue::Blob(v.iter().map(|b| !b).collect()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_rows() {
        assert!(Quiet::Multiples.has("t", &["194".into(), "1".into()]));
        assert!(!Quiet::Multiples.has("t", &["195".into()]));
        let rows = Reserved::from([("t".to_owned(), [vec!["a".to_owned()]].into())]);
        let quiet = Quiet::Rows(rows);
        assert!(quiet.has("t", &["a".into()]));
        assert!(!quiet.has("t", &["b".into()]) && !quiet.has("u", &["a".into()]));
    }

    #[test]
    fn another_value_is_another_value() {
        let decimal = CqlDecimal::from_signed_be_bytes_and_exponent(vec![0xff], 2);
        for value in [CqlValue::Int(3), CqlValue::Text(String::new()), CqlValue::Decimal(decimal)] {
            let spelled = |v: &CqlValue| of_cassandra(Some(v)).unwrap();
            assert_ne!(spelled(&value), spelled(&other_than(&value).unwrap()));
        }
        assert_eq!(other_than(&CqlValue::Blob(vec![])), None);
    }
}
