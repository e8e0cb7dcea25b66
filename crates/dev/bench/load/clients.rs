//! The operations, as requests to the gateway and as statements to the stores.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlDecimal, CqlTimestamp};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::args::Args;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Get,
    Put,
}

/// Which stores an operation needs in a phase.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stores {
    mysql: bool,
    cassandra: bool,
}

impl Stores {
    pub(crate) const BOTH: Self = Self { mysql: true, cassandra: true };
}

impl Op {
    pub(crate) fn stores(self, phase: &str) -> Stores {
        match (self, phase) {
            // In `dual-write` one read in a hundred is compared, and the client does not wait for Cassandra.
            (Self::Get, "prepare" | "dual-write") | (Self::Put, "prepare") => {
                Stores { mysql: true, cassandra: false }
            }
            (Self::Get, "read-switch") => Stores { mysql: false, cassandra: true },
            _ => Stores { mysql: true, cassandra: true },
        }
    }
}

/// A connection of one client.
pub(crate) enum Client {
    Gateway(Http),
    Stores(Box<Stored>),
}

impl Client {
    pub(crate) async fn run(&mut self, op: Op, stores: Stores, id: i64) -> Result<()> {
        match self {
            Self::Gateway(http) => http.run(op, id).await,
            Self::Stores(stored) => stored.run(op, stores, id).await,
        }
    }
}

pub(crate) struct Http {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

impl Http {
    pub(crate) async fn connect(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).await.context("connect to the gateway")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: host.to_owned(), buffer: Vec::new() })
    }

    async fn run(&mut self, op: Op, id: i64) -> Result<()> {
        let host = &self.host;
        let request = match op {
            Op::Get => format!("GET /v1/order/{id} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            Op::Put => {
                let body = json!({ "customer": id % 100, "note": note(), "amount": "12.50" }).to_string();
                let length = body.len();
                format!(
                    "PUT /v1/order/{id} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                )
            }
        };
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the gateway closed a connection");
            let Some(head) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.buffer[..head])?.to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap_or("0").trim().parse()?;
            if self.buffer.len() < head + 4 + length {
                continue;
            }
            ensure!(text.starts_with("http/1.1 200"), "{text}");
            // After a fallback this would measure another store than the figures name.
            ensure!(!text.contains("tandem-fallback"), "{text}");
            return Ok(());
        }
    }
}

/// A random note, so that each differs from the one before.
fn note() -> String {
    format!("Please pay within {:08} days.", rand::random::<u32>() % 100_000_000)
}

pub(crate) struct Stored {
    conn: Conn,
    session: Arc<Session>,
    cassandra: Arc<Statements>,
    mysql: MysqlStatements,
}

pub(crate) struct Statements {
    pub(crate) get: PreparedStatement,
    pub(crate) put: PreparedStatement,
}

struct MysqlStatements {
    get: String,
    lock: String,
    update: String,
}

/// The COMMIT with which the gateway learns the GTID of a write.
const COMMIT: &str = "COMMIT; SET @tandem_before = @tandem_gtid, @tandem_gtid = (SELECT CAST(GTID AS BINARY) FROM \
    performance_schema.events_transactions_history WHERE THREAD_ID = PS_CURRENT_THREAD_ID() AND GTID LIKE \
    '%:%' ORDER BY EVENT_ID DESC LIMIT 1); SELECT IF(@tandem_gtid <=> @tandem_before, NULL, @tandem_gtid)";

impl Stored {
    pub(crate) async fn connect(
        args: &Args,
        session: Arc<Session>,
        cassandra: Arc<Statements>,
    ) -> Result<Self> {
        let mut conn = Conn::from_url(&args.mysql).await.context("connect to MySQL")?;
        conn.query_drop("SET SESSION transaction_isolation = 'READ-COMMITTED', time_zone = '+00:00'").await?;
        let select = format!(
            "SELECT `id`, `customer`, `note`, `amount`, `placed` FROM `{}`.`orders` WHERE `id` IN (?)",
            args.database
        );
        let mysql = MysqlStatements {
            lock: format!("{select} FOR UPDATE"),
            get: select,
            update: format!(
                "UPDATE `{}`.`orders` SET `customer` = ?, `note` = ?, `amount` = ?, `placed` = DEFAULT WHERE `id` = ?",
                args.database
            ),
        };
        Ok(Self { conn, session, cassandra, mysql })
    }

    async fn run(&mut self, op: Op, stores: Stores, id: i64) -> Result<()> {
        let Self { conn, session, cassandra, mysql } = self;
        match op {
            Op::Get => {
                let from_mysql = async {
                    if stores.mysql {
                        conn.exec::<Row, _, _>(mysql.get.as_str(), (id,)).await?;
                    }
                    anyhow::Ok(())
                };
                let from_cassandra = async {
                    if stores.cassandra {
                        let found = session.execute_unpaged(&cassandra.get, (id,)).await?;
                        ensure!(found.into_rows_result()?.rows_num() == 1, "row {id} is not in Cassandra");
                    }
                    Ok(())
                };
                tokio::try_join!(from_mysql, from_cassandra)?;
            }
            Op::Put => {
                conn.query_drop("START TRANSACTION").await?;
                conn.exec::<Row, _, _>(mysql.lock.as_str(), (id,)).await?;
                let note = note();
                let values = (id % 100, &note, "12.50", id);
                conn.exec_drop(mysql.update.as_str(), values).await?;
                let image = conn.exec::<Row, _, _>(mysql.lock.as_str(), (id,)).await?;
                ensure!(image.len() == 1 && image[0].as_ref(0) != Some(&Value::NULL), "no row {id}");
                conn.query_drop(COMMIT).await?;
                if stores.cassandra {
                    let total =
                        CqlDecimal::from_signed_be_bytes_slice_and_exponent(&1250i16.to_be_bytes(), 2);
                    // About the age of a borrowed watermark's version.
                    let version = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000 - 1_000_000;
                    let values = (id, (id % 100) as i32, &note, total, CqlTimestamp(0), version as i64);
                    session.execute_unpaged(&cassandra.put, values).await?;
                }
            }
        }
        Ok(())
    }
}
