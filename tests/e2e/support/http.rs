//! Raw HTTP requests as clients send them, each over a new connection, with any path, headers and body that a
//! test needs.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{MINUTE, Probe, eventually};

/// Longer than the longest wait that a server here allows.
const TIMEOUT: Duration = Duration::from_secs(40);

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    /// A header's value; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// The store that served a read.
    pub(crate) fn served_by(&self) -> &str {
        self.header("tandem-served-by")
    }

    /// Why MySQL served a read that Cassandra should have served; empty otherwise.
    pub(crate) fn fallback(&self) -> &str {
        self.header("tandem-fallback")
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n")?;
        let mut lines = std::str::from_utf8(&bytes[..end]).ok()?.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let body = &bytes[end + 4..];
        let chunked = headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked");
        let body = if chunked { joined(body)? } else { body.to_vec() };
        Some(Self { status, headers, body: String::from_utf8(body).ok()? })
    }
}

/// Decodes a chunked body: each chunk has a line with its length in hexadecimal before it. The last chunk is
/// empty.
fn joined(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|end| end == b"\r\n")?;
        let length = std::str::from_utf8(&chunks[..end]).ok()?.split(';').next()?;
        let length = usize::from_str_radix(length.trim(), 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        chunks = &chunks[end + 2..];
        body.extend(chunks.get(..length)?);
        chunks = chunks.get(length + 2..)?;
    }
}

/// One request over a new connection, to `localhost` and with a body of JSON unless the headers say otherwise.
pub(crate) async fn http(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    let length = body.len();
    let host = if given("Host") { "" } else { "Host: localhost\r\n" };
    let is_json = !given("Content-Type") && !body.is_empty();
    let kind = if is_json { "Content-Type: application/json\r\n" } else { "" };
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{host}{kind}{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    // A server that refuses a request may close before it has read everything.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut bytes = Vec::new();
    tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await??;
    Answer::parse(&bytes)
        .ok_or_else(|| anyhow::anyhow!("no HTTP answer: {:?}", String::from_utf8_lossy(&bytes)))
}

/// Waits until `/readyz` contains these words.
pub(crate) async fn until_readyz(port: u16, words: &str) -> anyhow::Result<()> {
    eventually(&format!("/readyz to say {words:?}"), MINUTE, async || {
        let answer = http(port, "GET", "/readyz", &[], "").await;
        let said = answer.as_ref().is_ok_and(|answer| answer.body.contains(words));
        Ok(Probe::when(said, format!("{answer:?}")))
    })
    .await
}

/// A free port that nobody else takes until it is used: the kernel assigns ports from a range above these, so do the
/// servers of devstack, and no other test of this run gets it.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..100 {
        let port = rand::random_range(3_000..12_000);
        let is_free = std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free && GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
    anyhow::bail!("no port between 3,000 and 12,000 is free")
}

/// Clients that connect and send nothing.
pub(crate) async fn silent_clients(port: u16) -> anyhow::Result<Vec<TcpStream>> {
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(TcpStream::connect(("127.0.0.1", port)).await?);
    }
    Ok(clients)
}
