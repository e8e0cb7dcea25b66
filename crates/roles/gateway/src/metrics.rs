//! The gateway's metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::tally::Tally;

/// Histogram buckets from 0.1 ms to 10 s.
fn buckets() -> impl Iterator<Item = f64> {
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5];
    [0.0001, 0.001, 0.01, 0.1, 1.0]
        .into_iter()
        .flat_map(move |decade| steps.map(|step| decade * step))
        .chain([10.0])
}

fn histogram() -> Histogram {
    Histogram::new(buckets())
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabel {
    pub(crate) entity: String,
    pub(crate) operation: &'static str,
    pub(crate) status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReadLabel {
    pub(crate) entity: String,
    pub(crate) served_by: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RoutedLabel {
    pub(crate) entity: String,
    /// `get` or `list`.
    pub(crate) operation: &'static str,
    /// Whether the request had a token: `yes` or `no`.
    pub(crate) token: &'static str,
    /// `cassandra`, or why MySQL served the read.
    pub(crate) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct WaitLabel {
    pub(crate) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    pub(crate) entity: String,
    pub(crate) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StoreLabel {
    pub(crate) operation: &'static str,
    pub(crate) store: &'static str,
    pub(crate) outcome: &'static str,
}

/// Counters and histograms of one gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) requests: Family<RequestLabel, Counter<u64, AtomicU64>>,
    pub(crate) reads: Family<ReadLabel, Counter<u64, AtomicU64>>,
    pub(crate) routed_reads: Family<RoutedLabel, Counter<u64, AtomicU64>>,
    pub(crate) token_waits: Family<WaitLabel, Histogram, fn() -> Histogram>,
    pub(crate) fallbacks: Family<ReasonLabel, Counter<u64, AtomicU64>>,
    pub(crate) validated: Family<ReasonLabel, Counter<u64, AtomicU64>>,
    pub(crate) shadowed: Family<ReasonLabel, Counter<u64, AtomicU64>>,
    pub(crate) dual_write_failures: Family<ReasonLabel, Counter<u64, AtomicU64>>,
    pub(crate) failures_lost: Counter<u64, AtomicU64>,
    pub(crate) store_requests: Family<StoreLabel, Histogram, fn() -> Histogram>,
    pub(crate) in_flight: Gauge<i64, AtomicI64>,
    pub(crate) generation: Gauge<i64, AtomicI64>,
    pub(crate) tally: Tally,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            reads: Family::default(),
            routed_reads: Family::default(),
            token_waits: Family::new_with_constructor(histogram),
            fallbacks: Family::default(),
            validated: Family::default(),
            shadowed: Family::default(),
            dual_write_failures: Family::default(),
            failures_lost: Counter::default(),
            store_requests: Family::new_with_constructor(histogram),
            in_flight: Gauge::default(),
            generation: Gauge::default(),
            tally: Tally::default(),
        }
    }
}

impl Metrics {
    /// Registers every metric under `tandem_gateway_…`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tandem_gateway");
        registry.register("requests", "Requests answered, by status", self.requests.clone());
        registry.register("reads", "Reads, by the store that served them", self.reads.clone());
        registry.register(
            "routed_reads",
            "Reads that phase and cohort give to Cassandra, by outcome: cassandra, or why MySQL served the read",
            self.routed_reads.clone(),
        );
        registry.register(
            "token_wait_seconds",
            "How long reads with a token waited until it was applied, by outcome: applied or not-applied",
            self.token_waits.clone(),
        );
        registry.register(
            "fallbacks",
            "Reads that MySQL served instead of Cassandra, by reason",
            self.fallbacks.clone(),
        );
        registry.register(
            "validated",
            "Reads from Cassandra compared with MySQL, by outcome; a difference counts once it is confirmed",
            self.validated.clone(),
        );
        registry.register(
            "shadowed",
            "Reads from MySQL compared with Cassandra, by outcome; a difference counts once it is confirmed",
            self.shadowed.clone(),
        );
        registry.register(
            "dual_write_failures",
            "Writes that MySQL committed and Cassandra did not accept in time, by reason",
            self.dual_write_failures.clone(),
        );
        registry.register(
            "dual_write_failures_unrecorded",
            "Failed dual writes that could not be recorded in Kafka",
            self.failures_lost.clone(),
        );
        registry.register(
            "store_request_duration_seconds",
            "How long each store took, by operation and outcome",
            self.store_requests.clone(),
        );
        registry.register("in_flight", "Requests in flight", self.in_flight.clone());
        registry.register("generation", "The generation of the phase in effect", self.generation.clone());
    }

    /// The generation of the phase that the gateway acts on.
    pub fn generation(&self) -> i64 {
        self.generation.get()
    }

    /// What the gateway has counted since its process started, by the names of [`tandem_wire::control::counter`].
    pub fn counters(&self) -> BTreeMap<String, i64> {
        self.tally.counts()
    }

    pub(crate) fn store_request(
        &self,
        operation: &'static str,
        store: &'static str,
        outcome: &'static str,
        took: Duration,
    ) {
        self.store_requests
            .get_or_create(&StoreLabel { operation, store, outcome })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn routed(&self, label: &RoutedLabel) {
        self.routed_reads.get_or_create(label).inc();
        self.tally.routed(label.outcome == "cassandra");
    }

    pub(crate) fn token_wait(&self, applied: bool, waited: Duration) {
        let outcome = if applied { "applied" } else { "not-applied" };
        self.token_waits.get_or_create(&WaitLabel { outcome }).observe(waited.as_secs_f64());
    }

    pub(crate) fn count(
        family: &Family<ReasonLabel, Counter<u64, AtomicU64>>,
        entity: &str,
        reason: &'static str,
    ) {
        Self::add(family, entity, reason, 1);
    }

    pub(crate) fn add(
        family: &Family<ReasonLabel, Counter<u64, AtomicU64>>,
        entity: &str,
        reason: &'static str,
        count: u64,
    ) {
        family.get_or_create(&ReasonLabel { entity: entity.to_owned(), reason }).inc_by(count);
    }
}
