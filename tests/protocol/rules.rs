//! The exploration: with all rules nothing goes wrong, without any one of them something does.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use crate::protocol::{Bounds, Protocol, Rule};

/// Prints although the test passes: how much was explored is part of the result.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

const NOTHING: Bounds = Bounds {
    name: "",
    transactions: 1,
    clock_steps_back: false,
    idle_watermarks: 0,
    checks: 0,
    checks_at_once: 1,
    backfill: false,
    corruption: false,
    alter: false,
    dead_letters: 0,
    gateways: 0,
    batches: false,
};
const BACKFILL: Bounds = Bounds { name: "backfill", transactions: 2, backfill: true, ..NOTHING };
const BATCHES: Bounds =
    Bounds { name: "batches", transactions: 2, clock_steps_back: true, batches: true, ..NOTHING };
const CHECKS: Bounds = Bounds { name: "checks", transactions: 2, checks: 1, ..NOTHING };
const TWO_CHECKS: Bounds =
    Bounds { name: "two checks at once", checks: 2, checks_at_once: 2, corruption: true, ..NOTHING };
const REPAIR: Bounds = Bounds { name: "repair", idle_watermarks: 1, checks: 1, corruption: true, ..NOTHING };
const RESNAPSHOT: Bounds = Bounds { name: "resnapshot", transactions: 2, alter: true, ..NOTHING };
const RESNAPSHOT_CHECKED: Bounds = Bounds { name: "resnapshot and a check", checks: 1, ..RESNAPSHOT };
const DEAD_LETTERS: Bounds = Bounds { name: "dead letters", transactions: 2, dead_letters: 1, ..NOTHING };
const DEAD_LETTERS_CHECKED: Bounds = Bounds {
    name: "dead letters and a check",
    transactions: 1,
    idle_watermarks: 1,
    checks: 1,
    ..DEAD_LETTERS
};
const GATEWAY: Bounds = Bounds { name: "gateway", transactions: 2, gateways: 1, ..NOTHING };
const TWO_GATEWAYS: Bounds = Bounds { name: "two gateways", gateways: 2, ..GATEWAY };
const GATEWAY_DEAD_LETTERS: Bounds = Bounds {
    name: "gateway and dead letters",
    transactions: 1,
    idle_watermarks: 1,
    dead_letters: 1,
    ..GATEWAY
};
const GATEWAY_RESNAPSHOT: Bounds = Bounds { name: "gateway and resnapshot", alter: true, ..GATEWAY };

/// `cargo xtask test --full` goes further.
fn full() -> bool {
    std::env::var_os("TANDEM_TEST_FULL").is_some()
}

#[test]
fn with_every_rule_nothing_goes_wrong() {
    let mut all = vec![
        BACKFILL,
        BATCHES,
        CHECKS,
        TWO_CHECKS,
        REPAIR,
        RESNAPSHOT,
        RESNAPSHOT_CHECKED,
        DEAD_LETTERS,
        DEAD_LETTERS_CHECKED,
        GATEWAY,
        GATEWAY_DEAD_LETTERS,
        GATEWAY_RESNAPSHOT,
    ];
    if full() {
        all.extend([
            TWO_GATEWAYS,
            Bounds { name: "backfill, more", idle_watermarks: 1, ..BACKFILL },
            Bounds { name: "checks, more", transactions: 1, idle_watermarks: 3, checks: 3, ..CHECKS },
            Bounds { name: "repair, more", batches: true, ..REPAIR },
            Bounds { name: "gateway and checks", transactions: 1, idle_watermarks: 1, checks: 1, ..GATEWAY },
            Bounds {
                name: "gateway and backfill",
                transactions: 1,
                idle_watermarks: 1,
                backfill: true,
                ..GATEWAY
            },
        ]);
    }
    for bounds in &all {
        let began = Instant::now();
        let protocol = Protocol { bounds: bounds.clone(), without: None };
        let checker = protocol.checker().threads(2).spawn_bfs().join();
        say!(
            "{}: {} states, {} steps deep, {:.1} s; {bounds:?}",
            bounds.name,
            checker.unique_state_count(),
            checker.max_depth(),
            began.elapsed().as_secs_f32()
        );
        checker.assert_properties();
    }
}

