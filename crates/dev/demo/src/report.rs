//! The report at the end: for people on stdout, for programs as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value as Json, json};

use tandem_compare::stores::{Comparison, thousands};

use crate::clients::Seen;
use crate::clients::checker::Verdict;
use crate::corrupt::Corruption;
use crate::processes::{Metrics, Mismatches};
use crate::rollout::Stay;
use crate::traffic::Counts;

/// The kill of `tandem run` during the backfill.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    pub(crate) pid: u32,
    /// Rows backfilled at that time, and the total.
    pub(crate) at: (u64, u64),
    /// From the start of the new process until it was ready.
    pub(crate) ready_after: Duration,
}

/// Everything that the demo measured.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) comparison: Comparison,
    /// Over all processes of `tandem run`.
    pub(crate) metrics: Metrics,
    /// From the end of the backfill to the end of the traffic.
    pub(crate) steady: Metrics,
    pub(crate) traffic: Counts,
    pub(crate) corruptions: Vec<Corruption>,
    pub(crate) mismatches: Mismatches,
    pub(crate) kill: Option<Kill>,
    /// The other killed processes.
    pub(crate) killed: Vec<String>,
    /// The phases of the migration, in order.
    pub(crate) phases: Vec<Stay>,
    /// What the gateways' clients observed.
    pub(crate) seen: Seen,
    /// Reads that Cassandra served, by phase.
    pub(crate) reads_by_cassandra: BTreeMap<String, u64>,
    /// What the checker found in their journals.
    pub(crate) verdict: Verdict,
    /// The demo's own phases and how long they took.
    pub(crate) seconds: Vec<(&'static str, Duration)>,
    pub(crate) folder: PathBuf,
}

impl Report {
    /// What `--json` writes.
    pub(crate) fn to_json(&self) -> Json {
        let latency = |m: &Metrics| json!({ "p50": round(m.latency_ms(0.5)), "p99": round(m.latency_ms(0.99)), "measured": m.measured() });
        let mut whole = latency(&self.metrics);
        whole["steady"] = latency(&self.steady);
        let seconds: Map<String, Json> = self
            .seconds
            .iter()
            .map(|(name, took)| ((*name).to_owned(), json!(round(Some(took.as_secs_f64())))))
            .collect();
        json!({
            "equal": self.comparison.equal(),
            "phases": self.phases.iter().map(Stay::json).collect::<Vec<_>>(),
            "lost_writes": self.verdict.0["lost_writes"],
            "stale_reads": self.verdict.0["stale_reads"],
            "fallbacks": self.seen.fallbacks,
            "reads_by_cassandra": self.reads_by_cassandra,
            "checker": self.verdict.0,
            "killed_processes": self.killed,
            "tables": self.comparison.tables_json(),
            "latency_ms": whole,
            "mismatches": {
                "corrupted": self.corruptions.len(),
                "found": self.mismatches.found,
                "repaired": self.mismatches.resolved,
                "unrepairable": self.mismatches.unrepairable,
            },
            "killed": self.kill.is_some(),
            "kill": self.kill.as_ref().map(|k| json!({
                "pid": k.pid,
                "backfilled_rows": k.at.0,
                "of_rows": k.at.1,
                "ready_again_seconds": round(Some(k.ready_after.as_secs_f64())),
            })),
            "events": {
                "captured": self.metrics.counter("tandem_capture_rows_total"),
                "applied": self.metrics.counter("tandem_apply_rows_total"),
                "backfilled": self.metrics.counter("tandem_apply_backfill_rows_total"),
                "verified": self.metrics.counter("tandem_verify_rows_total"),
            },
            "traffic": {
                "rows": self.traffic.rows,
                "statements": self.traffic.by_kind,
                "refused": self.traffic.refused,
            },
            "seconds": seconds,
        })
    }

    /// Prints it.
    pub(crate) fn print(&self) {
        println!();
        println!("What happened");
        let mut facts = Table::new();
        facts.load_preset(presets::UTF8_FULL_CONDENSED);
        for (name, value) in self.facts() {
            facts.add_row([name, value]);
        }
        println!("{facts}");
        let mut phases = Table::new();
        phases.load_preset(presets::UTF8_FULL_CONDENSED);
        phases.set_header(["phase", "reason"]);
        for stay in &self.phases {
            phases.add_row([stay.text(), stay.reason().to_owned()]);
        }
        println!("{phases}");
        let mut traffic = Table::new();
        traffic.load_preset(presets::UTF8_FULL_CONDENSED);
        traffic.set_header(["old jobs, directly on MySQL", "times"]);
        for (kind, times) in &self.traffic.by_kind {
            traffic.add_row([(*kind).to_owned(), thousands(*times)]);
        }
        for (reason, times) in &self.traffic.refused {
            traffic.add_row([format!("refused by MySQL: {reason}"), thousands(*times)]);
        }
        if let Some(column) = traffic.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{traffic}");
        if !self.corruptions.is_empty() {
            println!("Changed out-of-band in Cassandra, found by verification and repaired:");
            for corruption in &self.corruptions {
                println!("  {}: {}", corruption.table, corruption.what);
            }
        }
        println!(
            "Latency is from the commit in MySQL to Cassandra's acknowledgement, by Tandem's own histogram \
             (looked at shortly before the kill and at the end, interpolated within a bucket)."
        );
        println!("Configuration and log: {}", self.folder.display());
        println!();
        println!("Both stores, read with plain SELECT and plain CQL");
        self.comparison.print();
    }

