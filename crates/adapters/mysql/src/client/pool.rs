//! Connections for client reads and client transactions.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Opts, Pool, PoolConstraints, PoolOpts};
use tandem_model::{GtidSet, Row, TableDef, TableName, Value};
use tokio::time::Instant;

use crate::client::partition_read::{self, PartitionRead};
use crate::client::transaction::ClientTransaction;
use crate::client::visible::visible;
use crate::connect::MysqlConfig;
use crate::connect::{Killer, Lease, Server, left};
use crate::error::MysqlError;
use crate::read::query::{keys as key_query, quoted, quoted_table};
use crate::read::select::{key_parameters, select_rows};

/// The session variables of every connection.
///
/// - Strict SQL mode: MySQL stores a client's value unchanged or refuses it.
/// - READ COMMITTED: a locking read sees the last committed row. Locking a missing key locks no gap.
/// - `max_execution_time`: ends reads that outlive a gateway. A gateway that lives kills them at their deadline, which is
///   at most a minute.
/// - `lc_time_names`: marks the session's transactions in the binlog
///   ([`GATEWAY_LOCALE`](tandem_binlog::GATEWAY_LOCALE)).
const SETUP: &str = "SET SESSION autocommit = 1, transaction_isolation = 'READ-COMMITTED', time_zone = '+00:00', \
                     lc_time_names = 'en_ZW', sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,\
                     NO_ENGINE_SUBSTITUTION', innodb_lock_wait_timeout = 5, max_execution_time = 65000";

/// How long a connection may be idle before it is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Answers that one statement deletes at most, so that it holds few locks.
const FORGET_AT_ONCE: u64 = 2_000;
/// How long one such statement may take.
const FORGET_TIMEOUT: Duration = Duration::from_secs(30);

/// Which answers of idempotency keys were deleted, of those that are old enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// All.
    All,
    /// As many as one statement deletes. There may be more.
    Some,
}

/// A bounded connection pool for client reads and client transactions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientPool {
    pool: Pool,
    server: Server,
    killer: Arc<Killer>,
}

impl ClientPool {
    /// Connects. Makes one attempt, without retries. The pool opens at most `connections` connections.
    ///
    /// # Errors
    /// The URL or a TLS file is invalid, the server cannot be reached, or it refuses the account.
    pub async fn connect(config: &MysqlConfig, connections: usize) -> Result<Self, MysqlError> {
        let limits = PoolConstraints::new(1, connections.max(1)).unwrap_or_default();
        // Without an idle time the driver keeps one connection and closes every other one on return. Most
        // requests would then connect and prepare their statements again.
        let pooled = PoolOpts::default()
            .with_constraints(limits)
            .with_inactive_connection_ttl(IDLE_TIMEOUT)
            .with_reset_connection(false);
        let opts: Opts = config.options(vec![SETUP.to_owned()])?.pool_opts(pooled).into();
        let server = Server::new(config, &opts);
        let killer = Killer::new(opts.clone(), server.clone());
        let pool = Self { pool: Pool::new(opts), server, killer };
        pool.lease(Instant::now() + pool.server.timeout).await?;
        Ok(pool)
    }

    /// Takes a connection, within the connect timeout and before `deadline`. A statement whose answer is not awaited any
    /// more, because the deadline has passed or the client is gone, is killed.
    async fn lease(&self, deadline: Instant) -> Result<Lease, MysqlError> {
        let connecting = self.server.connecting(self.pool.get_conn());
        let conn = tokio::time::timeout_at(deadline, connecting).await.unwrap_or_else(|_| {
            Err(MysqlError::Unreachable {
                address: self.server.address.clone(),
                cause: "no connection became free in time".into(),
            })
        })?;
        let (mut lease, is_new) = Lease::watched(conn, &self.killer);
        if is_new {
            let question = self.killer.know(lease.conn());
            self.server.answer(left(deadline), "naming a connection", question).await?;
            lease.is_clean();
        }
        Ok(lease)
    }

    /// Begins a transaction. Every statement before the COMMIT must end before `deadline`.
    ///
    /// # Errors
    /// No connection is available before the deadline, or the server refuses.
    pub async fn begin(&self, deadline: Instant) -> Result<ClientTransaction, MysqlError> {
        let mut lease = self.lease(deadline).await?;
        let question = lease.conn().query_drop("START TRANSACTION");
        let answer = self.server.answer(left(deadline), "beginning a transaction", question).await;
        lease.answered(&answer);
        answer?;
        Ok(ClientTransaction::new(lease, self.server.clone(), deadline))
    }

