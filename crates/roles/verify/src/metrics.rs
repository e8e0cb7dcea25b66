//! The metrics of verification and repair.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tandem_dead_letters::OpenLetter;
use tandem_row_check::CheckMetrics;
use tandem_runtime::Waits;

/// Dead letters by table and reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LetterLabel {
    table: String,
    reason: String,
}

/// What became of a retry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabel {
    outcome: &'static str,
}

/// The metrics of verification and repair in one process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Where verification and repair show that they wait for MySQL, Kafka or Cassandra.
    pub waits: Waits,
    /// The metrics of the row checks.
    pub checks: CheckMetrics,
    pub(crate) skipped: Counter<u64, AtomicU64>,
    pub(crate) pending: Gauge<i64, AtomicI64>,
    pub(crate) repairs: Counter<u64, AtomicU64>,
    pub(crate) resolved: Counter<u64, AtomicU64>,
    pub(crate) unrepairable: Counter<u64, AtomicU64>,
    open_letters: Family<LetterLabel, Gauge<i64, AtomicI64>>,
    /// The labels that were shown before. Their gauges go back to 0.
    shown_letters: Arc<Mutex<HashSet<LetterLabel>>>,
    letter_retries: Family<RetryLabel, Counter<u64, AtomicU64>>,
}

impl Metrics {
    /// Shows the open dead letters.
    pub(crate) fn show_open(&self, open: &[Arc<OpenLetter>]) {
        let mut counts: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for letter in open {
            *counts.entry((&letter.table, &letter.reason)).or_default() += 1;
        }
        let mut shown = self.shown_letters.lock().unwrap_or_else(PoisonError::into_inner);
        for label in shown.iter() {
            if !counts.contains_key(&(label.table.as_str(), label.reason.as_str())) {
                self.open_letters.get_or_create(label).set(0);
            }
        }
        for ((table, reason), count) in counts {
            let label = LetterLabel { table: table.to_owned(), reason: reason.to_owned() };
            self.open_letters.get_or_create(&label).set(count);
            shown.insert(label);
        }
    }

    pub(crate) fn count_retry(&self, outcome: &'static str) {
        self.letter_retries.get_or_create(&RetryLabel { outcome }).inc();
    }

    /// Registers every metric under `tandem_verify_…`, `tandem_reconcile_…` and `tandem_dead_letters…`.
    pub fn register(&self, registry: &mut Registry) {
        self.checks.register(registry);
        let verify = registry.sub_registry_with_prefix("tandem_verify");
        verify.register(
            "skipped",
            "Changed keys left out because too many were waiting: run a full verification",
            self.skipped.clone(),
        );
        verify.register("pending", "Changed keys waiting to be checked", self.pending.clone());
        let reconcile = registry.sub_registry_with_prefix("tandem_reconcile");
        reconcile.register("repairs", "Rows rewritten from MySQL", self.repairs.clone());
        reconcile.register("resolved", "Mismatches resolved", self.resolved.clone());
        reconcile.register("unrepairable", "Mismatches that repairs did not fix", self.unrepairable.clone());
        let letters = registry.sub_registry_with_prefix("tandem_dead_letters");
        letters.register(
            "open",
            "Changes that are put aside, by table and reason",
            self.open_letters.clone(),
        );
        letters.register("retries", "Retries of dead letters, by outcome", self.letter_retries.clone());
    }
}
