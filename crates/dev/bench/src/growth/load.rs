//! The load and the probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use scylla::client::session::Session;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::stage::{ROWS, Stage};

/// Connections that run the transactions.
const WRITERS: usize = 16;

/// Probes under way at once. Each changes a row of its own.
const PROBERS: u32 = 4;

/// The pause between the probes of one prober, and between two reads of Cassandra.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(2));

/// How long a change may take to be visible.
const TIMEOUT: Duration = Duration::from_mins(2);

/// How far behind its time the last transaction of a load may be.
const LATE: Duration = Duration::from_millis(500);

/// What a load did.
pub(super) struct Figures {
    /// Rows changed, by the transactions and by the probes.
    pub(super) rows: u64,
    /// From the first transaction until the last change was visible.
    pub(super) seconds: f64,
    /// Whether the last transaction was on time.
    pub(super) on_time: bool,
    /// From COMMIT until Cassandra returned the value, for each probe, sorted.
    pub(super) visible_ms: Vec<f64>,
}

impl Figures {
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let at = (self.visible_ms.len() * percent / 100).min(self.visible_ms.len().saturating_sub(1));
        self.visible_ms.get(at).copied().unwrap_or(f64::NAN)
    }
}

/// Connections to MySQL and Cassandra, for one migration.
pub(super) struct Load {
    name: Arc<str>,
    tables: u32,
    writers: Vec<Arc<Mutex<Conn>>>,
    probers: Vec<Arc<Mutex<Prober>>>,
}

struct Prober {
    number: u32,
    mysql: Conn,
    cassandra: Session,
}

impl Load {
    pub(super) async fn connect(stage: &Stage<'_>) -> Result<Self> {
        let url = stage.servers.mysql.url();
        let (mut writers, mut probers) = (Vec::new(), Vec::new());
        for _ in 0..WRITERS {
            writers.push(Arc::new(Mutex::new(Conn::from_url(&url).await.context("connect to MySQL")?)));
        }
        for number in 1..=PROBERS {
            let mysql = Conn::from_url(&url).await.context("connect to MySQL")?;
            probers.push(Arc::new(Mutex::new(Prober { number, mysql, cassandra: stage.cassandra().await? })));
        }
        Ok(Self { name: stage.name.as_str().into(), tables: stage.tables, writers, probers })
    }

    /// Runs so many transactions a second, with probes beside them, and waits until the last probe is visible.
    pub(super) async fn run(&self, rate: u32, took: Duration) -> Result<Figures> {
        let begun = Instant::now();
        let end = begun + took;
        let all = (f64::from(rate) * took.as_secs_f64()) as u64;
        let next = Arc::new(AtomicU64::new(0));
        let writers = self.writers.iter().map(|conn| {
            let (name, tables, conn, next) =
                (Arc::clone(&self.name), self.tables, Arc::clone(conn), Arc::clone(&next));
            tokio::spawn(async move {
                let mut conn = conn.lock().await;
                loop {
                    let due = next.fetch_add(1, Ordering::Relaxed);
                    if due >= all {
                        return Ok::<_, anyhow::Error>(Instant::now());
                    }
                    tokio::time::sleep_until(begun + Duration::from_secs_f64(due as f64 / f64::from(rate)))
                        .await;
                    conn.query_drop(transaction(&name, tables)).await.context("change rows")?;
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        let probers = self.probers.iter().map(|prober| {
            let (name, tables, prober) = (Arc::clone(&self.name), self.tables, Arc::clone(prober));
            tokio::spawn(async move {
                let mut prober = prober.lock().await;
                let mut visible = Vec::new();
                while Instant::now() < end {
                    visible.push(prober.probe(&name, tables).await?.as_secs_f64() * 1e3);
                    tokio::time::sleep(PAUSES.0).await;
                }
                Ok::<_, anyhow::Error>(visible)
            })
        });
        let probers: Vec<_> = probers.collect();
        let (mut on_time, mut visible_ms) = (true, Vec::new());
        for writer in writers {
            on_time &= writer.await?? <= end + LATE;
        }
        for prober in probers {
            visible_ms.extend(prober.await??);
        }
        // Everything else is visible too once a change that follows it is.
        self.probers[0].lock().await.probe(&self.name, self.tables).await?;
        visible_ms.sort_by(f64::total_cmp);
        let rows = all * 4 + visible_ms.len() as u64 + 1;
        Ok(Figures { rows, seconds: begun.elapsed().as_secs_f64(), on_time, visible_ms })
    }
}

impl Prober {
    /// Changes a row, and returns how long after the COMMIT Cassandra has the change.
    async fn probe(&mut self, name: &str, tables: u32) -> Result<Duration> {
        let (table, id) = (rand::random::<u32>() % tables, self.number);
        let value = rand::random::<i32>();
        self.mysql.query_drop(format!("UPDATE {name}.t{table} SET k = {value} WHERE id = {id}")).await?;
        let committed = Instant::now();
        let query = format!("SELECT k FROM {name}.t{table} WHERE id = {id}");
        loop {
            let rows = self.cassandra.query_unpaged(query.as_str(), ()).await?.into_rows_result()?;
            let found = rows.maybe_first_row::<(Option<i32>,)>()?;
            if found == Some((Some(value),)) {
                return Ok(committed.elapsed());
            }
            if committed.elapsed() > TIMEOUT {
                bail!("a change of {name}.t{table} is not in Cassandra after {} s", TIMEOUT.as_secs());
            }
            tokio::time::sleep(PAUSES.1).await;
        }
    }
}

/// Four updates of random rows. The first rows of each table are the probers'.
fn transaction(name: &str, tables: u32) -> String {
    let update = |_| {
        let (table, id) =
            (rand::random::<u32>() % tables, PROBERS + 1 + rand::random::<u32>() % (ROWS - PROBERS));
        (table, id)
    };
    let mut rows: Vec<(u32, u32)> = (0..4).map(update).collect();
    // In one order, so that transactions do not wait for each other in a circle.
    rows.sort_unstable();
    let updates: Vec<String> = rows
        .iter()
        .map(|(table, id)| {
            format!("UPDATE {name}.t{table} SET k = k + 1, c = SHA2(RAND(), 256) WHERE id = {id}")
        })
        .collect();
    format!("BEGIN; {}; COMMIT", updates.join("; "))
}
