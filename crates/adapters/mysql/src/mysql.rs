//! The connection pool.

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Opts, Pool};

use tandem_binlog::ExcludedColumns;

use crate::connect::{Lease, MysqlConfig, Server};
use crate::error::MysqlError;
use crate::read::Reader;

/// The session variables of every connection, whatever the server's defaults are.
///
/// - Autocommit and REPEATABLE READ: each statement is its own transaction. A read that follows the read of
///   `gtid_executed` must not use an older read view, and must not see uncommitted rows.
/// - Time zone UTC: timestamps are UTC.
/// - SQL mode: accepts invalid dates as parameters and does not trim or change values.
/// - `max_sort_length`: MySQL sorts by the whole key. InnoDB keys have at most 3072 bytes.
const SETUP: &str = "SET SESSION autocommit = 1, transaction_isolation = 'REPEATABLE-READ', time_zone = '+00:00', \
                     sql_mode = 'ALLOW_INVALID_DATES', information_schema_stats_expiry = 0, max_sort_length = 16384";

/// A MySQL server, reached through a connection pool.
#[derive(Debug, Clone)]
pub struct Mysql {
    pool: Pool,
    server: Server,
    pub(crate) excluded: ExcludedColumns,
}

impl Mysql {
    /// Connects. Makes one attempt, without retries.
    ///
    /// # Errors
    /// The URL or a TLS file is invalid, the server cannot be reached, or it refuses the account.
    pub async fn connect(config: &MysqlConfig) -> Result<Self, MysqlError> {
        let opts: Opts = config.options(vec![SETUP.to_owned()])?.into();
        let server = Server::new(config, &opts);
        let mysql = Self { pool: Pool::new(opts), server, excluded: config.excluded.clone() };
        mysql.connection().await?;
        Ok(mysql)
    }

    /// Takes a connection from the pool for reads.
    ///
    /// # Errors
    /// The server cannot be reached or refuses the account.
    pub async fn reader(&self) -> Result<Reader, MysqlError> {
        Ok(Reader::new(self.connection().await?, self.server.clone()))
    }

    async fn connection(&self) -> Result<Conn, MysqlError> {
        self.server.connecting(self.pool.get_conn()).await
    }

    /// Runs a small query over a pooled connection and returns its rows.
    pub(crate) async fn rows<T: FromRow + Send + 'static>(
        &self,
        doing: &str,
        sql: &str,
        params: impl Into<mysql_async::Params> + Send,
    ) -> Result<Vec<T>, MysqlError> {
        let mut lease = Lease::new(self.connection().await?);
        let question = lease.conn().exec(sql, params.into());
        let rows = self.server.answer(self.server.timeout, doing, question).await?;
        lease.is_clean();
        Ok(rows)
    }
}
