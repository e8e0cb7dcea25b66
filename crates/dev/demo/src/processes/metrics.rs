//! The metrics of the running process, parsed from Prometheus' text format and summed over restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

const DEADLINE: Duration = Duration::from_secs(3);
const LATENCY: &str = "tandem_apply_latency_seconds";

/// One sample of `/metrics`, or the sum of several.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metrics {
    /// Sums over all labels, by name.
    counters: BTreeMap<String, f64>,
    /// Cumulative counts by upper bound in seconds, ascending.
    latency: Vec<(f64, f64)>,
}

impl Metrics {
    /// Reads the text that `/metrics` serves.
    pub(crate) fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let name_end = line.find(['{', ' ']).unwrap_or(line.len());
            let (name, rest) = line.split_at(name_end);
            let (labels, value) = match rest.strip_prefix('{') {
                Some(inner) => inner.rsplit_once('}').unwrap_or(("", inner)),
                None => ("", rest),
            };
            let value = value.split_whitespace().next().and_then(|v| v.parse::<f64>().ok());
            let Some(value) = value else { continue };
            if name.strip_suffix("_bucket") == Some(LATENCY) {
                let bound = labels.split(',').find_map(|l| l.trim().strip_prefix("le=\"")?.strip_suffix('"'));
                let bound = bound.map(|b| b.parse().unwrap_or(f64::INFINITY));
                metrics.add_bucket(bound.unwrap_or(f64::INFINITY), value);
            } else {
                *metrics.counters.entry(name.to_owned()).or_default() += value;
            }
        }
        metrics
    }

    fn add_bucket(&mut self, bound: f64, count: f64) {
        match self.latency.iter_mut().find(|(b, _)| b.total_cmp(&bound).is_eq()) {
            Some((_, sum)) => *sum += count,
            None => self.latency.push((bound, count)),
        }
        self.latency.sort_by(|a, b| a.0.total_cmp(&b.0));
    }

    /// The sum of a counter over its labels.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).map_or(0, |v| *v as u64)
    }

    /// Adds the counts of another process.
    pub(crate) fn plus(mut self, other: &Self) -> Self {
        for (name, value) in &other.counters {
            *self.counters.entry(name.clone()).or_default() += value;
        }
        for (bound, count) in &other.latency {
            self.add_bucket(*bound, *count);
        }
        self
    }

    /// The counts since `earlier`, a sample of the same process.
    pub(crate) fn since(mut self, earlier: &Self) -> Self {
        for (name, value) in &earlier.counters {
            *self.counters.entry(name.clone()).or_default() -= value;
        }
        for (bound, count) in &earlier.latency {
            self.add_bucket(*bound, -count);
        }
        self
    }

    /// How many latencies were measured.
    pub(crate) fn measured(&self) -> u64 {
        self.latency.last().map_or(0, |(_, n)| n.max(0.0) as u64)
    }

    /// The latency in milliseconds below which this share (0 to 1) of the measurements lies, interpolated
    /// within its bucket. The highest finite bound if it lies above that. `None` without measurements.
    pub(crate) fn latency_ms(&self, share: f64) -> Option<f64> {
        let total = self.latency.last().map(|(_, n)| *n).filter(|n| *n > 0.0)?;
        let wanted = total * share;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.latency {
            if *count >= wanted {
                let within = if *count > below { (wanted - below) / (count - below) } else { 1.0 };
                let upper = if bound.is_finite() { *bound } else { lower };
                return Some((lower + (upper - lower) * within) * 1000.0);
            }
            (lower, below) = (*bound, *count);
        }
        None
    }
}

/// GETs a path of the process; `Ok(None)` if the status is not 200.
pub(crate) async fn get(port: u16, path: &str) -> Result<Option<String>> {
    let url = format!("http://127.0.0.1:{port}{path}");
    let request = move || -> Result<Option<String>> {
        let config = ureq::Agent::config_builder().timeout_global(Some(DEADLINE)).http_status_as_error(false);
        let mut answer = ureq::Agent::from(config.build()).get(&url).call().with_context(|| url.clone())?;
        let body = answer.body_mut().read_to_string().with_context(|| url.clone())?;
        Ok((answer.status() == 200).then_some(body))
    };
    tokio::task::spawn_blocking(request).await.context("ask over HTTP")?
}

/// Takes one sample of `/metrics`.
pub(crate) async fn scrape(port: u16) -> Result<Metrics> {
    let text = get(port, "/metrics").await?.context("/metrics answered with an error")?;
    Ok(Metrics::parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP x y\n# TYPE tandem_apply_latency_seconds histogram\n\
        tandem_apply_latency_seconds_bucket{le=\"0.01\",table=\"a\"} 40\n\
        tandem_apply_latency_seconds_bucket{table=\"a\",le=\"0.1\"} 98\n\
        tandem_apply_latency_seconds_bucket{le=\"+Inf\",table=\"a\"} 100\n\
        tandem_apply_latency_seconds_bucket{le=\"0.01\",table=\"b\"} 10\n\
        tandem_apply_latency_seconds_bucket{le=\"0.1\",table=\"b\"} 100\n\
        tandem_apply_latency_seconds_bucket{le=\"+Inf\",table=\"b\"} 100\n\
        tandem_apply_latency_seconds_sum{table=\"a\"} 4.2\n\
        tandem_verify_mismatches_total{kind=\"missing\"} 1\ntandem_verify_mismatches_total{kind=\"a}b\"} 2\n\
        tandem_reconcile_repairs_total 3\n# EOF\n";

    #[test]
    fn counters_add_up_over_labels() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.counter("tandem_verify_mismatches_total"), 3);
        assert_eq!(metrics.counter("tandem_reconcile_repairs_total"), 3);
        assert_eq!(metrics.counter("tandem_nothing_total"), 0);
        assert_eq!(metrics.measured(), 200);
    }

    #[test]
    fn percentiles_are_interpolated() {
        let metrics = Metrics::parse(TEXT); // 50 below 10 ms, 198 below 100 ms, 200 in all
        assert!((metrics.latency_ms(0.25).unwrap() - 10.0).abs() < 1e-9);
        assert!((metrics.latency_ms(0.125).unwrap() - 5.0).abs() < 1e-9);
        assert!((metrics.latency_ms(0.62).unwrap() - 55.0).abs() < 1e-6);
        assert!((metrics.latency_ms(1.0).unwrap() - 100.0).abs() < 1e-9); // above the last bound
        assert_eq!(Metrics::default().latency_ms(0.5), None);
    }

    #[test]
    fn processes_add_up_and_subtract() {
        let one = Metrics::parse(TEXT);
        let two = one.clone().plus(&one);
        assert_eq!(two.measured(), 400);
        assert_eq!(two.counter("tandem_reconcile_repairs_total"), 6);
        assert_eq!(two.since(&one), one);
    }
}
