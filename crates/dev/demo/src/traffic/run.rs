//! Live traffic on MySQL: several connections, each with one small step after another at a given rate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::task::JoinSet;
use tokio::time::Instant;

use tandem_compare::stores::schema;

use super::step::Step;
use crate::dump::DumpTraffic;
use crate::sample::{Generator, SampleTraffic};

const CONNECTIONS: u64 = 4;
/// A connection that is late catches up on at most this much time.
const CATCH_UP: Duration = Duration::from_secs(1);
const FAILURES_IN_A_ROW: u32 = 30;
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// The kind of traffic. Each variant knows its tables.
#[derive(Debug)]
pub(crate) enum Workload {
    Sample(SampleTraffic),
    Dump(DumpTraffic),
}

/// The counts so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Steps by kind.
    pub(crate) by_kind: BTreeMap<&'static str, u64>,
    /// Steps that MySQL refused, by reason: a foreign key, a deadlock, a duplicate.
    pub(crate) refused: BTreeMap<&'static str, u64>,
    /// Rows changed.
    pub(crate) rows: u64,
}

#[derive(Debug)]
struct Shared {
    url: String,
    database: String,
    workload: Workload,
    rate: u64,
    stop: AtomicBool,
    counts: Mutex<Counts>,
    failure: Mutex<Option<String>>,
}

/// The running traffic.
#[derive(Debug)]
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Traffic {
    /// Starts the traffic: `rate` rows a second over all connections.
    pub(crate) fn start(url: &str, database: &str, workload: Workload, rate: u64) -> Self {
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            database: database.to_owned(),
            workload,
            rate,
            stop: AtomicBool::new(rate == 0),
            counts: Mutex::default(),
            failure: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for n in 0..CONNECTIONS {
            tasks.spawn(Arc::clone(&shared).run(n));
        }
        Self { shared, tasks }
    }

    /// Returns an error if a connection has stopped because of an error.
    pub(crate) fn check(&self) -> Result<()> {
        match &*lock(&self.shared.failure) {
            Some(failure) => bail!("the traffic stopped by itself: {failure}"),
            None => Ok(()),
        }
    }

    /// Stops the traffic, each connection after its current step. Returns the counts and the workload, which
    /// knows the keys in use.
    pub(crate) async fn stop(mut self) -> Result<(Counts, Workload)> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(STOP_DEADLINE, all)
            .await
            .with_context(|| format!("the traffic did not stop within {} s", STOP_DEADLINE.as_secs()))?;
        self.check()?;
        let shared = Arc::into_inner(self.shared).context("a connection of the traffic still runs")?;
        Ok((shared.counts.into_inner().unwrap_or_else(PoisonError::into_inner), shared.workload))
    }
}

impl Shared {
    /// One connection's loop.
    async fn run(self: Arc<Self>, number: u64) {
        let mut conn = None;
        let mut generator = Generator::new(number + 1);
        let mut due = Instant::now();
        let mut failures = 0;
        while !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep_until(due.min(Instant::now() + Duration::from_millis(200))).await;
            if Instant::now() < due {
                continue; // check `stop` again
            }
            let outcome = self.step(&mut conn, &mut generator).await;
            let rows = match outcome {
                Ok(step) => {
                    failures = 0;
                    let mut counts = lock(&self.counts);
                    counts.rows += step.rows;
                    if step.rows > 0 {
                        *counts.by_kind.entry(step.kind).or_default() += 1;
                    }
                    step.rows
                }
                Err(error) => {
                    if let Some(reason) = refusal(&error) {
                        *lock(&self.counts).refused.entry(reason).or_default() += 1;
                    } else {
                        failures += 1;
                        conn = None;
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                    if failures >= FAILURES_IN_A_ROW {
                        *lock(&self.failure) = Some(format!("{error:#}"));
                        return;
                    }
                    1
                }
            };
            let share = CONNECTIONS as f64 / self.rate.max(1) as f64;
            due += Duration::from_secs_f64(share * rows.max(1) as f64);
            due = due.max(Instant::now().checked_sub(CATCH_UP).unwrap_or(due));
        }
        if let Some(conn) = conn {
            let _ = conn.disconnect().await;
        }
    }

    async fn step(&self, conn: &mut Option<Conn>, generator: &mut Generator) -> Result<Step> {
        let open = if let Some(open) = conn {
            open
        } else {
            let mut new = schema::mysql(&self.url).await?;
            new.query_drop(format!("USE {}", schema::tick(&self.database))).await?;
            conn.insert(new)
        };
        let done = match &self.workload {
            Workload::Sample(sample) => sample.step(open, generator).await,
            Workload::Dump(dump) => dump.step(open, generator).await,
        };
        if done.is_err() {
            // Drop the rest of a failed transaction.
            open.query_drop("ROLLBACK").await?;
        }
        Ok(done?)
    }
}

/// The reason, if MySQL refused a statement for a cause that concurrent random traffic can have.
fn refusal(error: &anyhow::Error) -> Option<&'static str> {
    let Some(mysql_async::Error::Server(server)) = error.downcast_ref() else { return None };
    Some(match server.code {
        1451 | 1452 | 1216 | 1217 => "foreign key",
        1205 | 1213 => "deadlock",
        1022 | 1062 | 1586 => "duplicate key",
        3819 | 1644 | 1264 | 1406 | 1265 | 1366 | 1292 => "value",
        _ => return None,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_distinguished_from_failures() {
        let server = |code| {
            let error = mysql_async::ServerError { code, message: "m".into(), state: "HY000".into() };
            anyhow::Error::from(mysql_async::Error::Server(error))
        };
        assert_eq!(refusal(&server(1213)), Some("deadlock"));
        assert_eq!(refusal(&server(1146)), None); // no such table: a bug of the traffic
        assert_eq!(refusal(&anyhow::anyhow!("other")), None);
    }
}