/// What is too large to be explored whole: random walks through all of it at once.
#[test]
fn on_random_walks_nothing_goes_wrong() {
    let bounds = Bounds {
        name: "everything",
        transactions: 4,
        clock_steps_back: true,
        idle_watermarks: 3,
        checks: 3,
        backfill: true,
        corruption: true,
        gateways: 2,
        alter: true,
        dead_letters: 2,
        checks_at_once: 2,
        batches: true,
    };
    let (seed, seconds) = (rand::random(), if full() { 300 } else { 10 });
    let checker = Protocol { bounds: bounds.clone(), without: None }
        .checker()
        .threads(2)
        .timeout(Duration::from_secs(seconds))
        .spawn_simulation(seed, stateright::UniformChooser)
        .join();
    say!("{}: {} steps of walks from seed {seed}; {bounds:?}", bounds.name, checker.state_count());
    assert!(checker.state_count() > 1000);
    checker.assert_properties();
}

/// Each rule: where it is broken, and what it says.
const RULES: &[(Rule, Bounds, &str)] = &[
    (Rule::VersionPerChange, BATCHES, "each row change has a version of its own, `last + 1`"),
    (Rule::NeverBelowTheLast, BATCHES, "a version is never below the last one, whatever MySQL's clock does"),
    (
        Rule::LastFromTheWatermark,
        BATCHES,
        "after a restart the last version is that of the last committed watermark",
    ),
    (
        Rule::AbortedIsForgotten,
        BATCHES,
        "of an aborted Kafka transaction capture forgets everything, and begins again behind the last watermark",
    ),
    (Rule::WatermarkMints, REPAIR, "each watermark mints a version of its own, above everything before it"),
    (Rule::WithinExecuted, BACKFILL, "a borrowed watermark lies within `@@gtid_executed`"),
    (Rule::AskedBeforeTheRead, BACKFILL, "`@@gtid_executed` is asked for before the read"),
    (Rule::PartialIsNotBorrowed, BACKFILL, "a partial watermark is never borrowed"),
    (Rule::NullWhereItBecameNull, BATCHES, "an update writes NULL where a column became NULL"),
    (
        Rule::TombstoneForTheOldKey,
        BATCHES,
        "a row that moves to another target key leaves a row tombstone behind",
    ),
    (
        Rule::TombstoneOutsideTheFilter,
        BATCHES,
        "a row that leaves a target's filter leaves a row tombstone behind",
    ),
    (
        Rule::TombstoneOfARowOutside,
        RESNAPSHOT,
        "a row that is deleted outside a target's filter leaves a row tombstone there all the same",
    ),
    (Rule::KeyChangeIsTwo, CHECKS, "a changed primary key is two changes, each a change of its own key"),
    (
        Rule::FoldingKeepsAll,
        BATCHES,
        "folding keeps the last tombstone and every NULL, not the newest change alone",
    ),
    (Rule::AnswerBeforeOffset, BATCHES, "offsets are committed after Cassandra's answer"),
    (Rule::AppliedBeforeCompared, CHECKS, "a check reads Cassandra after W₁ is applied"),
    (
        Rule::UpperBoundCoversTheEnd,
        CHECKS,
        "W₃ covers the binlog's end as asked for after Cassandra was read",
    ),
    (
        Rule::NoChangeOfTheKey,
        CHECKS,
        "a difference counts only without a change of the key between W₁ and W₃",
    ),
    (Rule::RepairAtTheLowerBound, REPAIR, "a repair is written at W₁'s version"),
    (Rule::RepairWritesNulls, REPAIR, "a repair writes NULLs explicitly"),
    (
        Rule::ResnapshotAboveTheDdl,
        RESNAPSHOT,
        "the copy after a DDL statement that changed values borrows a watermark above it",
    ),
    (
        Rule::ResnapshotWritesNulls,
        RESNAPSHOT,
        "such a copy, which meets older cells, writes NULLs explicitly",
    ),
    (
        Rule::ResnapshotBeforeChecks,
        RESNAPSHOT_CHECKED,
        "such a statement counts as a change of every key, and nothing is checked until the copy is there",
    ),
    (
        Rule::RetryAboveTheChange,
        DEAD_LETTERS,
        "a change put aside is retried at a watermark above it, by reading its row again",
    ),
    (Rule::RetryWritesNulls, DEAD_LETTERS, "the retry writes NULLs explicitly"),
    (Rule::RetryTombstonesTheOldKeys, DEAD_LETTERS, "the retry tombstones the keys that the row had before"),
    (
        Rule::AsideIsNotChecked,
        DEAD_LETTERS_CHECKED,
        "a key with a change put aside is not checked until it is retried, and a check under way begins again",
    ),
    (Rule::GatewayBorrowsBeforeCommit, GATEWAY, "a gateway borrows its watermark before its COMMIT"),
    (
        Rule::GatewayWritesTheImageReadBack,
        GATEWAY,
        "a gateway writes the image that it read back under the row's lock, not what the client made of an older one",
    ),
    (Rule::GatewayWritesOnlyWhatIsCommitted, GATEWAY, "a gateway writes only what is known to be committed"),
    (
        Rule::TokenIsApplied,
        GATEWAY,
        "a read with a token goes to MySQL until a watermark that holds it is applied",
    ),
    (
        Rule::AsideIsReadFromMysql,
        GATEWAY_DEAD_LETTERS,
        "so does a read of a key with a change put aside, until it is retried",
    ),
    (
        Rule::ResnapshotBeforeReads,
        GATEWAY_RESNAPSHOT,
        "and a read of a table whose values a DDL statement changed, until it is copied again",
    ),
    (
        Rule::AskedAfterTheWait,
        GATEWAY_DEAD_LETTERS,
        "a read that waits until its token is applied asks after the wait what is put aside",
    ),
];

