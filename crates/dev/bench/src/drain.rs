//! Watches one process while it drains the binlog into a topic.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value as Json, json};

use tandem_compare::topic::Topic;

use crate::usage::{cpu_us, peak_rss_mb};

/// The pause between two samples.
const EVERY: Duration = Duration::from_millis(20);

/// After this time without new records, the drain counts as complete.
const QUIET: Duration = Duration::from_secs(5);

/// How long the first record may take.
const START: Duration = Duration::from_mins(2);

/// The measurements of one drain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Row changes a second, from the arrival of the first record in the log to that of the last.
    pub(crate) rows_per_s: f64,
    /// CPU time of the process per row, over the same interval.
    pub(crate) cpu_us_per_row: f64,
    /// Peak of the process's resident memory in MiB, including its start.
    pub(crate) rss_mb: f64,
    /// The length of the interval.
    pub(crate) seconds: f64,
}

impl Figures {
    pub(crate) fn to_json(self) -> Json {
        let round = |value: f64, by: f64| (value * by).round() / by;
        json!({
            "rows_per_s": self.rows_per_s.round(),
            "cpu_us_per_row": round(self.cpu_us_per_row, 100.0),
            "rss_mb": round(self.rss_mb, 10.0),
            "seconds": round(self.seconds, 100.0),
        })
    }
}

/// One sample of the log and the process.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    records: i64,
    cpu_us: u64,
}

/// Watches process `pid` until it has drained everything into the topic. `before` has the ends of the topic's
/// partitions from before the start of the process. Fails unless a reader of committed records then finds
/// `rows` new ones.
pub(crate) async fn watch(topic: &Topic, before: &[i64], pid: u32, rows: u64) -> Result<Figures> {
    let began: i64 = before.iter().sum();
    let start = Instant::now();
    let mut first: Option<Sample> = None;
    let mut last: Option<Sample> = None;
    loop {
        let sample = Sample { at: Instant::now(), records: topic.ends()?.iter().sum(), cpu_us: cpu_us(pid)? };
        if sample.records > began {
            first.get_or_insert(sample);
            if last.is_none_or(|last| sample.records > last.records) {
                last = Some(sample);
            }
        }
        match last {
            None if start.elapsed() > START => bail!("no record came within {} s", START.as_secs()),
            Some(last) if last.at.elapsed() > QUIET => break,
            _ => {}
        }
        tokio::time::sleep(EVERY).await;
    }
    let (Some(first), Some(last)) = (first, last) else { bail!("no record came") };
    let rss_mb = peak_rss_mb(pid)?;
    let mut found = 0_u64;
    topic.read(before, |_| {
        found += 1;
        Ok(())
    })?;
    if found != rows {
        bail!("the topic has {found} new records where the binlog has {rows} row changes");
    }
    let seconds = (last.at - first.at).as_secs_f64();
    // The record counts include transaction markers, which are spread evenly.
    let share = (last.records - first.records) as f64 / (last.records - began) as f64;
    let drained = rows as f64 * share;
    if seconds <= 0.0 {
        bail!("it was done before a second sample: use more rows");
    }
    Ok(Figures {
        rows_per_s: drained / seconds,
        cpu_us_per_row: (last.cpu_us - first.cpu_us) as f64 / drained,
        rss_mb,
        seconds,
    })
}
