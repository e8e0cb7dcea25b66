//! Waits for the running process: until it is ready, has backfilled, has caught up, has repaired.
//!
//! Every wait has a deadline and ends early if the process or the traffic ends. Its error has the last
//! status.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use tandem_compare::process::Tandem;

use super::metrics::{self, Metrics};
use super::status::{Mismatches, Status, status};
use crate::traffic::Traffic;
use crate::ui::Ui;

/// How long a start may take.
const READY: Duration = Duration::from_mins(3);
/// A database with fewer rows is copied so fast that the kill comes after the first applied rows.
const TINY: u64 = 20_000;

/// The watched process, with the metrics of its predecessors.
pub(crate) struct Watch<'a> {
    pub(crate) ui: &'a Ui,
    pub(crate) tandem: Tandem,
    pub(crate) port: u16,
    /// The sum over processes that have ended.
    ended: Metrics,
    /// The last sample of the current process.
    current: Metrics,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(ui: &'a Ui, tandem: Tandem, port: u16) -> Self {
        Self { ui, tandem, port, ended: Metrics::default(), current: Metrics::default() }
    }

    /// All counts so far, over all processes.
    pub(crate) fn metrics(&self) -> Metrics {
        self.current.clone().plus(&self.ended)
    }

    /// The counts of the current process.
    pub(crate) fn present(&self) -> &Metrics {
        &self.current
    }

    /// Takes a sample of `/metrics`. Keeps the last one if there is no answer.
    pub(crate) async fn look(&mut self) -> Result<()> {
        self.tandem.check()?;
        if let Ok(seen) = metrics::scrape(self.port).await {
            self.current = seen;
        }
        Ok(())
    }

    /// Starts the process and waits until it is ready. Returns how long that took.
    pub(crate) async fn start(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.tandem.start()?;
        self.until_ready(begun).await
    }

    async fn until_ready(&mut self, begun: Instant) -> Result<Duration> {
        let mut last = "no answer yet".to_owned();
        while begun.elapsed() < READY {
            self.tandem.check()?;
            match metrics::get(self.port, "/readyz").await {
                Ok(Some(_)) => return Ok(begun.elapsed()),
                Ok(None) => "/readyz says: not yet".clone_into(&mut last),
                Err(error) => last = format!("{error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("tandem was not ready within {} s ({last}). {}", READY.as_secs(), self.tandem.tail())
    }

    /// Starts the process and kills it in the middle of the backfill. Returns its process id, the rows
    /// backfilled by then, and the total.
    pub(crate) async fn start_and_kill(&mut self, rows: u64, traffic: &Traffic) -> Result<(u32, (u64, u64))> {
        let deadline = Instant::now() + READY + backfill_deadline(rows);
        let begun = Instant::now();
        self.tandem.start()?;
        let bar = self.ui.bar(rows);
        let mut seen = (0, rows);
        loop {
            self.look().await?;
            traffic.check()?;
            if rows < TINY {
                if self.current.counter("tandem_apply_rows_total") > 0 {
                    break;
                }
            } else if let Ok(status) = status(&self.tandem).await {
                seen = status.backfill();
                bar.set(seen.0, seen.1, "rows backfilled");
                if status.backfilled() || seen.1 > 0 && seen.0 * 3 >= seen.1 {
                    break;
                }
            }
            if Instant::now() > deadline {
                bail!(
                    "the backfill did not begin or made no progress within {} s. {}",
                    begun.elapsed().as_secs(),
                    self.tandem.tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(if rows < TINY { 10 } else { 200 })).await;
        }
        self.look().await?;
        let pid = self.tandem.pid().unwrap_or_default();
        self.tandem.kill9().await?;
        self.ended = self.metrics();
        self.current = Metrics::default();
        if rows < TINY {
            // The status comes from Kafka and the stores, so it is available while the process is dead.
            seen = status(&self.tandem).await.map_or(seen, |s| s.backfill());
        }
        Ok((pid, seen))
    }

    /// Waits until the backfill is done and apply is at most `lag` records behind.
    pub(crate) async fn until_backfilled(&mut self, rows: u64, lag: u64, traffic: &Traffic) -> Result<()> {
        let bar = self.ui.bar(rows);
        let what = "the backfill";
        self.until(what, backfill_deadline(rows), Some(traffic), |status| {
            let (done, all) = status.backfill();
            let records = status.lag();
            let lag_text = records.map_or("unknown".to_owned(), |r| r.to_string());
            if status.backfilled() {
                bar.message(&format!("backfilled; waiting for the lag ({lag_text} records) to go down"));
            } else {
                bar.set(done, all, &format!("rows backfilled ({})", status.unfinished()));
            }
            status.backfilled() && records.is_some_and(|r| r <= lag)
        })
        .await?;
        Ok(())
    }

    /// Waits until `wanted` mismatches are found and none is open. Reports each change of the counts.
    pub(crate) async fn until_repaired(&mut self, wanted: u64, traffic: &Traffic) -> Result<Mismatches> {
        let (ui, mut last) = (self.ui, String::new());
        let status = self
            .until("the repair of all mismatches", Duration::from_mins(3), Some(traffic), |status| {
                report(ui, &status.mismatches, &mut last);
                let m = &status.mismatches;
                m.found >= wanted && m.open == 0
            })
            .await?;
        if status.mismatches.unrepairable > 0 {
            bail!(
                "{} mismatches could not be repaired. {}",
                status.mismatches.unrepairable,
                self.tandem.tail()
            );
        }
        Ok(status.mismatches)
    }

    /// Runs `tandem verify --full` and reports mismatches as they are found. Returns its output.
    pub(crate) async fn verify(&mut self, rows: u64) -> Result<String> {
        let ui = self.ui;
        let bar = ui.bar(0);
        bar.message("every row of every table is checked");
        let verify = self.tandem.cli(&["verify", "--full", "--json"], backfill_deadline(rows));
        tokio::pin!(verify);
        let mut last = String::new();
        loop {
            tokio::select! {
                done = &mut verify => return done.context("the full verification"),
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    if let Ok(status) = status(&self.tandem).await {
                        bar.line_if(changed_counts(&status.mismatches, &mut last));
                    }
                }
            }
        }
    }

    /// Waits until everything that MySQL has committed so far is captured and applied.
    pub(crate) async fn until_drained(&mut self, rows: u64, mysql: &mut Conn) -> Result<()> {
        let bar = self.ui.bar(0);
        let begun = Instant::now();
        let deadline = backfill_deadline(rows);
        let executed: Option<String> = mysql.query_first("SELECT @@GLOBAL.gtid_executed").await?;
        loop {
            let status = self
                .until("everything to be applied", deadline, None, |status| {
                    let left = status.lag().map_or("?".into(), |r| r.to_string());
                    bar.message(&format!("{left} records to go"));
                    status.lag() == Some(0)
                })
                .await?;
            let captured = status.source.map(|s| s.gtid_set).unwrap_or_default();
            let all: Option<i64> =
                mysql.exec_first("SELECT GTID_SUBSET(?, ?)", (&executed, &captured)).await?;
            if all == Some(1) {
                return Ok(());
            }
            if begun.elapsed() > deadline {
                bail!(
                    "captured up to {captured} only, {} s after the traffic ended",
                    begun.elapsed().as_secs()
                );
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Polls the status until `done`.
    async fn until(
        &mut self,
        what: &str,
        deadline: Duration,
        traffic: Option<&Traffic>,
        mut done: impl FnMut(&Status) -> bool,
    ) -> Result<Status> {
        let begun = Instant::now();
        loop {
            self.look().await?;
            if let Some(traffic) = traffic {
                traffic.check()?;
            }
            let last = match status(&self.tandem).await {
                Ok(status) if done(&status) => return Ok(status),
                Ok(status) => describe(&status),
                Err(error) => format!("{error:#}"),
            };
            if begun.elapsed() > deadline {
                bail!(
                    "waited {} s for {what}; last seen: {last}. {}",
                    deadline.as_secs(),
                    self.tandem.tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// A generous deadline: 500 rows a second, plus two minutes.
fn backfill_deadline(rows: u64) -> Duration {
    Duration::from_secs(180 + rows / 500)
}

fn describe(status: &Status) -> String {
    let (done, all) = status.backfill();
    let m = &status.mismatches;
    format!(
        "ready {}, {done} of {all} rows backfilled, lag {:?} records ({:?} s), mismatches {} found, {} repaired, {} open",
        status.caught_up.holds && status.copied.holds,
        status.lag.records,
        status.lag.seconds,
        m.found,
        m.resolved,
        m.open
    )
}

fn report(ui: &Ui, mismatches: &Mismatches, last: &mut String) {
    if let Some(text) = changed_counts(mismatches, last) {
        ui.note(&text);
    }
}

/// The counts as a sentence, if they changed since the last one.
fn changed_counts(m: &Mismatches, last: &mut String) -> Option<String> {
    if m.found == 0 {
        return None;
    }
    let text = format!("mismatches: {} found, {} repaired, {} open", m.found, m.resolved, m.open);
    (text != *last).then(|| {
        last.clone_from(&text);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_reported_once() {
        let mut last = String::new();
        assert_eq!(changed_counts(&Mismatches::default(), &mut last), None);
        let found = Mismatches { found: 2, open: 2, ..Mismatches::default() };
        let text = "mismatches: 2 found, 0 repaired, 2 open";
        assert_eq!(changed_counts(&found, &mut last).as_deref(), Some(text));
        assert_eq!(changed_counts(&found, &mut last), None);
    }
}
