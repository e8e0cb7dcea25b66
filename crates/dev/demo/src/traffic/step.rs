//! One step of the traffic.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// What one step did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// The kind of statement, for the report.
    pub(crate) kind: &'static str,
    /// Rows changed.
    pub(crate) rows: u64,
}

/// Runs one statement and returns how many rows it changed.
pub(crate) async fn execute(
    conn: &mut Conn,
    sql: &str,
    values: Vec<mysql_async::Value>,
) -> Result<u64, mysql_async::Error> {
    let parameters =
        if values.is_empty() { mysql_async::Params::Empty } else { mysql_async::Params::Positional(values) };
    conn.exec_drop(sql, parameters).await?;
    Ok(conn.affected_rows())
}
