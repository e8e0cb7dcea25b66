//! The increases of the gateways' counters since the migration entered its current stage.
//!
//! The window restarts when a round could not be read, when a gateway restarts, or when another controller becomes
//! active. That is acceptable for rates. Counts that must survive it come from the log (`log_state`).

use std::collections::{BTreeMap, VecDeque};

use crate::measure::counters::Page;
use tandem_protocol::rollout::Measurements;
use tandem_wire::control::counter;

/// Why the rate has no samples, and the remedy.
const NO_WRITE: (&str, &str) = (
    "no dual write was made",
    "if none will come, use the gate `dual_write_failures <= 0.01 * dual_writes`, which is met without writes",
);
const NO_GATEWAY: &str = "no gateway has announced itself";
const NO_READ: (&str, &str) = ("no read was Cassandra's to serve", "read through a gateway");

/// What every role has counted, at about the same time.
#[derive(Debug, Clone)]
struct Round {
    at_us: i64,
    pages: BTreeMap<String, Page>,
}

/// The last rounds. A round counts only if every gateway acted on the generation with which the current stage began,
/// so that all counts belong to that stage.
#[derive(Debug)]
pub(crate) struct Window {
    length_us: i64,
    generation: u64,
    rounds: VecDeque<Round>,
}

impl Window {
    /// Creates a window of at most `length_us` microseconds.
    pub(crate) fn new(length_us: i64) -> Self {
        Self { length_us, generation: 0, rounds: VecDeque::new() }
    }

    /// Starts the window of another stage, and drops earlier counts.
    pub(crate) fn begin(&mut self, generation: u64) {
        self.generation = generation;
        self.rounds.clear();
    }

    /// Adds what each role has counted, by its name, and sets the measurements that follow. `current` is the current
    /// generation.
    pub(crate) fn measure(
        &mut self,
        at_us: i64,
        current: u64,
        read: BTreeMap<String, Result<Page, String>>,
        into: &mut Measurements,
    ) {
        if read.is_empty() {
            return set_all(into, NO_GATEWAY);
        }
        let mut pages = BTreeMap::new();
        for (name, page) in read {
            match page {
                Ok(page) => {
                    pages.insert(name, page);
                }
                Err(why) => return set_all(into, &format!("{name}: {why}")),
            }
        }
        let gateways: Vec<u64> = pages.values().filter_map(|page| page.generation).collect();
        if gateways.is_empty() {
            return set_all(into, NO_GATEWAY);
        }
        let behind = |generation: u64| gateways.iter().filter(|seen| **seen < generation).count();
        into.set("gateways_behind", Ok(behind(current) as f64));
        if behind(self.generation) > 0 {
            self.rounds.clear();
            return set_increases(into, "not every gateway has reached this stage");
        }
        self.rounds.push_back(Round { at_us, pages });
        while self.rounds.len() > 2 && self.rounds[1].at_us <= at_us - self.length_us {
            self.rounds.pop_front();
        }
        if self.rounds.len() < 2 {
            return set_increases(into, "the counters were read only once since this stage began");
        }
        let grown = |counter| self.increase(counter);
        let (writes, failures) = (grown(counter::DUAL_WRITES), grown(counter::DUAL_WRITE_FAILURES));
        let (served, fallbacks) = (grown(counter::CASSANDRA_READS), grown(counter::FALLBACKS));
        into.set("dual_writes", Ok(writes));
        into.set("dual_write_failures", Ok(failures));
        into.set("dual_write_failure_rate", share(failures, writes).ok_or_else(|| self.nothing(NO_WRITE)));
        into.set("canary_reads", Ok(served + fallbacks));
        into.set("fallbacks", Ok(fallbacks));
        into.set("fallback_rate", share(fallbacks, served + fallbacks).ok_or_else(|| self.nothing(NO_READ)));
        let (routed, answered) = (grown(counter::ROUTED_READS), grown(counter::ROUTED_READS_BY_CASSANDRA));
        into.set("routed_reads", Ok(routed));
        into.set("cassandra_read_share", share(answered, routed).ok_or_else(|| self.nothing(NO_READ)));
        into.set_flag("window_is_full", Ok(self.is_full(at_us)));
        let counted = self
            .rounds
            .back()
            .is_some_and(|round| round.pages.values().any(|page| page.has(counter::OUT_OF_BAND_ROWS)));
        let nobody = || "no capture has announced itself".to_owned();
        into.set("out_of_band_rows", counted.then(|| grown(counter::OUT_OF_BAND_ROWS)).ok_or_else(nobody));
    }

