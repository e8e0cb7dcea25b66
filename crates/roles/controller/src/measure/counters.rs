//! The metrics that the controller reads from metrics pages.

use std::collections::BTreeMap;

use crate::measure::exposition::{Selector, parse};

/// A counter on a metrics page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counter {
    /// Writes answered with success.
    DualWrites,
    /// Successful writes that Cassandra did not accept in time.
    DualWriteFailures,
    /// Reads that Cassandra served.
    CassandraReads,
    /// Reads that MySQL served because Cassandra failed. Reads whose rows differed do not count here: their
    /// confirmed mismatches are in the log.
    Fallbacks,
    /// Reads that phase and cohort give to Cassandra, and that were answered.
    RoutedReads,
    /// Those of them that Cassandra answered.
    RoutedToCassandra,
    /// Row changes that no gateway made (out-of-band writes). Capture counts them.
    OutOfBandRows,
}

const GENERATION: &str = "generation";

/// Each counter with its name in the configuration and its default metric.
const COUNTERS: [(Counter, &str, &str); 7] = [
    (
        Counter::DualWrites,
        "dual_writes",
        "tandem_gateway_requests_total{operation=\"insert|put|patch|delete|batch\",status=\"200|201|204\"}",
    ),
    (Counter::DualWriteFailures, "dual_write_failures", "tandem_gateway_dual_write_failures_total"),
    (Counter::CassandraReads, "cassandra_reads", "tandem_gateway_reads_total{served_by=\"cassandra\"}"),
    (Counter::Fallbacks, "fallbacks", "tandem_gateway_fallbacks_total{reason=\"down|late|failed\"}"),
    (Counter::RoutedReads, "routed_reads", "tandem_gateway_routed_reads_total"),
    (
        Counter::RoutedToCassandra,
        "routed_reads_by_cassandra",
        "tandem_gateway_routed_reads_total{outcome=\"cassandra\"}",
    ),
    (Counter::OutOfBandRows, "out_of_band_rows", "tandem_capture_out_of_band_rows_total"),
];

/// The metric of each counter.
#[derive(Debug, Clone)]
pub struct MetricNames {
    generation: Selector,
    counters: BTreeMap<Counter, Selector>,
}

/// The values of a page.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Page {
    /// The generation that the gateway acts on. `None` if the page is not a gateway's.
    pub(crate) generation: Option<u64>,
    counters: BTreeMap<Counter, f64>,
}

impl Page {
    /// The value of a counter. A counter that is not on the page is 0, because nothing was counted yet.
    pub(crate) fn count(&self, counter: Counter) -> f64 {
        self.counters.get(&counter).copied().unwrap_or(0.0)
    }

    /// Whether the page has the counter.
    pub(crate) fn has(&self, counter: Counter) -> bool {
        self.counters.contains_key(&counter)
    }
}

impl Default for MetricNames {
    fn default() -> Self {
        Self::new(&BTreeMap::new()).expect("the default selectors are valid; a test reads pages by them")
    }
}

impl MetricNames {
    /// The gateway's own metric names, overridden by the configured ones.
    ///
    /// # Errors
    ///
    /// Fails if a configured name is unknown or its metric is not a valid selector.
    pub fn new(configured: &BTreeMap<String, String>) -> Result<Self, String> {
        let names = || COUNTERS.iter().map(|(_, name, _)| *name).chain([GENERATION]);
        if let Some(unknown) = configured.keys().find(|key| !names().any(|name| name == **key)) {
            let known: Vec<&str> = names().collect();
            return Err(format!("`{unknown}` is not one of {}", known.join(", ")));
        }
        let selector = |name: &str, default: &str| {
            configured.get(name).map_or(default, String::as_str).parse::<Selector>()
        };
        let counters: Result<BTreeMap<Counter, Selector>, String> = COUNTERS
            .iter()
            .map(|(counter, name, default)| Ok((*counter, selector(name, default)?)))
            .collect();
        Ok(Self { generation: selector(GENERATION, "tandem_gateway_generation")?, counters: counters? })
    }

    /// Reads the counters of a page.
    pub(crate) fn read(&self, page: &str) -> Result<Page, String> {
        let samples = parse(page)?;
        let counted = |(counter, selector): (&Counter, &Selector)| Some((*counter, selector.sum(&samples)?));
        Ok(Page {
            generation: self.generation.sum(&samples).map(|generation| generation as u64),
            counters: self.counters.iter().filter_map(counted).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_can_be_configured() {
        let other = BTreeMap::from([("fallbacks".to_owned(), "other_total{why=\"x\"}".to_owned())]);
        let page = MetricNames::new(&other)
            .unwrap()
            .read("other_total{why=\"x\"} 2\nother_total{why=\"y\"} 3\ntandem_capture_out_of_band_rows_total{table=\"a.b\"} 1\n")
            .unwrap();
        assert!((page.count(Counter::Fallbacks) - 2.0).abs() < 1e-9);
        assert!(page.has(Counter::OutOfBandRows) && !page.has(Counter::DualWrites));
        assert_eq!(page.generation, None);
    }

    #[test]
    fn unknown_names_are_rejected_with_the_valid_ones() {
        let wrong = BTreeMap::from([("fallback".to_owned(), "x".to_owned())]);
        let error = MetricNames::new(&wrong).unwrap_err();
        assert!(error.contains("`fallback`") && error.contains("out_of_band_rows"), "{error}");
        let bad = BTreeMap::from([("fallbacks".to_owned(), "x{".to_owned())]);
        assert!(MetricNames::new(&bad).is_err());
    }
}