    fn facts(&self) -> Vec<(String, String)> {
        let fact = |name: &str, value: String| (name.to_owned(), value);
        let counter = |name| thousands(self.metrics.counter(name));
        let mut facts = vec![
            fact("rows changed by traffic", thousands(self.traffic.rows)),
            fact("row changes captured", counter("tandem_capture_rows_total")),
            fact("row changes applied", counter("tandem_apply_rows_total")),
            fact("rows backfilled and applied", counter("tandem_apply_backfill_rows_total")),
            fact("rows verified", counter("tandem_verify_rows_total")),
            fact("latency after the backfill", latency_text(&self.steady)),
            fact("latency in all, with the outage", latency_text(&self.metrics)),
            fact(
                "mismatches",
                format!(
                    "{} made, {} found, {} repaired, {} open",
                    self.corruptions.len(),
                    self.mismatches.found,
                    self.mismatches.resolved,
                    self.mismatches.open
                ),
            ),
        ];
        facts.push(match &self.kill {
            Some(kill) => fact(
                "killed with SIGKILL",
                format!(
                    "process {} at {} of {} rows backfilled; ready again after {:.1} s",
                    kill.pid,
                    thousands(kill.at.0),
                    thousands(kill.at.1),
                    kill.ready_after.as_secs_f64()
                ),
            ),
            None => fact("killed with SIGKILL", "no".to_owned()),
        });
        facts.push(fact("killed with SIGKILL later", self.killed.join(", ")));
        let errors = thousands(self.seen.errors);
        let reads: u64 = self.seen.reads.values().sum();
        facts.push(fact(
            "the gateways' clients",
            format!("{} writes, {} reads, {errors} errors", thousands(self.seen.writes), thousands(reads)),
        ));
        let by = |counts: &BTreeMap<String, u64>| {
            let counts: Vec<String> =
                counts.iter().map(|(what, n)| format!("{what} {}", thousands(*n))).collect();
            counts.join(", ")
        };
        facts.push(fact("their reads served by Cassandra", by(&self.reads_by_cassandra)));
        facts.push(fact("their reads served by MySQL instead", by(&self.seen.fallbacks)));
        facts.push(fact(
            "the checker",
            format!(
                "{} lost writes, {} stale reads, {} impossible values",
                self.verdict.0["lost_writes"], self.verdict.0["stale_reads"], self.verdict.0["impossible"]
            ),
        ));
        let phases: Vec<String> =
            self.seconds.iter().map(|(name, took)| format!("{name} {:.1} s", took.as_secs_f64())).collect();
        facts.push(fact("time", phases.join(", ")));
        facts
    }
}

fn latency_text(metrics: &Metrics) -> String {
    match (metrics.latency_ms(0.5), metrics.latency_ms(0.99)) {
        (Some(p50), Some(p99)) => {
            format!("p50 {p50:.1} ms, p99 {p99:.1} ms ({} changes)", thousands(metrics.measured()))
        }
        _ => "nothing measured".to_owned(),
    }
}

/// Rounds to a thousandth.
fn round(value: Option<f64>) -> Option<f64> {
    value.map(|v| (v * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_documented_fields() {
        let metrics = Metrics::parse(
            "tandem_apply_latency_seconds_bucket{le=\"0.1\"} 2\ntandem_capture_rows_total 7\n",
        );
        let report = Report {
            comparison: Comparison::default(),
            metrics,
            steady: Metrics::default(),
            traffic: Counts::default(),
            corruptions: vec![],
            mismatches: Mismatches { found: 2, resolved: 2, ..Mismatches::default() },
            kill: None,
            killed: vec![],
            phases: vec![],
            seen: Seen::default(),
            reads_by_cassandra: BTreeMap::from([("canary".to_owned(), 3)]),
            verdict: Verdict(json!({ "lost_writes": 0, "stale_reads": 0, "impossible": 0 })),
            seconds: vec![("backfill", Duration::from_millis(1500))],
            folder: PathBuf::new(),
        };
        let json = report.to_json();
        assert_eq!(json["equal"], true);
        assert_eq!(json["latency_ms"]["p50"], 50.0);
        assert_eq!(json["latency_ms"]["steady"]["p50"], Json::Null);
        assert_eq!(json["mismatches"]["repaired"], 2);
        assert_eq!(json["killed"], false);
        assert_eq!(json["events"]["captured"], 7);
        assert_eq!(json["seconds"]["backfill"], 1.5);
        assert_eq!((&json["lost_writes"], &json["stale_reads"]), (&json!(0), &json!(0)));
        assert_eq!((&json["reads_by_cassandra"]["canary"], &json["phases"]), (&json!(3), &json!([])));
        assert!(report.verdict.clean() && !Verdict(json!({ "lost_writes": 1 })).clean());
    }
}