    /// Reads the committed row with exactly this key.
    ///
    /// # Errors
    /// The read does not end before the deadline, the table has changed, or a value cannot be converted.
    pub async fn read(
        &self,
        table: &TableDef,
        key: &[Value],
        deadline: Instant,
    ) -> Result<Option<Row>, MysqlError> {
        let params = key_parameters(table, key)?;
        let rows = self.select(table, &key_query(table, 1), params, deadline).await?;
        Ok(rows.into_iter().find(|row| table.key_of(row) == key))
    }

    /// Reads rows of one partition of a target table, in the target's order.
    ///
    /// # Errors
    /// The read does not end before the deadline, the table has changed, or a value cannot be converted.
    pub async fn read_partition(
        &self,
        table: &TableDef,
        query: &PartitionRead,
        deadline: Instant,
    ) -> Result<Vec<Row>, MysqlError> {
        let (sql, params) = partition_read::statement(table, query)?;
        self.select(table, &sql, params, deadline).await
    }

    async fn select(
        &self,
        table: &TableDef,
        sql: &str,
        params: Vec<mysql_async::Value>,
        deadline: Instant,
    ) -> Result<Vec<Row>, MysqlError> {
        let mut lease = self.lease(deadline).await?;
        let columns: Vec<_> = table.columns.iter().collect();
        let rows =
            select_rows(lease.conn(), &self.server, left(deadline), &table.name, &columns, sql, params).await;
        lease.answered(&rows);
        let rows = rows?;
        lease.is_clean();
        Ok(rows)
    }

    /// Returns a GTID set that contains every transaction that an earlier read may have seen.
    ///
    /// # Errors
    /// The query does not end before the deadline or fails.
    pub async fn visible(&self, deadline: Instant) -> Result<GtidSet, MysqlError> {
        let mut lease = self.lease(deadline).await?;
        let gtids = visible(lease.conn(), &self.server, left(deadline)).await?;
        lease.is_clean();
        Ok(gtids)
    }

    /// Returns the table's AUTO_INCREMENT column, if it has one.
    ///
    /// # Errors
    /// The server cannot be reached or the query fails.
    pub async fn auto_increment(&self, table: &TableName) -> Result<Option<String>, MysqlError> {
        let deadline = Instant::now() + self.server.timeout;
        let mut lease = self.lease(deadline).await?;
        let sql = "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? \
                   AND EXTRA LIKE '%auto_increment%'";
        let question = lease.conn().exec_first::<String, _, _>(sql, (&table.database, &table.table));
        let column = self.server.answer(left(deadline), "looking for generated keys", question).await?;
        lease.is_clean();
        Ok(column)
    }

    /// Creates the table that stores answers by idempotency key, if it does not exist.
    ///
    /// # Errors
    /// The server cannot be reached, or the account may not create the table.
    pub async fn create_idempotency_table(&self, table: &TableName) -> Result<(), MysqlError> {
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {} (id BINARY(32) PRIMARY KEY, request BINARY(32) NOT NULL, answer \
             MEDIUMBLOB, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, KEY (at))",
            quoted_table(table)
        );
        self.run("creating the idempotency table", &sql, self.server.timeout).await.map(|_| ())
    }

    /// Deletes up to [`FORGET_AT_ONCE`] answers that are older than `age`.
    ///
    /// # Errors
    /// The server cannot be reached or the statement fails.
    pub async fn forget_answers(&self, table: &TableName, age: Duration) -> Result<Forgotten, MysqlError> {
        let sql = format!(
            "DELETE FROM {} WHERE {} < CURRENT_TIMESTAMP - INTERVAL {} SECOND LIMIT {FORGET_AT_ONCE}",
            quoted_table(table),
            quoted("at"),
            age.as_secs()
        );
        let deleted = self.run("deleting old answers", &sql, FORGET_TIMEOUT).await?;
        Ok(if deleted < FORGET_AT_ONCE { Forgotten::All } else { Forgotten::Some })
    }

    /// Returns the number of rows that the statement changed.
    async fn run(&self, doing: &str, sql: &str, limit: Duration) -> Result<u64, MysqlError> {
        let mut lease = self.lease(Instant::now() + self.server.timeout).await?;
        // If its answer comes too late, it has done its work all the same.
        lease.spare();
        let question = lease.conn().query_drop(sql);
        // The lease stays unclean, so the connection is closed: its last GTID belongs to no client
        // transaction.
        let answer = self.server.answer(limit, doing, question).await;
        let changed = lease.conn().affected_rows();
        lease.answered(&answer);
        answer.map(|()| changed)
    }
}
