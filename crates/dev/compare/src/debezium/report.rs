//! The result of the comparison.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value as Json, json};

use super::capture::Captured;
use super::rules::{self, Rule, Verdict};

/// Differences that are kept and shown. All are counted.
const SHOWN: usize = 40;

/// What was compared and what was found.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// By table: events of Debezium, events of Tandem.
    tables: Vec<(String, usize, usize)>,
    events: u64,
    fields: u64,
    rules: BTreeMap<Rule, u64>,
    differing: u64,
    differences: Vec<Json>,
}

impl Report {
    pub(super) fn of(captured: &Captured) -> Self {
        let mut report = Self::default();
        for table in &captured.tables {
            let (theirs, ours) = (&table.theirs, &table.ours);
            report.tables.push((table.name.clone(), theirs.len(), ours.len()));
            if !table.has_key {
                *report.rules.entry(rules::KEYLESS).or_default() += theirs.len() as u64;
                continue;
            }
            if theirs.len() != ours.len() {
                report.differ(json!({"table": table.name, "debezium_events": theirs.len(),
                                     "tandem_events": ours.len()}));
            }
            for (number, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                report.events += 1;
                for (place, them, us, verdict) in rules::compare(theirs, ours, &captured.ends) {
                    report.fields += 1;
                    match verdict {
                        Verdict::Same => {}
                        Verdict::Meant(rule) => *report.rules.entry(rule).or_default() += 1,
                        Verdict::Differs => report.differ(json!({
                            "table": table.name, "event": number, "key": ours.key, "field": place,
                            "debezium": them, "tandem": us,
                        })),
                    }
                }
            }
        }
        report
    }

    fn differ(&mut self, difference: Json) {
        self.differing += 1;
        if self.differences.len() < SHOWN {
            self.differences.push(difference);
        }
    }

    /// Whether anything was compared, and every difference is intended.
    pub(super) fn holds(&self) -> bool {
        self.events > 0 && self.differing == 0
    }

    pub(super) fn to_json(&self) -> Json {
        let rules: Vec<Json> = self
            .rules
            .iter()
            .map(|((name, reason), applied)| json!({"rule": name, "reason": reason, "applied": applied}))
            .collect();
        let tables: Vec<Json> = self
            .tables
            .iter()
            .map(|(name, theirs, ours)| json!({"table": name, "debezium": theirs, "tandem": ours}))
            .collect();
        json!({
            "holds": self.holds(), "events": self.events, "fields": self.fields, "tables": tables,
            "rules": rules, "differing": self.differing, "differences": self.differences,
        })
    }

    pub(super) fn print(&self) {
        for difference in &self.differences {
            println!("differs: {difference}");
        }
        if self.differing > self.differences.len() as u64 {
            println!("… and {} more", self.differing - self.differences.len() as u64);
        }
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["meant to differ", "times", "because"]);
        for ((name, reason), applied) in &self.rules {
            table.add_row([(*name).to_owned(), applied.to_string(), (*reason).to_owned()]);
        }
        println!("{table}");
        println!(
            "{} events of {} tables, {} fields: {}",
            self.events,
            self.tables.len(),
            self.fields,
            match (self.differing, self.events) {
                (0, 0) => "nothing to compare".to_owned(),
                (0, _) => "nothing else differs".to_owned(),
                (n, _) => format!("{n} differences"),
            }
        );
    }
}
