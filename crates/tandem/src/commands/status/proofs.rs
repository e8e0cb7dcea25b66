//! What is proven: that Cassandra has caught up, that it holds the copy, and that both stores were seen to agree.

use tandem_wire::control::FullScan;

use super::report::{Backfill, Mapping, Status};
use super::statements::{Statement, Verified, utc};

/// How many tables a reason names.
const NAMED: usize = 5;

/// The age in seconds above which capture counts as not running. It publishes a watermark at least once a second.
const FRESH: f64 = 10.0;

impl Verified {
    /// `discarded_us` is when a dead letter was last discarded, and `uncovered` are the tables that were copied later than
    /// they were verified, or are not live.
    pub(super) fn of(
        scan: Option<&FullScan>,
        discarded_us: Option<i64>,
        uncovered: &[&str],
        status: &Status,
    ) -> Self {
        let mut why_not = Vec::new();
        let Some(scan) = scan else {
            why_not.push("no full verification has ended (`tandem verify --full`)".to_owned());
            return Self { statement: Statement::unless(why_not), as_of: None, rows: 0 };
        };
        if scan.mismatches > 0 || scan.undecided > 0 {
            why_not.push(format!(
                "the newest full verification found {} mismatches and {} rows that it could not decide",
                scan.mismatches, scan.undecided
            ));
        }
        if discarded_us.is_some_and(|at| at > scan.started_at_us) {
            why_not.push("a dead letter was discarded after the newest full verification began".to_owned());
        }
        if !uncovered.is_empty() {
            why_not.push(format!("not verified since the last copy: {}", named(uncovered)));
        }
        if status.mismatches.open > 0 {
            why_not.push(format!("{} mismatches are open", status.mismatches.open));
        }
        Self { statement: Statement::unless(why_not), as_of: Some(utc(scan.started_at_us)), rows: scan.rows }
    }
}

impl Status {
    /// Whether every change up to a few seconds ago is in Cassandra.
    pub(super) fn caught_up(&self) -> Statement {
        let mut why_not = Vec::new();
        match &self.source {
            None => why_not.push("capture has not begun".to_owned()),
            Some(source) if source.watermark_age_seconds > FRESH => {
                let age = source.watermark_age_seconds;
                why_not.push(format!("capture's newest watermark is {age:.0} s old: is it running?"));
            }
            Some(_) => {}
        }
        why_not.extend(self.other_mapping());
        match self.lag.seconds {
            Some(seconds) if seconds > FRESH => why_not.push(format!("apply is {seconds:.0} s behind")),
            None if self.source.is_some() => why_not.push(format!(
                "apply is {} records behind; their age could not be read from Kafka in time",
                self.lag.records
            )),
            _ => {}
        }
        why_not.extend(self.not_live());
        if self.dead_letters > 0 {
            why_not.push(format!("{} dead letters are open", self.dead_letters));
        }
        Statement::unless(why_not)
    }

    /// Whether every copied row is in Cassandra.
    pub(super) fn copied(&self) -> Statement {
        let mut why_not: Vec<String> = self.other_mapping().into_iter().collect();
        let of = |wanted: fn(&Backfill) -> bool| -> Vec<&str> {
            self.tables.iter().filter(|t| wanted(&t.backfill)).map(|t| t.name.as_str()).collect()
        };
        let unpublished = of(|backfill| !backfill.done);
        if !unpublished.is_empty() {
            why_not.push(format!("the backfill of {} is not complete", named(&unpublished)));
        }
        let unapplied = of(|backfill| backfill.done && !backfill.applied);
        if !unapplied.is_empty() {
            why_not.push(format!("the copied rows of {} are not all applied", named(&unapplied)));
        }
        Statement::unless(why_not)
    }

    fn other_mapping(&self) -> Option<String> {
        let Some(Mapping { in_use: false, generation, applies }) = &self.mapping else { return None };
        let waits_for = if applies.is_empty() {
            "no apply has started with it".to_owned()
        } else {
            let hosts = applies.join(", ");
            format!("it comes into use when the apply processes with the former one have ended: {hosts}")
        };
        Some(format!(
            "the mapping of this tandem.toml is not in use (that of generation {generation} is): {waits_for}"
        ))
    }

    fn not_live(&self) -> Option<String> {
        let not_live: Vec<&str> =
            self.tables.iter().filter(|t| t.not_live.is_some()).map(|t| t.name.as_str()).collect();
        (!not_live.is_empty()).then(|| format!("not live: {}", named(&not_live)))
    }
}

/// The first of these tables, and how many more there are.
fn named(tables: &[&str]) -> String {
    let more = tables.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and of {more} more tables") } else { String::new() };
    format!("{}{more}", tables.iter().take(NAMED).copied().collect::<Vec<_>>().join(", "))
}