    /// Whether the rounds cover the window's whole length.
    fn is_full(&self, now_us: i64) -> bool {
        self.rounds.front().is_some_and(|first| first.at_us <= now_us - self.length_us)
    }

    /// The reason why a rate has no value.
    fn nothing(&self, (what, remedy): (&str, &str)) -> String {
        let seconds = self.length_us / 1_000_000;
        format!(
            "{what} since this stage began, or in the last {seconds} s \
             (controller.window_seconds); {remedy}"
        )
    }

    /// The increase of a counter over all roles. A role that has started since the round before counted from 0.
    fn increase(&self, counter: &str) -> f64 {
        let pairs = self.rounds.iter().zip(self.rounds.iter().skip(1));
        let growth = pairs.flat_map(|(before, after)| {
            after.pages.iter().map(move |(name, page)| {
                let now = page.count(counter);
                match before.pages.get(name) {
                    Some(was) if was.started_at_us == page.started_at_us => now - was.count(counter),
                    Some(_) => now,
                    None if page.started_at_us > before.at_us => now,
                    // It was known before and forgotten meanwhile. What it counted then is not known.
                    None => 0.0,
                }
            })
        });
        growth.sum()
    }
}

/// The share of `part` in `whole`. If `whole` is 0, the share is 1 for a positive `part`, and `None` otherwise:
/// without samples a rate has no value.
fn share(part: f64, whole: f64) -> Option<f64> {
    if whole > 0.0 {
        Some((part / whole).min(1.0))
    } else if part > 0.0 {
        Some(1.0)
    } else {
        None
    }
}

fn set_all(into: &mut Measurements, why: &str) {
    into.set("gateways_behind", Err(why.to_owned()));
    set_increases(into, why);
}

