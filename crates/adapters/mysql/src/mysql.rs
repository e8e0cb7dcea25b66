//! The pool of connections.

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Opts, Pool};

use tandem_binlog::ExcludedColumns;

use crate::connect::{Lease, MysqlConfig, Server};
use crate::error::MysqlError;
use crate::read::Reader;

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
