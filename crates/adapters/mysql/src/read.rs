//! Reads of MySQL's current state over one connection.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, ServerError, Value as Raw};
use tandem_model::{BinlogPosition, ColumnDef, GtidSet, Row, TableDef, TableName, Value};

use crate::connect::{Lease, Server};
use crate::error::MysqlError;
use query::{chunk, keys as key_query, max_key, range_parameters};
use select::{key_parameters, select_rows};

pub(crate) mod query;
pub(crate) mod select;
mod values;

/// Limit for one read of rows.
const READ_TIMEOUT: Duration = Duration::from_mins(2);

/// The most keys in one statement.
const KEYS_PER_STATEMENT: usize = 128;

/// One connection that reads. Each call opens its own read view, after the call starts.
///
/// Take a new reader after [`MysqlError::Lost`] and after a cancelled call. The connection may then hold an
/// unread answer, so it is closed instead of returned to the pool.
#[derive(Debug)]
pub struct Reader {
    lease: Lease,
    server: Server,
}

impl Reader {
    pub(crate) fn new(conn: Conn, server: Server) -> Self {
        Self { lease: Lease::new(conn), server }
    }

    /// Sets the timeout of the queries that do not read rows.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.server.timeout = limit;
        self
    }

    /// Returns the executed GTID set. The next read sees at least these transactions.
    ///
    /// # Errors
    /// The connection is lost or the query fails.
    pub async fn executed(&mut self) -> Result<GtidSet, MysqlError> {
        self.gtid_set("SELECT @@GLOBAL.gtid_executed", "asking for the executed GTID set").await
    }

    /// Returns the GTID set of the transactions that the server has purged from its binlogs.
    ///
    /// # Errors
    /// The connection is lost or the query fails.
    pub async fn purged(&mut self) -> Result<GtidSet, MysqlError> {
        self.gtid_set("SELECT @@GLOBAL.gtid_purged", "asking for the purged GTID set").await
    }

    async fn gtid_set(&mut self, sql: &str, doing: &'static str) -> Result<GtidSet, MysqlError> {
        let question = self.lease.conn().query_first::<String, _>(sql);
        let text = self.server.answer(self.server.timeout, doing, question).await?.unwrap_or_default();
        self.lease.is_clean();
        text.parse().map_err(|_| unexpected(doing))
    }

    /// Returns the end of the binlog. The previous read saw no change beyond it.
    ///
    /// # Errors
    /// The connection is lost, the query fails, or the binlog is off.
    pub async fn binlog_end(&mut self) -> Result<BinlogPosition, MysqlError> {
        let doing = "asking for the end of the binlog (SHOW BINARY LOG STATUS)";
        let conn = self.lease.conn();
        let question = async {
            match conn.query_first::<mysql_async::Row, _>("SHOW BINARY LOG STATUS").await {
                // Servers older than 8.2.
                Err(Error::Server(ServerError { code: 1064, .. })) => {
                    conn.query_first("SHOW MASTER STATUS").await
                }
                answer => answer,
            }
        };
        let row = self.server.answer(self.server.timeout, doing, question).await?;
        self.lease.is_clean();
        let cell = |i: usize| row.as_ref().and_then(|r| r.get_opt::<String, _>(i)).and_then(Result::ok);
        match (cell(0), cell(1).and_then(|pos| pos.parse().ok())) {
            (Some(file), Some(pos)) => Ok(BinlogPosition { file: file.into(), pos }),
            _ => Err(unexpected(doing)),
        }
    }

    /// Counts the pending XA transactions: prepared, neither committed nor rolled back. Returns `None` where
    /// the account lacks `XA_RECOVER_ADMIN`.
    ///
    /// # Errors
    /// The connection is lost or the query fails.
    pub async fn prepared(&mut self) -> Result<Option<usize>, MysqlError> {
        let conn = self.lease.conn();
        let question = async {
            match conn.query::<mysql_async::Row, _>("XA RECOVER").await {
                // XAER_RMERR, or a privilege is missing.
                Err(Error::Server(ServerError { code: 1227 | 1401, .. })) => Ok(None),
                rows => rows.map(|rows| Some(rows.len())),
            }
        };
        let count =
            self.server.answer(self.server.timeout, "asking for prepared XA transactions", question).await?;
        self.lease.is_clean();
        Ok(count)
    }

    /// Returns the server's clock, in microseconds since the epoch.
    ///
    /// # Errors
    /// The connection is lost or the query fails.
    pub async fn clock_us(&mut self) -> Result<i64, MysqlError> {
        let doing = "asking for the server's clock";
        let sql = "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)";
        let question = self.lease.conn().query_first::<i64, _>(sql);
        let clock = self.server.answer(self.server.timeout, doing, question).await?;
        self.lease.is_clean();
        clock.ok_or_else(|| unexpected(doing))
    }

    /// Returns the greatest primary key in key order; `None` for an empty table.
    ///
    /// # Errors
    /// The connection is lost, the query fails, or the table has changed.
    pub async fn max_key(&mut self, table: &TableDef) -> Result<Option<Vec<Value>>, MysqlError> {
        let columns: Vec<_> = table.primary_key.iter().map(|&i| &table.columns[i]).collect();
        let mut rows = self.rows(&table.name, &columns, &max_key(table), Vec::new()).await?;
        Ok(rows.pop())
    }

    /// Reads up to `limit` rows in primary key order, with keys greater than `after` and not greater than
    /// `upto`. Without `after` it starts at the first key. MySQL compares the keys, by their collations.
    ///
    /// # Errors
    /// The connection is lost, the query fails, the table has changed, or a value cannot be converted.
    pub async fn read_chunk(
        &mut self,
        table: &TableDef,
        after: Option<&[Value]>,
        upto: &[Value],
        limit: usize,
    ) -> Result<Vec<Row>, MysqlError> {
        let mut params = Vec::new();
        for bound in after.into_iter().chain([upto]) {
            params.extend(range_parameters(&key_parameters(table, bound)?));
        }
        let columns: Vec<_> = table.columns.iter().collect();
        self.rows(&table.name, &columns, &chunk(table, after.is_some(), limit), params).await
    }

    /// Reads the rows of these keys, in the order of the keys; `None` where no row has exactly that key. Keys
    /// that are equal only by a collation are different keys: `'a'` does not return the row of `'A'`.
    ///
    /// More than 128 keys take several statements, each with its own read view.
    ///
    /// # Errors
    /// The connection is lost, the query fails, the table has changed, or a value cannot be converted.
    pub async fn read_keys(
        &mut self,
        table: &TableDef,
        keys: &[Vec<Value>],
    ) -> Result<Vec<Option<Row>>, MysqlError> {
        let columns: Vec<_> = table.columns.iter().collect();
        let mut out = Vec::with_capacity(keys.len());
        for some in keys.chunks(KEYS_PER_STATEMENT) {
            // The last key is repeated until the count is a power of two. This keeps the number of
            // prepared statements small.
            let n = some.len().next_power_of_two();
            let mut params = Vec::with_capacity(n * table.primary_key.len());
            for key in some.iter().chain(some.last().into_iter().cycle()).take(n) {
                params.extend(key_parameters(table, key)?);
            }
            let rows = self.rows(&table.name, &columns, &key_query(table, n), params).await?;
            let mut by_key: HashMap<u64, Vec<Row>> = HashMap::with_capacity(rows.len());
            for row in rows {
                by_key.entry(key_hash(&table.key_of(&row))).or_default().push(row);
            }
            out.extend(some.iter().map(|key| {
                by_key
                    .get(&key_hash(key))
                    .into_iter()
                    .flatten()
                    .find(|row| table.key_of(row) == *key)
                    .cloned()
            }));
        }
        Ok(out)
    }

    /// Returns the optimizer's estimate of a table's row count.
    ///
    /// # Errors
    /// The connection is lost or the query fails.
    pub async fn approximate_rows(&mut self, table: &TableName) -> Result<u64, MysqlError> {
        let sql =
            "SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
        let names = (&table.database, &table.table);
        let question = self.lease.conn().exec_first::<Option<u64>, _, _>(sql, names);
        let doing = format!("estimating the rows of {table}");
        let rows = self.server.answer(self.server.timeout, &doing, question).await?;
        self.lease.is_clean();
        Ok(rows.flatten().unwrap_or(0))
    }

    async fn rows(
        &mut self,
        table: &TableName,
        columns: &[&ColumnDef],
        sql: &str,
        params: Vec<Raw>,
    ) -> Result<Vec<Row>, MysqlError> {
        let rows =
            select_rows(self.lease.conn(), &self.server, READ_TIMEOUT, table, columns, sql, params).await?;
        self.lease.is_clean();
        Ok(rows)
    }
}

/// Hashes a key. Equal keys have equal hashes. Keys never contain FLOAT or DOUBLE.
fn key_hash(key: &[Value]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for value in key {
        match value {
            Value::Null | Value::Float(_) | Value::Double(_) => {}
            Value::Int(n) | Value::Time(n) | Value::DateTime(n) | Value::Timestamp(n) => n.hash(&mut hasher),
            Value::UInt(n) => n.hash(&mut hasher),
            Value::Decimal(decimal) => decimal.hash(&mut hasher),
            Value::Date(days) => days.hash(&mut hasher),
            Value::Text(text) | Value::InvalidDate(text) => text.hash(&mut hasher),
            Value::Bytes(bytes) => bytes.hash(&mut hasher),
        }
    }
    hasher.finish()
}

fn unexpected(doing: &str) -> MysqlError {
    MysqlError::Server {
        code: 0,
        message: "the answer has an unexpected form".into(),
        doing: doing.to_owned(),
    }
}