fn set_increases(into: &mut Measurements, why: &str) {
    for name in [
        "dual_writes",
        "dual_write_failures",
        "dual_write_failure_rate",
        "canary_reads",
        "fallbacks",
        "fallback_rate",
        "routed_reads",
        "cassandra_read_share",
        "window_is_full",
        "out_of_band_rows",
    ] {
        into.set(name, Err(why.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_protocol::rollout::Gate;
    use tandem_wire::control::Announcement;

    fn page(generation: Option<i64>, started_at_us: i64, counters: &[(&str, i64)]) -> Page {
        let counters = counters.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let (role, name, address, version) = Default::default();
        Page::of(&Announcement {
            role,
            name,
            address,
            version,
            started_at_us,
            generation,
            counters,
            at_us: 0,
        })
    }

    #[allow(clippy::unnecessary_wraps)] // the same type as a silent gateway
    /// A gateway: generation, writes, failures, reads by Cassandra, fallbacks.
    fn gateway(
        generation: i64,
        writes: i64,
        failures: i64,
        reads: i64,
        fallbacks: i64,
    ) -> Result<Page, String> {
        started(1, generation, writes, failures, reads, fallbacks)
    }

    #[allow(clippy::unnecessary_wraps)]
    fn started(
        at_us: i64,
        generation: i64,
        writes: i64,
        failures: i64,
        reads: i64,
        fallbacks: i64,
    ) -> Result<Page, String> {
        Ok(page(
            Some(generation),
            at_us,
            &[
                (counter::DUAL_WRITES, writes),
                (counter::DUAL_WRITE_FAILURES, failures),
                (counter::CASSANDRA_READS, reads),
                (counter::FALLBACKS, fallbacks),
                (counter::ROUTED_READS, 1000),
            ],
        ))
    }

    fn round<const N: usize>(
        window: &mut Window,
        second: i64,
        pages: [(&str, Result<Page, String>); N],
    ) -> Measurements {
        let mut all = Measurements::none("x");
        let read = pages.into_iter().map(|(address, page)| (address.to_owned(), page)).collect();
        window.measure(second * 1_000_000, 5, read, &mut all);
        all
    }

    fn number(all: &Measurements, name: &str) -> f64 {
        all.get(name).unwrap().as_number()
    }

    #[test]
    fn rates_use_increases_over_all_gateways() {
        let mut window = Window::new(60_000_000);
        window.begin(5);
        let first =
            round(&mut window, 0, [("a", gateway(5, 100, 50, 10, 10)), ("b", gateway(5, 0, 0, 0, 0))]);
        assert!(first.get("fallback_rate").unwrap_err().contains("only once"));
        let second =
            round(&mut window, 1, [("a", gateway(5, 110, 51, 12, 11)), ("b", gateway(5, 10, 0, 1, 0))]);
        assert!((number(&second, "dual_write_failure_rate") - 1.0 / 20.0).abs() < 1e-9);
        assert!((number(&second, "fallback_rate") - 1.0 / 4.0).abs() < 1e-9);
        assert!((number(&second, "canary_reads") - 4.0).abs() < 1e-9);
        // `a` was restarted, and has counted more since then than before. `c` is new. `d` was forgotten for a while.
        let [a, c, d] = [1_500_000, 1_900_000, 0].map(|at| started(at, 5, 115, 0, 0, 0));
        let third = round(&mut window, 2, [("a", a), ("b", gateway(5, 10, 0, 1, 0)), ("c", c), ("d", d)]);
        assert!((number(&third, "dual_writes") - (20.0 + 115.0 + 115.0)).abs() < 1e-9);
    }

    #[test]
    fn the_share_counts_every_routed_read() {
        let of = |cassandra: i64, token: i64, down: i64| {
            let all = cassandra + token + down;
            let counts = [
                (counter::ROUTED_READS, all),
                (counter::ROUTED_READS_BY_CASSANDRA, cassandra),
                (counter::CASSANDRA_READS, cassandra),
                (counter::FALLBACKS, down),
            ];
            Ok(page(Some(5), 1, &counts))
        };
        let mut window = Window::new(10_000_000);
        window.begin(5);
        round(&mut window, 0, [("a", of(10, 10, 10))]);
        let quiet = round(&mut window, 1, [("a", of(10, 10, 10))]);
        assert!(quiet.get("cassandra_read_share").unwrap_err().contains("no read was Cassandra's"));
        let second = round(&mut window, 2, [("a", of(14, 15, 11))]);
        assert!((number(&second, "cassandra_read_share") - 0.4).abs() < 1e-9);
        assert!((number(&second, "routed_reads") - 10.0).abs() < 1e-9);
        // A share that few reads of the stage's first seconds have made rolls nothing back.
        let rollback =
            Gate::compile("g", "window_is_full && routed_reads >= 5.0 && cassandra_read_share < 0.5");
        let rollback = rollback.unwrap();
        assert!(!rollback.judge(&second).met);
        assert!(rollback.judge(&round(&mut window, 10, [("a", of(14, 15, 11))])).met);
    }

    #[test]
    fn failures_without_a_write_have_rate_one() {
        for (part, whole, expected) in [(3.0, 0.0, 1.0), (1.0, 4.0, 0.25), (5.0, 4.0, 1.0), (0.0, 4.0, 0.0)] {
            assert!((share(part, whole).unwrap() - expected).abs() < 1e-9, "{part} of {whole}");
        }
    }

    #[test]
    fn a_rate_without_samples_fails_its_gate_and_a_zero_count_meets_it() {
        let gate = |text: &str| Gate::compile("g", text).unwrap();
        let mut window = Window::new(60_000_000);
        window.begin(5);
        round(&mut window, 0, [("a", gateway(5, 9, 0, 9, 0))]);
        let quiet = round(&mut window, 1, [("a", gateway(5, 9, 0, 9, 0))]);
        for (name, text, nothing) in [
            ("dual_write_failure_rate", "dual_write_failure_rate <= 0.01", "no dual write was made since"),
            ("fallback_rate", "fallback_rate <= 0.01", "no read was Cassandra's to serve since"),
        ] {
            let why = quiet.get(name).unwrap_err();
            assert!(why.contains(nothing) && why.contains("the last 60 s"), "{why}");
            assert!(!gate(text).judge(&quiet).met, "{text}");
        }
        // The gate that the remedy names still fails on write failures.
        let named = NO_WRITE.1.split('`').nth(1).unwrap();
        assert!(gate(named).judge(&quiet).met);
        let failed = round(&mut window, 2, [("a", gateway(5, 10, 1, 9, 0))]);
        assert!(!gate(named).judge(&failed).met);
        assert!((number(&failed, "dual_write_failures") - 1.0).abs() < 1e-9);
    }

    #[test]
    fn out_of_band_rows_are_counted_if_captures_page_is_read() {
        let mut window = Window::new(60_000_000);
        window.begin(5);
        let capture = |rows: i64| Ok(page(None, 1, &[(counter::OUT_OF_BAND_ROWS, rows)]));
        round(&mut window, 0, [("a", gateway(5, 0, 0, 0, 0))]);
        let without = round(&mut window, 1, [("a", gateway(5, 0, 0, 0, 0))]);
        assert!(without.get("out_of_band_rows").unwrap_err().contains("capture"));
        window.begin(5);
        round(&mut window, 2, [("a", gateway(5, 0, 0, 0, 0)), ("c", capture(7))]);
        let none = round(&mut window, 3, [("a", gateway(5, 0, 0, 0, 0)), ("c", capture(7))]);
        assert!(number(&none, "out_of_band_rows").abs() < 1e-9);
        let some = round(&mut window, 4, [("a", gateway(5, 0, 0, 0, 0)), ("c", capture(9))]);
        assert!((number(&some, "out_of_band_rows") - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_lagging_or_silent_gateway_leaves_no_measurement() {
        let mut window = Window::new(60_000_000);
        window.begin(5);
        round(&mut window, 0, [("a", gateway(5, 0, 0, 0, 0)), ("b", gateway(5, 0, 0, 0, 0))]);
        let lagging = round(&mut window, 1, [("a", gateway(5, 0, 0, 0, 0)), ("b", gateway(4, 0, 0, 0, 0))]);
        assert!((number(&lagging, "gateways_behind") - 1.0).abs() < 1e-9);
        assert!(lagging.get("canary_reads").is_err());
        let silent = round(&mut window, 2, [("a", gateway(5, 0, 0, 0, 0)), ("b", Err("refused".into()))]);
        assert!(silent.get("gateways_behind").unwrap_err().contains("b: refused"));
        let nobody = round(&mut window, 3, []);
        assert!(nobody.get("gateways_behind").unwrap_err().contains("no gateway has announced itself"));
    }

    #[test]
    fn counts_of_other_stages_or_of_long_ago_do_not_count() {
        let mut window = Window::new(10_000_000);
        window.begin(5);
        round(&mut window, 0, [("a", gateway(5, 0, 0, 0, 0))]);
        let ten = round(&mut window, 5, [("a", gateway(5, 0, 0, 0, 10))]);
        assert!((number(&ten, "fallbacks") - 10.0).abs() < 1e-9);
        round(&mut window, 6, [("a", gateway(5, 0, 0, 0, 10))]);
        let past = round(&mut window, 16, [("a", gateway(5, 0, 0, 0, 10))]);
        assert!(number(&past, "fallbacks").abs() < 1e-9);
        window.begin(5);
        round(&mut window, 17, [("a", gateway(5, 0, 0, 0, 20))]);
        let anew = round(&mut window, 18, [("a", gateway(5, 0, 0, 0, 21))]);
        assert!((number(&anew, "fallbacks") - 1.0).abs() < 1e-9);
    }
}
