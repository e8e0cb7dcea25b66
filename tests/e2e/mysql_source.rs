//! The MySQL source against a real server (`TANDEM_MYSQL_URL`). The binlog decoder and the reader return the
//! same values, the stream knows its position, and unsupported tables and settings are refused.

mod clients;
mod connections;
mod content;
mod matrix;
mod reads;
mod refusals;
mod reverse;
mod stream;
mod text;
mod types;

use std::time::Duration;

use mysql_async::prelude::Queryable;
use tandem_binlog::{BinlogEvent, RowsEvent};
use tandem_model::{BinlogPosition, Row, TableName};
use tandem_mysql::{BinlogStream, Mysql, MysqlConfig, Reader};
use tandem_wire::Image;

use crate::support::{mysql_url, random_server_id, unique_id};

/// A database of one test, a session that writes to it, and the reader under test.
struct Source {
    config: MysqlConfig,
    database: String,
    writer: mysql_async::Conn,
    mysql: Mysql,
    reader: Reader,
}

impl Source {
    async fn new(test: &str) -> anyhow::Result<Self> {
        Self::at(mysql_url(), test).await
    }

    /// The same, on another server.
    async fn at(url: String, test: &str) -> anyhow::Result<Self> {
        let database = format!("source_{test}_{}", unique_id());
        let mut writer = mysql_async::Conn::from_url(&url).await?;
        writer.query_drop("SET SESSION time_zone = '+00:00', sql_mode = ''").await?;
        writer.query_drop(format!("CREATE DATABASE {database}")).await?;
        writer.query_drop(format!("USE {database}")).await?;
        let config = MysqlConfig::new(url, random_server_id());
        let mysql = Mysql::connect(&config).await?;
        let reader = mysql.reader().await?;
        Ok(Self { config, database, writer, mysql, reader })
    }

    fn table(&self, name: &str) -> TableName {
        TableName::new(&self.database, name)
    }

    async fn sql(&mut self, sql: &str) -> anyhow::Result<()> {
        Ok(self.writer.query_drop(sql).await?)
    }

    /// The stream from now on, with one table's rows.
    async fn stream(&mut self, wanted: &str) -> anyhow::Result<BinlogStream> {
        let wanted = self.table(wanted);
        let executed = self.reader.executed().await?;
        Ok(BinlogStream::open(&self.config, &executed, move |t| *t == wanted).await?)
    }

    /// All events up to the binlog's current end.
    async fn upto_now(&mut self, stream: &mut BinlogStream) -> anyhow::Result<Vec<BinlogEvent>> {
        let end = self.reader.binlog_end().await?;
        let mut events = Vec::new();
        loop {
            let event = tokio::time::timeout(Duration::from_secs(30), stream.next()).await??;
            let position = position(&event);
            events.push(event);
            if position.is_some_and(|p| p >= end) {
                return Ok(events);
            }
        }
    }

    async fn drop(mut self) -> anyhow::Result<()> {
        let sql = format!("DROP DATABASE {}", self.database);
        self.sql(&sql).await
    }
}

fn position(event: &BinlogEvent) -> Option<BinlogPosition> {
    match event {
        BinlogEvent::Commit { position }
        | BinlogEvent::Prepared { position }
        | BinlogEvent::Decided { position, .. }
        | BinlogEvent::Statement { position, .. }
        | BinlogEvent::Idle { position } => Some(position.clone()),
        BinlogEvent::Begin { .. } | BinlogEvent::Rows(_) => None,
    }
}

fn rows(events: Vec<BinlogEvent>) -> Vec<RowsEvent> {
    events
        .into_iter()
        .filter_map(|event| match event {
            BinlogEvent::Rows(rows) => Some(rows),
            _ => None,
        })
        .collect()
}

/// The images of an event as values.
pub(crate) fn values(event: &RowsEvent) -> anyhow::Result<Vec<(Option<Row>, Option<Row>)>> {
    let value = |image: Option<Image<'_>>| image.map(|image| image.decode(&event.table)).transpose();
    event.rows().map(|(before, after)| Ok((value(before)?, value(after)?))).collect()
}
