//! The pool of connections.

use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Opts, Pool};

use crate::lease::Lease;
use crate::{ExcludedColumns, MysqlConfig, MysqlError, Reader};

/// What every connection is set to: instants as UTC, and values compared and printed as stored. The
/// SQL mode lets invalid dates through as parameters and strips nothing it should not. Each statement
/// is a transaction of its own, whatever the server's defaults are: what is read after
/// `gtid_executed` must not come from an older read view, nor from uncommitted rows. A key that has to be
/// sorted is sorted by all of it: InnoDB's keys have 3072 bytes at most.
const SETUP: &str = "SET SESSION autocommit = 1, transaction_isolation = 'REPEATABLE-READ', time_zone = '+00:00', \
                     sql_mode = 'ALLOW_INVALID_DATES', information_schema_stats_expiry = 0, max_sort_length = 16384";

/// A MySQL server, by a pool of connections.
#[derive(Debug, Clone)]
pub struct Mysql {
    pool: Pool,
    server: Server,
    pub(crate) excluded: ExcludedColumns,
}

/// Which server, for error messages.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// `host:port`.
    pub(crate) address: String,
    user: String,
    /// How long connecting and small questions may take.
    pub(crate) timeout: Duration,
}

impl Server {
    pub(crate) fn new(config: &MysqlConfig, opts: &Opts) -> Self {
        Self {
            address: format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port()),
            user: opts.user().unwrap_or_default().to_owned(),
            timeout: config.connect_timeout,
        }
    }

    /// Waits for a connection.
    pub(crate) async fn connecting<T>(
        &self,
        connection: impl Future<Output = mysql_async::Result<T>>,
    ) -> Result<T, MysqlError> {
        match tokio::time::timeout(self.timeout, connection).await {
            Ok(result) => result.map_err(|e| MysqlError::while_connecting(e, &self.address, &self.user)),
            Err(_) => Err(MysqlError::Unreachable {
                address: self.address.clone(),
                cause: format!("no answer within {:?}", self.timeout),
            }),
        }
    }

    /// Waits for the answer to a question, no longer than `limit`.
    pub(crate) async fn answer<T>(
        &self,
        limit: Duration,
        doing: &str,
        question: impl Future<Output = mysql_async::Result<T>>,
    ) -> Result<T, MysqlError> {
        match tokio::time::timeout(limit, question).await {
            Ok(result) => result.map_err(|e| MysqlError::while_doing(e, &self.address, doing)),
            Err(_) => Err(MysqlError::Lost {
                address: self.address.clone(),
                doing: doing.to_owned(),
                cause: format!("no answer within {limit:?}"),
            }),
        }
    }
}

impl Mysql {
    /// Connects, and fails if that is not possible at once.
    pub async fn connect(config: &MysqlConfig) -> Result<Self, MysqlError> {
        let opts: Opts = config.options(vec![SETUP.to_owned()])?.into();
        let server = Server::new(config, &opts);
        let mysql = Self { pool: Pool::new(opts), server, excluded: config.excluded.clone() };
        mysql.connection().await?;
        Ok(mysql)
    }

    /// A connection of one's own for reading.
    pub async fn reader(&self) -> Result<Reader, MysqlError> {
        Ok(Reader::new(self.connection().await?, self.server.clone()))
    }

    async fn connection(&self) -> Result<Conn, MysqlError> {
        self.server.connecting(self.pool.get_conn()).await
    }

    /// The rows of a small query, over a connection of the pool.
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
