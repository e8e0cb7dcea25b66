//! The increases of the gateways' counters since the migration entered its current stage.
//!
//! A silent gateway holds the gates, because `gateways_behind` is not measured then. The increases are those of the gateways
//! that are heard, so that a failing Cassandra is noticed all the same.
//!
//! The window restarts when the log was not measured for a while, and when another controller becomes active. That is
//! acceptable for rates. Counts that must survive it come from the log (`log_state`).

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
    /// The longest time between two rounds. What happened within a longer one does not count as what happens now.
    gap_us: i64,
    generation: u64,
    rounds: VecDeque<Round>,
}

impl Window {
    /// Creates a window of at most `length_us` microseconds, for rounds that are at most `gap_us` apart.
    pub(crate) fn new(length_us: i64, gap_us: i64) -> Self {
        Self { length_us, gap_us, generation: 0, rounds: VecDeque::new() }
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
        let (mut pages, mut silent) = (BTreeMap::new(), None);
        for (name, page) in read {
            match page {
                Ok(page) => _ = pages.insert(name, page),
                Err(why) => silent = silent.or(Some(format!("{name}: {why}"))),
            }
        }
        let gateways: Vec<u64> = pages.values().filter_map(|page| page.generation).collect();
        if gateways.is_empty() {
            return set_all(into, silent.as_deref().unwrap_or(NO_GATEWAY));
        }
        let behind = |generation: u64| gateways.iter().filter(|seen| **seen < generation).count();
        into.set("gateways_behind", silent.map_or_else(|| Ok(behind(current) as f64), Err));
        if behind(self.generation) > 0 {
            self.rounds.clear();
            return set_increases(into, "not every gateway has reached this stage");
        }
        if self.rounds.back().is_some_and(|last| at_us - last.at_us > self.gap_us) {
            self.rounds.clear();
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

    /// The increase of a counter over all roles. A role that has started again counted from 0. The counts with which a role
    /// is first heard are not an increase: they may be from before the window.
    fn increase(&self, counter: &str) -> f64 {
        let mut last: BTreeMap<&str, &Page> = BTreeMap::new();
        let mut growth = 0.0;
        for (name, page) in self.rounds.iter().flat_map(|round| &round.pages) {
            if let Some(was) = last.insert(name, page) {
                let again = was.started_at_us != page.started_at_us;
                growth += page.count(counter) - if again { 0.0 } else { was.count(counter) };
            }
        }
        growth
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

    /// A gateway: generation, writes, failures, reads by Cassandra, fallbacks.
    #[allow(clippy::unnecessary_wraps)] // the same type as a silent gateway
    fn gateway(
        generation: i64,
        writes: i64,
        failures: i64,
        reads: i64,
        fallbacks: i64,
    ) -> Result<Page, String> {
        started(1, generation, writes, failures, reads, fallbacks)
    }

    /// The same, of a process that started at this time.
    #[allow(clippy::unnecessary_wraps)] // as above
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
        let mut window = Window::new(60_000_000, 15_000_000);
        window.begin(5);
        let first =
            round(&mut window, 0, [("a", gateway(5, 100, 50, 10, 10)), ("b", gateway(5, 0, 0, 0, 0))]);
        assert!(first.get("fallback_rate").unwrap_err().contains("only once"));
        let second =
            round(&mut window, 1, [("a", gateway(5, 110, 51, 12, 11)), ("b", gateway(5, 10, 0, 1, 0))]);
        assert!((number(&second, "dual_write_failure_rate") - 1.0 / 20.0).abs() < 1e-9);
        assert!((number(&second, "fallback_rate") - 1.0 / 4.0).abs() < 1e-9);
        assert!((number(&second, "canary_reads") - 4.0).abs() < 1e-9);
        // `a` was restarted, and has counted more since then than before. `c` is new.
        let [a, c] = [1_500_000, 1_900_000].map(|at| started(at, 5, 115, 0, 0, 0));
        let third = round(&mut window, 2, [("a", a.clone()), ("b", gateway(5, 10, 0, 1, 0)), ("c", c)]);
        assert!((number(&third, "dual_writes") - (20.0 + 115.0)).abs() < 1e-9);
        // `b` is silent for a round, and goes on to count.
        let silent = || Err("silent".to_owned());
        let fourth = round(&mut window, 3, [("a", a.clone()), ("b", silent())]);
        assert!((number(&fourth, "dual_writes") - (20.0 + 115.0)).abs() < 1e-9);
        assert_eq!(fourth.get("gateways_behind").unwrap_err(), "b: silent");
        let fifth = round(&mut window, 4, [("a", a), ("b", gateway(5, 13, 0, 1, 0))]);
        assert!((number(&fifth, "dual_writes") - (20.0 + 115.0 + 3.0)).abs() < 1e-9);
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
        let mut window = Window::new(10_000_000, 15_000_000);
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
        let mut window = Window::new(60_000_000, 15_000_000);
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
    fn out_of_band_rows_are_counted_if_capture_is_heard() {
        let mut window = Window::new(60_000_000, 15_000_000);
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
        let mut window = Window::new(60_000_000, 15_000_000);
        window.begin(5);
        round(&mut window, 0, [("a", gateway(5, 0, 0, 0, 0)), ("b", gateway(5, 0, 0, 0, 0))]);
        let lagging = round(&mut window, 1, [("a", gateway(5, 0, 0, 0, 0)), ("b", gateway(4, 0, 0, 0, 0))]);
        assert!((number(&lagging, "gateways_behind") - 1.0).abs() < 1e-9);
        assert!(lagging.get("canary_reads").is_err());
        let silent = round(&mut window, 2, [("a", gateway(5, 0, 0, 0, 0)), ("b", Err("refused".into()))]);
        assert!(silent.get("gateways_behind").unwrap_err().contains("b: refused"));
        let alone = round(&mut window, 2, [("b", Err("refused".into()))]);
        assert!(alone.get("canary_reads").unwrap_err().contains("b: refused"));
        let nobody = round(&mut window, 3, []);
        assert!(nobody.get("gateways_behind").unwrap_err().contains("no gateway has announced itself"));
    }

    #[test]
    fn what_happened_while_nothing_was_measured_does_not_count() {
        let mut window = Window::new(60_000_000, 15_000_000);
        window.begin(5);
        round(&mut window, 0, [("a", gateway(5, 0, 0, 0, 0))]);
        round(&mut window, 1, [("a", gateway(5, 0, 0, 5, 0))]);
        let after = round(&mut window, 100, [("a", gateway(5, 0, 0, 5, 90))]);
        assert!(after.get("fallback_rate").unwrap_err().contains("only once"));
        let next = round(&mut window, 101, [("a", gateway(5, 0, 0, 15, 90))]);
        assert!(number(&next, "fallback_rate").abs() < 1e-9);
        assert_eq!(next.get("window_is_full").unwrap().as_number() as i64, 0);
    }

    #[test]
    fn counts_of_other_stages_or_of_long_ago_do_not_count() {
        let mut window = Window::new(10_000_000, 15_000_000);
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
