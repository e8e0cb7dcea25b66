//! Reads of MySQL's state over one connection.

use mysql_async::Conn;
use tandem_model::{BinlogPosition, GtidSet, Row, TableDef, TableName, Value};

use crate::MysqlError;
use crate::client::Server;

/// One connection that reads. Each call is a read view of its own, opened after the call was made.
#[derive(Debug)]
pub struct Reader {
    conn: Conn,
    server: Server,
}

impl Reader {
    pub(crate) fn new(conn: Conn, server: Server) -> Self {
        Self { conn, server }
    }

    /// The transactions that the server has executed: a lower bound of what the next read sees.
    pub async fn executed(&mut self) -> Result<GtidSet, MysqlError> {
        unimplemented!()
    }

    /// The end of the binlog: an upper bound of what the last read saw.
    pub async fn binlog_end(&mut self) -> Result<BinlogPosition, MysqlError> {
        unimplemented!()
    }

    /// The server's clock, microseconds since the epoch.
    pub async fn clock_us(&mut self) -> Result<i64, MysqlError> {
        unimplemented!()
    }

    /// The greatest primary key, in the key's order; `None` for an empty table.
    pub async fn max_key(&mut self, table: &TableDef) -> Result<Option<Vec<Value>>, MysqlError> {
        let _ = table;
        unimplemented!()
    }

    /// Up to `limit` rows in primary key order: those with keys greater than `after` (all, if
    /// `None`) and not greater than `upto`. "Greater" is MySQL's own order, collations included.
    pub async fn read_chunk(
        &mut self,
        table: &TableDef,
        after: Option<&[Value]>,
        upto: &[Value],
        limit: usize,
    ) -> Result<Vec<Row>, MysqlError> {
        let _ = (table, after, upto, limit);
        unimplemented!()
    }

    /// The rows of these keys, in the order of the keys; `None` where there is no row with exactly
    /// that key (one that is equal only to a collation is another key).
    pub async fn read_keys(
        &mut self,
        table: &TableDef,
        keys: &[Vec<Value>],
    ) -> Result<Vec<Option<Row>>, MysqlError> {
        let _ = (table, keys);
        unimplemented!()
    }

    /// The optimizer's estimate of a table's rows.
    pub async fn approximate_rows(&mut self, table: &TableName) -> Result<u64, MysqlError> {
        let _ = table;
        unimplemented!()
    }
}
