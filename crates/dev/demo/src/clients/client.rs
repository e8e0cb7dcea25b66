//! Applications that use the gateways. Each keeps a journal of its operations for the checker.
//!
//! Each client has rows of its own. It writes a unique value, reads it back with the token of the write, and
//! starts over. All of them also read some rows that were written once, at the beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value as Json, json};

use super::entity::Entity;

/// The number of clients.
const CLIENTS: u64 = 6;
/// Rows of each client.
const ROWS: u64 = 5;
/// Rows that are written once.
const SETTLED: u64 = 12;
/// The pause between two requests of a client.
const PAUSE: Duration = Duration::from_millis(25);
const DEADLINE: Duration = Duration::from_secs(10);

/// The ids of the clients' rows begin above this. Nothing else uses ids so high.
const FIRST: u64 = 4_000_000_000;

/// What the clients observed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Reads, by the generation of the phase and the store that answered.
    pub(crate) reads: BTreeMap<(u64, String), u64>,
    pub(crate) writes: u64,
    /// Reads that MySQL served instead of Cassandra, by reason.
    pub(crate) fallbacks: BTreeMap<String, u64>,
    /// Requests without a good answer.
    pub(crate) errors: u64,
    /// Settled rows that Cassandra has served since the last reset.
    pub(crate) served: BTreeSet<u64>,
}

#[derive(Debug)]
struct Shared {
    entity: Entity,
    ports: Vec<u16>,
    clock: Instant,
    stop: AtomicBool,
    seen: Mutex<Seen>,
    /// Settled rows, and the tokens of their writes.
    settled: Vec<(u64, String)>,
    failure: Mutex<Option<String>>,
}

/// The running clients.
#[derive(Debug)]
pub(crate) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    journals: Vec<PathBuf>,
}

/// The parts of a response that a client uses.
struct Answer {
    status: u16,
    token: Option<String>,
    served_by: String,
    fallback: Option<String>,
    generation: u64,
    body: Json,
}

impl Clients {
    /// Writes the settled rows and starts the clients, with journals in `folder`.
    pub(crate) async fn start(entity: Entity, ports: Vec<u16>, folder: &Path) -> Result<Self> {
        let journal = |name: String| folder.join(format!("journal-{name}.jsonl"));
        let journals: Vec<PathBuf> =
            (0..=CLIENTS).map(|n| journal(if n == 0 { "settled".into() } else { n.to_string() })).collect();
        let mut shared = Shared {
            entity,
            ports,
            clock: Instant::now(),
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
            settled: Vec::new(),
            failure: Mutex::default(),
        };
        let first = journals[0].clone();
        let shared = tokio::task::spawn_blocking(move || {
            let all = Arc::new(shared);
            let mut client = Client::new(Arc::clone(&all), 0, &first)?;
            let mut settled = Vec::new();
            for n in 0..SETTLED {
                let id = FIRST + n;
                let token = client.write(id, &format!("settled-{n}"), true)?;
                settled.push((id, token.context("a gateway refused a first row")?));
            }
            drop(client);
            shared = Arc::into_inner(all).context("the first client is gone")?;
            shared.settled = settled;
            Ok::<_, anyhow::Error>(shared)
        });
        let shared = Arc::new(shared.await.context("write the clients' first rows")??);
        let mut threads = Vec::new();
        for (n, path) in (0..=CLIENTS).zip(&journals).skip(1) {
            let client = Client::new(Arc::clone(&shared), n, path)?;
            let shared = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || {
                if let Err(error) = client.run() {
                    *lock(&shared.failure) = Some(format!("{error:#}"));
                }
            }));
        }
        Ok(Self { shared, threads, journals })
    }

    /// Returns an error if a client has stopped because of an error.
    pub(crate) fn check(&self) -> Result<()> {
        match &*lock(&self.shared.failure) {
            Some(failure) => bail!("a client of the gateways stopped by itself: {failure}"),
            None => Ok(()),
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        lock(&self.shared.seen).clone()
    }

    pub(crate) fn entity(&self) -> &Entity {
        &self.shared.entity
    }

    /// Resets the set of settled rows that Cassandra has served.
    pub(crate) fn forget_served(&self) {
        lock(&self.shared.seen).served.clear();
    }

    /// Stops the clients, each after its current request. Returns what they observed, and their journals.
    pub(crate) async fn stop(self) -> Result<(Seen, Vec<PathBuf>)> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let Self { shared, threads, journals } = self;
        tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    bail!("a client of the gateways panicked");
                }
            }
            Ok(())
        })
        .await
        .context("stop the clients")??;
        match &*lock(&shared.failure) {
            Some(failure) => bail!("a client of the gateways stopped by itself: {failure}"),
            None => Ok((lock(&shared.seen).clone(), journals)),
        }
    }
}

struct Client {
    shared: Arc<Shared>,
    number: u64,
    turn: usize,
    agent: ureq::Agent,
    journal: std::io::BufWriter<std::fs::File>,
}

impl Client {
    fn new(shared: Arc<Shared>, number: u64, journal: &Path) -> Result<Self> {
        let file = std::fs::File::create(journal).with_context(|| format!("create {}", journal.display()))?;
        let agent = ureq::Agent::config_builder().timeout_global(Some(DEADLINE)).http_status_as_error(false);
        let journal = std::io::BufWriter::new(file);
        Ok(Self { shared, number, turn: number as usize, agent: agent.build().into(), journal })
    }