/// The shortest way to something wrong, in words.
fn shortest(protocol: &Protocol) -> Option<(&'static str, Vec<String>)> {
    // One thread goes breadth first in order, so the first trace found is a shortest one.
    let checker =
        protocol.clone().checker().finish_when(stateright::HasDiscoveries::Any).threads(1).spawn_bfs().join();
    let found = checker.discoveries().into_iter().min_by_key(|(_, path)| path.clone().into_actions().len());
    found.map(|(property, path)| (property, path.into_actions().iter().map(|a| format!("{a:?}")).collect()))
}

#[test]
fn without_any_rule_something_does() {
    let mut page = String::from(
        "# The rules of the protocol, and what breaks without each\n\n\
         Made by `tests/protocol`: each rule is broken alone, and the exploration finds a shortest way to something wrong.\n\n\
         | rule | without it | steps |\n|---|---|---|\n",
    );
    let mut traces = String::new();
    for (number, (rule, bounds, says)) in RULES.iter().enumerate() {
        let began = Instant::now();
        let protocol = Protocol { bounds: bounds.clone(), without: Some(*rule) };
        let found = shortest(&protocol);
        say!(
            "{rule:?}: {:.1} s, {:?}",
            began.elapsed().as_secs_f32(),
            found.as_ref().map(|(p, t)| (p, t.len()))
        );
        let (property, trace) =
            found.unwrap_or_else(|| panic!("{rule:?}: nothing breaks without it in {bounds:?}"));
        let wrong = property_broken(property);
        let _ = writeln!(page, "| {}. {says} | {wrong} | {} |", number + 1, trace.len());
        let _ = write!(traces, "\n### {}. {says}\n\nWithout it, {wrong}:\n\n", number + 1);
        for (step, action) in trace.iter().enumerate() {
            let _ = writeln!(traces, "{}. `{action}`", step + 1);
        }
    }
    let _ = write!(page, "\n## The traces\n{traces}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md");
    if std::env::var_os("TANDEM_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, page).unwrap();
    } else {
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            known == page,
            "docs/protocol.md is not what the model says: run this test with TANDEM_WRITE_DOCS=1"
        );
    }
}

fn property_broken(property: &str) -> &'static str {
    match property {
        "at rest both stores are equal" => "at rest both stores differ",
        "nothing is called wrong that nobody corrupted" => "a false mismatch is confirmed",
        "nothing corrupt and quiet is called right" => "a corrupt row passes a check",
        "a cell's version never goes back" => "a cell's version goes back",
        _ => "a client reads something older than its own write",
    }
}
