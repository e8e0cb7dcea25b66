//! The exploration: with all rules nothing goes wrong, without any one of them something does.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use crate::cutover::batches::Batches;
use crate::cutover::bridge::DELETED;
use crate::cutover::cases::*;
use crate::cutover::rules::{Bounds, Cutover};
use crate::search::{Explored, Found, breadth_first};

/// Prints although the test passes: how much was explored is part of the result.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

/// `cargo xtask test --full` goes further.
fn full() -> bool {
    std::env::var_os("TANDEM_TEST_FULL").is_some()
}

#[test]
fn with_every_rule_nothing_goes_wrong() {
    let mut all = vec![
        Bounds { pauses: 1, crashes: 1, ..MYSQL },
        Bounds { retries: 1, capture_starts: 1, taken_back: 1, attempts: 2, mysql_ahead: true, ..MYSQL },
        Bounds { retries: 1, crashes: 1, ..CASSANDRA },
        Bounds { pauses: 1, crashes: 1, answers: 1, ..CASSANDRA },
        Bounds { pauses: 1, requests: &[MOVED, DELETED], ..SWITCH_BACK },
        Bounds {
            requests: ONE,
            pauses: 1,
            take_overs: 1,
            sweeps: 2,
            taken_back: 1,
            attempts: 3,
            ..SWITCH_BACK
        },
        Bounds { requests: ONE, pauses: 1, crashes: 1, ..RETRIED },
        HANGING,
        Bounds { crashes: 1, ..MYSQL_AGAIN },
        Bounds { pauses: 1, ..FOURTH_EPOCH },
        Bounds { retries: 1, crashes: 1, ..CASSANDRA_AGAIN },
        Bounds { checks: 2, corruptions: 1, requests: TWO, ..CHECKED },
        Bounds { checks: 1, crashes: 1, ..CASSANDRA },
        Bounds { checks: 1, last_epoch: 2, attempts: 2, sweeps: 1, ..CHECKED },
    ];
    if full() {
        all.extend([
            Bounds { retries: 1, pauses: 1, crashes: 1, answers: 1, ..CASSANDRA },
            Bounds { pauses: 1, crashes: 1, ..SWITCH_BACK },
            RETRIED,
        ]);
    }
    for bounds in all {
        let began = Instant::now();
        let found = breadth_first(&Cutover { bounds: bounds.clone(), without: None });
        say!(
            "{} states, {} steps deep, {:.1} s: {:?}",
            found.states,
            found.depth,
            began.elapsed().as_secs_f32(),
            Bounds { prefix: &[], ..bounds }
        );
        assert!(found.wrong.is_none(), "{:#?}", found.wrong);
    }
}

#[test]
fn with_every_rule_a_batch_happens_whole_or_not_at_all() {
    for (singles, lapse) in [ONE_OF_EACH, TWO_OF_THE_FIRST].into_iter().flat_map(|s| [(s, false), (s, true)])
    {
        let found = breadth_first(&Batches { without: None, singles, lapse });
        say!("{} states, {} steps deep: {singles:?}, lapse: {lapse}", found.states, found.depth);
        assert!(found.wrong.is_none(), "{:#?}", found.wrong);
    }
}

/// What is too large to be explored whole: random walks through all of it at once, over four epochs.
#[test]
fn on_random_walks_nothing_goes_wrong() {
    let bounds = Bounds {
        name: "everything",
        requests: &[MOVED, BACK, DELETED, AGAIN],
        retries: 2,
        crashes: 1,
        pauses: 2,
        last_epoch: 3,
        attempts: 5,
        taken_back: 2,
        sweeps: 3,
        take_overs: 1,
        capture_starts: 1,
        answers: 2,
        ..MYSQL
    };
    let (seed, seconds) = (rand::random(), if full() { 300 } else { 5 });
    let checker = Cutover { bounds: bounds.clone(), without: None }
        .checker()
        .threads(1)
        .timeout(Duration::from_secs(seconds))
        .spawn_simulation(seed, stateright::UniformChooser)
        .join();
    say!("{}: {} steps of walks from seed {seed}; {bounds:?}", bounds.name, checker.state_count());
    assert!(checker.state_count() > 1000);
    checker.assert_properties();
}

#[test]
fn without_any_rule_something_does() {
    let mut page = String::from(
        "# The rules of the cutover, and what breaks without each\n\n\
         Made by `tests/protocol/cutover`: each rule is broken alone, and the exploration finds a shortest way to something \
         wrong.\nIt begins where the table says. The number there is the length of the script that leads to that state \
         without an accident.\n\n\
         | rule | without it | begins when | steps |\n|---|---|---|---|\n",
    );
    let mut traces = String::new();
    let cutovers = RULES.iter().map(|(rule, bounds, says)| {
        let cutover = Cutover { bounds: bounds.clone(), without: Some(*rule) };
        let scripted: usize = bounds.prefix.iter().map(|script| script.len()).sum();
        let begins = format!("{} ({scripted})", bounds.name);
        (format!("{rule:?}"), *says, begins, search(&cutover))
    });
    let batches = BATCH_RULES.iter().map(|(rule, batches, says)| {
        let batches = Batches { without: Some(*rule), ..batches.clone() };
        (
            format!("{rule:?}"),
            *says,
            "A batch of two rows, while Cassandra decides (0)".to_owned(),
            search(&batches),
        )
    });
    for (number, (rule, says, begins, found)) in cutovers.chain(batches).enumerate() {
        let (number, (property, way)) =
            (number + 1, found.wrong.unwrap_or_else(|| panic!("{rule}: nothing breaks without it")));
        say!("{rule}: {} states, {property:?}, {} steps", found.states, way.len());
        let wrong = property_broken(property);
        let _ = writeln!(page, "| {number}. {says} | {wrong} | {begins} | {} |", way.len());
        let _ = write!(traces, "\n### {number}. {says}\n\n{begins}. Without the rule, {wrong}:\n\n");
        for (step, action) in way.iter().enumerate() {
            let _ = writeln!(traces, "{}. `{action}`", step + 1);
        }
    }
    let _ = write!(page, "\n## The traces\n{traces}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cutover-protocol.md");
    if std::env::var_os("TANDEM_WRITE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
    } else {
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            known == page,
            "docs/cutover-protocol.md is not what the model says: run this test with TANDEM_WRITE_DOCS=1"
        );
    }
}

/// Searches, and returns the way in words.
fn search<M: Explored<Action: std::fmt::Debug>>(model: &M) -> Found<String> {
    let Found { states, depth, wrong } = breadth_first(model);
    let words = |way: Vec<M::Action>| way.iter().map(|action| format!("{action:?}")).collect();
    Found { states, depth, wrong: wrong.map(|(property, way)| (property, words(way))) }
}

fn property_broken(property: &'static str) -> &'static str {
    match property {
        "at rest targets, guard and MySQL are equal" => "at rest targets, guard and MySQL differ",
        "no acknowledged write is lost" => "an acknowledged write is lost",
        "one store decides" => "two stores decide at once",
        "a request happens at most once" => "a request happens twice",
        "nothing is called wrong that nobody corrupted" => "a false mismatch is confirmed",
        "nothing corrupt is called right" => "a corrupt row passes a check",
        "at rest guards and targets hold what was committed" => "at rest, what was committed is not there",
        "a batch happens by half" | "a key waits for ever" => property,
        _ => "a client is shown a stale or a mixed row",
    }
}
