//! One client: it writes and reads its own rows, and judges what it reads.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What a client has seen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) reads_ms: Vec<f64>,
    pub(crate) writes: u64,
    by_cassandra: u64,
    stale: u64,
    /// The reads that MySQL served, by reason.
    reasons: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.reads_ms.extend(other.reads_ms);
        self.writes += other.writes;
        self.by_cassandra += other.by_cassandra;
        self.stale += other.stale;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
    }

    pub(crate) fn figures(mut self, clients: u32, pause_ms: u64, length: Duration) -> Json {
        self.reads_ms.sort_by(f64::total_cmp);
        let reads = self.reads_ms.len();
        let percentile = |share: f64| self.reads_ms[((reads - 1) as f64 * share) as usize];
        let round = |value: f64, digits: i32| (value * 10f64.powi(digits)).round() / 10f64.powi(digits);
        json!({
            "clients": clients,
            "pause_ms": pause_ms,
            "cassandra_share": round(self.by_cassandra as f64 / reads as f64, 4),
            "reads": reads,
            "reads_per_s": round(reads as f64 / length.as_secs_f64(), 1),
            "writes_per_s": round(self.writes as f64 / length.as_secs_f64(), 1),
            "p50_ms": round(percentile(0.5), 2),
            "p99_ms": round(percentile(0.99), 2),
            "stale": self.stale,
            "by_mysql": self.reasons,
        })
    }
}

pub(crate) struct Client {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
    token: String,
    /// The row's number and the amount that was last written to it, in cents. 0: none yet.
    rows: Vec<(u32, u64)>,
    tally: Tally,
}

/// A response: its headers in lower case, and its body.
struct Response {
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn header(&self, name: &str) -> &str {
        let value = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_default().trim()
    }
}

impl Client {
    /// The client `number` of `clients`, with `each` rows of its own.
    pub(crate) async fn connect(host: &str, number: u32, clients: u32, each: u32) -> Result<Self> {
        let stream = TcpStream::connect(host).await.context("connect to the gateway")?;
        stream.set_nodelay(true)?;
        let rows = (0..each).map(|row| (1 + number + row * clients, 0)).collect();
        Ok(Self {
            stream,
            host: host.to_owned(),
            buffer: Vec::new(),
            token: String::new(),
            rows,
            tally: Tally::default(),
        })
    }

    /// Writes and reads in turn at random until `end`, with random pauses of this mean.
    pub(crate) async fn run(mut self, pause_ms: u64, end: Instant) -> Result<Tally> {
        let mut amount = 0;
        while Instant::now() < end {
            if pause_ms > 0 {
                let pause = rand::random_range(0..=2 * pause_ms);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            let row = rand::random_range(0..self.rows.len());
            if self.token.is_empty() || rand::random() {
                amount += 1;
                self.write(row, amount).await?;
            } else {
                self.read(row).await?;
            }
        }
        Ok(self.tally)
    }

    async fn write(&mut self, row: usize, amount: u64) -> Result<()> {
        let body = json!({ "amount": text_of(amount) }).to_string();
        let response = self.send("PATCH", row, "content-type: application/json\r\n", &body).await?;
        ensure!(response.head.starts_with("http/1.1 200"), "a write failed: {}", response.head);
        response.header("tandem-token").clone_into(&mut self.token);
        self.rows[row].1 = amount;
        self.tally.writes += 1;
        Ok(())
    }

    async fn read(&mut self, row: usize) -> Result<()> {
        let begun = Instant::now();
        let token = format!("tandem-token: {}\r\n", self.token);
        let response = self.send("GET", row, &token, "").await?;
        self.tally.reads_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(response.head.starts_with("http/1.1 200"), "a read failed: {}", response.head);
        match response.header("tandem-served-by") {
            "cassandra" => self.tally.by_cassandra += 1,
            "mysql" => {
                let reason = response.header("tandem-fallback").to_owned();
                *self.tally.reasons.entry(reason).or_default() += 1;
            }
            other => bail!("`{other}` served a read"),
        }
        let found: Json = serde_json::from_slice(&response.body)?;
        let written = self.rows[row].1;
        // The amount of before the measurement is not known.
        if written > 0 && found["amount"].as_str() != Some(&text_of(written)) {
            self.tally.stale += 1;
        }
        Ok(())
    }

    async fn send(&mut self, method: &str, row: usize, headers: &str, body: &str) -> Result<Response> {
        let (host, id, length) = (&self.host, self.rows[row].0, body.len());
        let request = format!(
            "{method} /v1/order/{id} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the gateway closed a connection");
            let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.buffer[..end])?.to_ascii_lowercase();
            let mut response = Response { head, body: Vec::new() };
            let length: usize = response.header("content-length").parse().unwrap_or(0);
            if self.buffer.len() >= end + 4 + length {
                response.body = self.buffer[end + 4..end + 4 + length].to_vec();
                return Ok(response);
            }
        }
    }
}

/// An amount in cents, as the gateway writes it.
fn text_of(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