    fn run(mut self) -> Result<()> {
        let (mut counter, stop) = (0_u64, Arc::clone(&self.shared));
        let stopped = || stop.stop.load(Ordering::Relaxed);
        while !stopped() {
            counter += 1;
            let id = FIRST + self.number * 1000 + counter % ROWS;
            // Whole rows first and now and then; otherwise only the value. A write with an unknown outcome is
            // repeated with another value.
            let mut token = None;
            let mut whole = counter <= ROWS || counter.is_multiple_of(7);
            while token.is_none() && !stopped() {
                token = self.write(id, &format!("{}-{counter}", self.number), whole)?;
                if token.is_none() {
                    counter += ROWS;
                    whole = true;
                }
                std::thread::sleep(PAUSE);
            }
            for _ in 0..3 {
                if let Some(token) = &token {
                    self.read(id, token)?;
                    std::thread::sleep(PAUSE);
                }
                let (settled, token) =
                    self.shared.settled[(counter as usize + self.turn) % SETTLED as usize].clone();
                self.read(settled, &token)?;
                std::thread::sleep(PAUSE);
            }
        }
        self.journal.flush().context("write the journal")
    }

    /// Sends one request, to the gateways in turn. The error says whether the request may have been sent.
    fn ask(&mut self, method: &str, id: u64, token: Option<&str>, body: &Json) -> Result<Answer, bool> {
        self.turn += 1;
        let port = self.shared.ports[self.turn % self.shared.ports.len()];
        let url = format!("http://127.0.0.1:{port}/v1/{}/{id}", self.shared.entity.name);
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        if method != "GET" {
            request = request.header("content-type", "application/json");
        }
        if let Some(token) = token {
            request = request.header("tandem-token", token);
        }
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let sent = |error: &ureq::Error| {
            !matches!(error, ureq::Error::ConnectionFailed)
                && !matches!(error, ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        let request = request.body(body).map_err(|_| false)?;
        let mut answer = self.agent.run(request).map_err(|error| sent(&error))?;
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (token, fallback) = (header("tandem-token"), header("tandem-fallback"));
        let served_by = header("tandem-served-by").unwrap_or_default();
        let generation = header("tandem-generation").and_then(|g| g.parse().ok()).unwrap_or_default();
        let text = answer.body_mut().read_to_string().map_err(|error| sent(&error))?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Answer { status: answer.status().as_u16(), token, served_by, fallback, generation, body })
    }

    /// Returns the token if the write was acknowledged.
    fn write(&mut self, id: u64, value: &str, whole: bool) -> Result<Option<String>> {
        let mut body = if whole { (self.shared.entity.row)(id) } else { json!({}) };
        body[self.shared.entity.value] = value.into();
        let began = self.now_us();
        let answer = self.ask(if whole { "PUT" } else { "PATCH" }, id, None, &body);
        let (outcome, token) = match answer {
            Ok(Answer { status: 200..300, token, .. }) => ("ok", token),
            Ok(Answer { status: 500 | 502, .. }) | Err(true) => ("unknown", None),
            // Every other status promises that the write changed nothing.
            Ok(_) | Err(false) => ("failed", None),
        };
        let mut seen = lock(&self.shared.seen);
        if outcome == "ok" {
            seen.writes += 1;
        } else {
            seen.errors += 1;
        }
        drop(seen);
        self.note(began, id, "write", Some(value), outcome, token.as_deref(), None)?;
        Ok(token)
    }

    fn read(&mut self, id: u64, token: &str) -> Result<()> {
        let began = self.now_us();
        let answer = self.ask("GET", id, Some(token), &Json::Null);
        let mut seen = lock(&self.shared.seen);
        let Ok(answer @ Answer { status: 200 | 404, .. }) = answer else {
            seen.errors += 1;
            return Ok(());
        };
        *seen.reads.entry((answer.generation, answer.served_by.clone())).or_default() += 1;
        if let Some(reason) = answer.fallback {
            *seen.fallbacks.entry(reason).or_default() += 1;
        }
        if answer.served_by == "cassandra" && id < FIRST + SETTLED {
            seen.served.insert(id);
        }
        drop(seen);
        let value = answer.body[self.shared.entity.value].as_str();
        self.note(began, id, "read", value, "ok", Some(token), Some(&answer.served_by))
    }

    fn now_us(&self) -> i64 {
        self.shared.clock.elapsed().as_micros() as i64
    }

    #[allow(clippy::too_many_arguments)] // the fields of a journal line
    fn note(
        &mut self,
        began: i64,
        id: u64,
        op: &str,
        value: Option<&str>,
        outcome: &str,
        token: Option<&str>,
        served_by: Option<&str>,
    ) -> Result<()> {
        let line = json!({
            "client": self.number.to_string(),
            "began_us": began,
            "ended_us": self.now_us().max(began + 1),
            "entity": self.shared.entity.name,
            "key": [id.to_string()],
            "op": op,
            "value": value,
            "outcome": outcome,
            "token": token,
            "served_by": served_by,
        });
        writeln!(self.journal, "{line}").context("write the journal")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
