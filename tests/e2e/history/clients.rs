//! Clients that keep a journal. Each has a row of its own, and all share one. Now and then a client writes
//! directly to MySQL, as old jobs do. Only the log brings that write to Cassandra.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Answer, Migration, executed, http};

/// The row that every client writes.
const SHARED: u64 = 1000;
/// The pause between two reads. Apply sometimes catches up within it.
const PAUSE: Duration = Duration::from_millis(15);

/// The counts of all clients together.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) acknowledged: AtomicU64,
    pub(super) by_cassandra: AtomicU64,
    stop: AtomicBool,
    /// The newest token for each row. Clients share their tokens.
    tokens: Mutex<BTreeMap<u64, String>>,
}

/// The running clients.
pub(super) struct Clients {
    pub(super) seen: Arc<Seen>,
    tasks: JoinSet<anyhow::Result<PathBuf>>,
}

impl Clients {
    /// Starts this many clients of these gateways, with journals in the migration's folder.
    pub(super) async fn start(count: u64, ports: &[u16], migration: &Migration) -> anyhow::Result<Self> {
        let (seen, clock, mut tasks) = (Arc::new(Seen::default()), Instant::now(), JoinSet::new());
        for id in 1..=count {
            let client = Client {
                mysql: migration.session().await?,
                id,
                others: count,
                ports: ports.to_vec(),
                clock,
                seen: Arc::clone(&seen),
                path: migration.folder.path().join(format!("client-{id}.jsonl")),
                lines: Vec::new(),
            };
            tasks.spawn(client.run());
        }
        Ok(Self { seen, tasks })
    }

    /// Stops the clients, each after its current operation. Returns their journals.
    pub(super) async fn stop(mut self) -> anyhow::Result<Vec<PathBuf>> {
        self.seen.stop.store(true, Ordering::Relaxed);
        let mut journals = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            journals.push(ended??);
        }
        Ok(journals)
    }
}

struct Client {
    mysql: mysql_async::Conn,
    id: u64,
    others: u64,
    ports: Vec<u16>,
    clock: Instant,
    seen: Arc<Seen>,
    path: PathBuf,
    lines: Vec<String>,
}

/// The outcome of a request.
fn outcome(answer: &anyhow::Result<Answer>) -> &'static str {
    match answer {
        Ok(answer) => match answer.status {
            200..300 => "ok",
            // `commit-outcome-unknown`, or an error without a known outcome.
            500 | 502 => "unknown",
            // Every other status promises that nothing changed.
            _ => "failed",
        },
        Err(error) => match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            // It was never sent.
            Some(std::io::ErrorKind::ConnectionRefused) => "failed",
            _ => "unknown",
        },
    }
}

