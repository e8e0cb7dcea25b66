//! Where the binlog's events begin and end, according to MySQL.

use std::collections::HashMap;

use anyhow::{Context, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// The offset after each event, by its file and the offset of its first byte.
pub(super) type Ends = HashMap<(String, u64), u64>;

/// The events of all files.
pub(super) async fn ends(conn: &mut Conn) -> Result<Ends> {
    let files: Vec<(String, u64, String)> =
        conn.query("SHOW BINARY LOGS").await.context("list the binlog's files")?;
    let mut ends = HashMap::new();
    for (file, ..) in files {
        let events: Vec<mysql_async::Row> = conn
            .query(format!("SHOW BINLOG EVENTS IN '{file}'"))
            .await
            .with_context(|| format!("list the events of {file}"))?;
        for event in events {
            let begin = event.get("Pos").context("an event has no position")?;
            let end = event.get("End_log_pos").context("an event has no end")?;
            ends.insert((file.clone(), begin), end);
        }
    }
    Ok(ends)
}
