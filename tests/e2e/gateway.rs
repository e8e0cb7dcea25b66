//! The gateway as its clients meet it: the real binary over HTTP, before the real stores.

mod api;
mod behind;
mod canary;
mod clocks;
mod confirm;
mod controlled;
mod failures;
mod faults;
mod phases;
mod tls;
mod tokens;
mod walk;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use serde_json::Value as Json;
use tandem_kafka::Producer;
use tandem_model::{Cohort, Phase, PhaseRecord};
use tandem_wire::control::{PHASE_KEY, encode_phase};
use tandem_wire::log::{OutRecord, Topics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Migration, Running, Servers};

pub(crate) const ORDERS: &str = "CREATE TABLE orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, customer INT NOT NULL, note VARCHAR(40), \
     amount DECIMAL(12,2) NOT NULL DEFAULT 1.50, placed DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), \
     legacy INT)";

pub(crate) const MAPPING: &str = "[[table]]\nsource = \"{db}.orders\"\nentity = \"order\"\n\
    [[table.target]]\ntable = \"orders\"\npartition_key = [\"id\"]\nrename = { amount = \"total\" }\nomit = [\"legacy\"]\n\
    [[table.target]]\ntable = \"by_customer\"\npartition_key = [\"customer\"]\nclustering_key = [\"id desc\"]\n\
    exclude_from_target = [\"legacy\"]\n";

/// What a request is answered with.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Answer {
    /// A header's value; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    pub(crate) fn served_by(&self) -> &str {
        self.header("tandem-served-by")
    }

    fn fallback(&self) -> &str {
        self.header("tandem-fallback")
    }
}

/// One HTTP request over a connection of its own.
pub(crate) async fn http(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    // A server that has seen enough may close before it has read everything.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut bytes = Vec::new();
    tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes)).await??;
    let text = String::from_utf8(bytes)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| anyhow::anyhow!("no answer: {text:?}"))?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().parse()?;
    let headers = lines.filter_map(|line| line.split_once(": "));
    Ok(Answer {
        status,
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    })
}