impl Client {
    async fn run(mut self) -> anyhow::Result<PathBuf> {
        let mut number = 0;
        while !self.seen.stop.load(Ordering::Relaxed) {
            number += 1;
            // The client's own row moves within `by_customer`, is deleted and inserted again.
            let customer = self.id * 10 + number / 3 % 3;
            let value = format!("{}-{number}", self.id);
            let note = json!({ "note": value }).to_string();
            let whole = json!({ "customer": customer, "note": value }).to_string();
            let token = match number % 9 {
                0 => self.write(self.id, "DELETE", None, "").await,
                4 | 7 => self.write(self.id, "PATCH", Some(&value), &note).await,
                2 | 6 | 8 => self.write_beside(&value).await?,
                5 => self.write(SHARED, "PUT", Some(&value), &whole).await,
                _ => self.write(self.id, "PUT", Some(&value), &whole).await,
            };
            let moved = matches!(number % 9, 0 | 1 | 3);
            let own = token.as_deref().filter(|_| number % 9 != 5);
            for _ in 0..6 {
                if self.seen.stop.load(Ordering::Relaxed) {
                    break;
                }
                self.read(self.id, own).await;
                if let (true, Some(token)) = (moved, own) {
                    self.listed(customer, token).await;
                }
                // A read with the token of another client returns what the token covers.
                for row in [rand::random_range(1..=self.others), SHARED] {
                    let given = self.seen.tokens.lock().unwrap().get(&row).cloned();
                    self.read(row, given.as_deref()).await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        let mut file = std::fs::File::create(&self.path)?;
        file.write_all(self.lines.concat().as_bytes())?;
        Ok(self.path)
    }

    fn now_us(&self) -> i64 {
        self.clock.elapsed().as_micros() as i64
    }

    async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> anyhow::Result<Answer> {
        let port = self.ports[rand::random_range(0..self.ports.len())];
        let token = token.map(|token| ("Tandem-Token", token));
        let answer = http(port, method, path, token.as_slice(), body).await;
        if !answer.as_ref().is_ok_and(|answer| answer.status < 500) {
            // A process was killed.
            tokio::time::sleep(PAUSE).await;
        }
        answer
    }

    /// Returns the token if the write was acknowledged.
    async fn write(&mut self, row: u64, method: &str, value: Option<&str>, body: &str) -> Option<String> {
        let began = self.now_us();
        let answer = self.ask(method, &format!("/v1/order/{row}"), None, body).await;
        let outcome = outcome(&answer);
        let token = answer.ok().filter(|_| outcome == "ok");
        let token = token.map(|answer| answer.header("tandem-token").to_owned());
        self.note(began, row, "write", value, outcome, token.as_deref(), None);
        if let Some(token) = &token {
            self.seen.acknowledged.fetch_add(1, Ordering::Relaxed);
            self.seen.tokens.lock().unwrap().insert(row, token.clone());
        }
        token
    }

    /// Writes the client's own row directly in MySQL, if it exists. The token is everything that MySQL has
    /// executed by then.
    async fn write_beside(&mut self, value: &str) -> anyhow::Result<Option<String>> {
        let began = self.now_us();
        self.mysql.exec_drop("UPDATE orders SET note = ? WHERE id = ?", (value, self.id)).await?;
        let there = self.mysql.affected_rows() > 0;
        let token = executed(&mut self.mysql).await?.to_string();
        let token = there.then_some(token);
        let outcome = if there { "ok" } else { "failed" };
        self.note(began, self.id, "write", Some(value), outcome, token.as_deref(), Some("mysql"));
        Ok(token)
    }

    async fn read(&mut self, row: u64, token: Option<&str>) {
        let began = self.now_us();
        let Ok(answer) = self.ask("GET", &format!("/v1/order/{row}"), token, "").await else { return };
        let value = match answer.status {
            200 => answer.json()["note"].as_str().map(str::to_owned),
            404 => None,
            _ => return,
        };
        self.saw(began, row, value.as_deref(), token, &answer);
    }

    /// Reads the client's own row in the list of its customer.
    async fn listed(&mut self, customer: u64, token: &str) {
        let began = self.now_us();
        let path = format!("/v1/order?target=by_customer&customer={customer}");
        let Ok(answer) = self.ask("GET", &path, Some(token), "").await else { return };
        if answer.status != 200 {
            return;
        }
        let found = answer.json();
        let items = found["items"].as_array().cloned().unwrap_or_default();
        let own = items.iter().find(|item| item["id"] == self.id);
        let value = own.and_then(|item| item["note"].as_str());
        self.saw(began, self.id, value, Some(token), &answer);
    }

    fn saw(&mut self, began: i64, row: u64, value: Option<&str>, token: Option<&str>, answer: &Answer) {
        if answer.served_by() == "cassandra" {
            self.seen.by_cassandra.fetch_add(1, Ordering::Relaxed);
        }
        self.note(began, row, "read", value, "ok", token, Some(answer.served_by()));
    }

    #[allow(clippy::too_many_arguments)] // the fields of a journal line
    fn note(
        &mut self,
        began: i64,
        row: u64,
        op: &str,
        value: Option<&str>,
        outcome: &str,
        token: Option<&str>,
        served_by: Option<&str>,
    ) {
        let line = json!({
            "client": self.id.to_string(),
            "began_us": began,
            "ended_us": self.now_us().max(began + 1),
            "entity": "order",
            "key": [row.to_string()],
            "op": op,
            "value": value,
            "outcome": outcome,
            "token": token,
            "served_by": served_by,
        });
        self.lines.push(format!("{line}\n"));
    }
}
