//! A parser for metrics pages in Prometheus' text format and OpenMetrics, limited to counters and gauges.

use std::collections::BTreeMap;
use std::str::FromStr;

/// One sample of a metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// The metric's name. A counter's includes `_total`.
    pub(crate) name: String,
    /// The labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// The value.
    pub(crate) value: f64,
}

/// Parses the samples of a page.
pub(crate) fn parse(page: &str) -> Result<Vec<Sample>, String> {
    let lines = page.lines().enumerate();
    let lines = lines.map(|(number, line)| (number, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            sample(line).ok_or_else(|| format!("line {} is not a sample of a metric", number + 1))
        })
        .collect()
}

fn sample(line: &str) -> Option<Sample> {
    let name_end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (BTreeMap::new(), rest),
    };
    // A timestamp or an exemplar may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then(|| Sample { name: name.to_owned(), labels, value })
}

/// Parses `a="x",b="y"}`, and returns the labels and the rest of the line.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim().to_owned(), value);
        rest = &after[end + 1..];
    }
}

/// Selects samples: `name` or `name{label="a|b",other="c"}`. For each label one of the listed values must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    name: String,
    labels: Vec<(String, Vec<String>)>,
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a metric: write NAME or NAME{{label=\"a|b\"}}");
        let (name, rest) = text.split_at(text.find('{').unwrap_or(text.len()));
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if name.is_empty() || !name.chars().all(legal) {
            return Err(wrong());
        }
        let labels = match rest.strip_prefix('{') {
            None => BTreeMap::new(),
            Some(inside) => match labels(inside) {
                Some((labels, "")) => labels,
                _ => return Err(wrong()),
            },
        };
        let alternatives = |(name, values): (String, String)| {
            (name, values.split('|').map(str::to_owned).collect::<Vec<_>>())
        };
        Ok(Self { name: name.to_owned(), labels: labels.into_iter().map(alternatives).collect() })
    }
}

impl Selector {
    fn takes(&self, sample: &Sample) -> bool {
        let has = |(name, values): &(String, Vec<String>)| {
            sample.labels.get(name).is_some_and(|value| values.contains(value))
        };
        sample.name == self.name && self.labels.iter().all(has)
    }

    /// The sum of the selected samples. `None` if no sample matches.
    pub(crate) fn sum(&self, samples: &[Sample]) -> Option<f64> {
        let mut chosen = samples.iter().filter(|sample| self.takes(sample)).map(|sample| sample.value);
        let first = chosen.next()?;
        Some(chosen.fold(first, |sum, value| sum + value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: &str = "# HELP tandem_gateway_reads Reads.\n# TYPE tandem_gateway_reads counter\n\
        tandem_gateway_reads_total{entity=\"a\",served_by=\"mysql\"} 3\n\
        tandem_gateway_reads_total{entity=\"b, \\\"}\\n\",served_by=\"cassandra\"} 4 1700000000\n\
        tandem_gateway_reads_total{ entity=\"c\", served_by=\"cassandra\" } 5e0 # {x=\"y\"} 1\n\
        tandem_gateway_generation 7\n# EOF\n";

    fn sum(selector: &str) -> Option<f64> {
        selector.parse::<Selector>().unwrap().sum(&parse(PAGE).unwrap())
    }

    #[test]
    fn samples_are_selected_and_summed() {
        assert_eq!(sum("tandem_gateway_reads_total"), Some(12.0));
        assert_eq!(sum("tandem_gateway_reads_total{served_by=\"cassandra\"}"), Some(9.0));
        assert_eq!(sum("tandem_gateway_reads_total{entity=\"a|c\"}"), Some(8.0));
        assert_eq!(sum("tandem_gateway_reads_total{nobody=\"a\"}"), None);
        assert_eq!(sum("tandem_gateway_generation"), Some(7.0));
        assert_eq!(parse(PAGE).unwrap()[1].labels["entity"], "b, \"}\n");
    }

    #[test]
    fn malformed_pages_are_rejected_with_the_line() {
        for bad in ["<html>", "# fine\nname", "name{a=\"b} 1", "name{a=\"b\"}", "name x"] {
            assert!(parse(bad).unwrap_err().contains("line"), "{bad}");
        }
        for bad in ["", "a b", "{}", "a{b}", "a{b=\"c\"", "a{b=\"c\"} "] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(page in ".{0,200}") {
            let _ = parse(&page);
            let _ = page.parse::<Selector>();
        }
    }
}