/// A migration with processes that run, one of them a gateway.
struct Stage {
    migration: Migration,
    running: Vec<Running>,
    port: u16,
    generation: u64,
    producer: Producer,
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Stage {
    /// The sample tables, and these commands running.
    async fn new(servers: Servers, test: &str, commands: &[&str]) -> anyhow::Result<Self> {
        let migration = Migration::new(servers, test, &[ORDERS]).await?;
        Self::of(migration, "", MAPPING, commands).await
    }

    async fn of(migration: Migration, extra: &str, mapping: &str, commands: &[&str]) -> anyhow::Result<Self> {
        let port = free_port()?;
        let section = format!("[gateway]\nlisten = \"127.0.0.1:{port}\"\n{extra}");
        migration.configure(&section, mapping)?;
        migration.succeed(&["schema", "create"]).await?;
        let running = commands.iter().map(|command| migration.start(&[command]));
        let running = running.collect::<anyhow::Result<_>>()?;
        let producer = Producer::start(&migration.kafka()).await?;
        let mut stage = Self { migration, running, port, generation: 0, producer };
        stage.ready().await?;
        if commands.contains(&"capture") {
            // What is written from now on is on the log, and there is a watermark to borrow.
            stage
                .until("the first watermark", async |stage| {
                    Ok(!stage.migration.status().await?["source"].is_null())
                })
                .await?;
        }
        Ok(stage)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            for running in &mut self.running {
                running.check()?;
            }
            if http(self.port, "GET", "/readyz", &[], "").await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            anyhow::ensure!(
                began.elapsed() < Duration::from_mins(1),
                "the gateway is not ready within a minute"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        http(self.port, "GET", path, &[], "").await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        http(self.port, "GET", path, headers, "").await
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
        http(self.port, method, path, &[], body).await
    }

    /// The same, which must succeed.
    async fn done(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
        let answer = self.send(method, path, body).await?;
        anyhow::ensure!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        Ok(answer)
    }

    /// Publishes a phase record of the next generation and waits until the gateway acts on it.
    async fn order(&mut self, record: PhaseRecord) -> anyhow::Result<()> {
        self.generation += 1;
        self.publish(&PhaseRecord { generation: self.generation, ..record }).await?;
        let wanted = self.generation.to_string();
        self.until("the generation to be acted on", async |stage| {
            Ok(stage.get("/openapi.json").await?.header("tandem-generation") == wanted)
        })
        .await
    }

    async fn phase(&mut self, phase: Phase) -> anyhow::Result<()> {
        self.order(everything(phase)).await
    }

    async fn publish(&self, record: &PhaseRecord) -> anyhow::Result<()> {
        let record = OutRecord {
            topic: Topics::new(&self.migration.prefix).control().into(),
            partition: 0,
            key: PHASE_KEY.to_vec(),
            value: Some(encode_phase(record)),
            version: None,
            timestamp_ms: None,
        };
        self.producer.send(vec![record]).await?;
        Ok(())
    }

    /// Waits until it is so, for a minute.
    async fn until(
        &mut self,
        what: &str,
        so: impl AsyncFn(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        while !so(self).await? {
            for running in &mut self.running {
                running.check()?;
            }
            anyhow::ensure!(began.elapsed() < Duration::from_mins(1), "not within a minute: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until Cassandra serves a read with this token.
    async fn until_applied(&mut self, path: &str, token: &str) -> anyhow::Result<()> {
        self.until("the token to be applied", async |stage| {
            Ok(stage.get_with(path, &[("Tandem-Token", token)]).await?.fallback() != "token-not-applied")
        })
        .await
    }

    /// The rows that Cassandra's `orders` has, by id.
    async fn in_cassandra(&self, id: i64) -> anyhow::Result<Option<String>> {
        let session = self.migration.cassandra().await?;
        let rows = session.query_unpaged("SELECT note FROM orders WHERE id = ?", (id,)).await?;
        let row = rows.into_rows_result()?.maybe_first_row::<(Option<String>,)>()?;
        Ok(row.map(|(note,)| note.unwrap_or_default()))
    }

    /// The metrics of every process that runs, one after the other. Their addresses are in the log.
    async fn metrics(&self) -> anyhow::Result<String> {
        let mut all = String::new();
        for line in self.running[0].log().lines().filter(|line| line.contains("serving /metrics")) {
            let port = line.rsplit_once(':').and_then(|(_, port)| port.trim().parse().ok());
            // One that has ended serves no more.
            if let Some(port) = port
                && let Ok(answer) = http(port, "GET", "/metrics", &[], "").await
            {
                all.push_str(&answer.body);
            }
        }
        Ok(all)
    }

    /// What `tandem_gateway_<name>_total` says of orders, by reason.
    async fn counted(&self, name: &str) -> anyhow::Result<HashMap<String, u64>> {
        let label = format!("tandem_gateway_{name}_total{{entity=\"order\",reason=\"");
        let metrics = self.metrics().await?;
        let counts = metrics.lines().filter_map(|line| line.strip_prefix(&label)?.split_once("\"} "));
        counts.map(|(reason, count)| Ok((reason.to_owned(), count.parse()?))).collect()
    }

    async fn sql(&mut self, statement: &str) -> anyhow::Result<()> {
        Ok(self.migration.mysql.query_drop(statement).await?)
    }

    async fn end(mut self) -> anyhow::Result<()> {
        while let Some(running) = self.running.pop() {
            running.terminate().await?;
        }
        self.migration.drop().await
    }
}

/// A phase with everybody in its cohort, everything validated and shadowed.
fn everything(phase: Phase) -> PhaseRecord {
    let cohort = Cohort { percent: 100.0, ..Cohort::default() };
    PhaseRecord { phase, cohort, validate: 1.0, shadow: 1.0, ..PhaseRecord::default() }
}
