//! The exploration: with all rules nothing goes wrong, without any one of them something does.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use crate::cutover::action::Action;
use crate::cutover::bridge::{DELETED, Img, img};
use crate::cutover::rules::{Bounds, Cutover, Rule};
use crate::cutover::scripts::{TO_CASSANDRA, TO_MYSQL, mysql_write, native_write};
use crate::cutover::search::breadth_first;

/// Prints although the test passes: how much was explored is part of the result.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

/// What the requests make of the row, which has `k` 0 and `a` 1 at first.
const MOVED: Img = img(1, 0);
const BACK: Img = img(0, 2);
const AGAIN: Img = img(1, 3);

const ONE: &[Img] = &[MOVED];
const TWO: &[Img] = &[MOVED, BACK];
const THREE: &[Img] = &[MOVED, BACK, AGAIN];

const BY_MYSQL: &[Action] = &mysql_write(0, 0);
const SECOND_BY_MYSQL: &[Action] = &mysql_write(1, 1);
const NATIVE: &[Action] = &native_write(0, 0, true);
const NATIVE_UNANSWERED: &[Action] = &native_write(0, 0, false);

const MYSQL: Bounds = Bounds {
    name: "MySQL decides",
    prefix: &[],
    requests: TWO,
    retries: 0,
    crashes: 0,
    pauses: 0,
    last_epoch: 1,
    attempts: 1,
    taken_back: 0,
    sweeps: 0,
    take_overs: 0,
    capture_starts: 0,
    answers: 0,
    mysql_ahead: false,
    checks: 0,
    corruptions: 0,
};
const CASSANDRA: Bounds = Bounds { name: "Cassandra decides", prefix: &[TO_CASSANDRA], ..MYSQL };
const AFTER_A_WRITE: Bounds =
    Bounds { name: "Cassandra decides, after a write in MySQL", prefix: &[BY_MYSQL, TO_CASSANDRA], ..MYSQL };
const SWITCH_BACK: Bounds = Bounds { last_epoch: 2, attempts: 2, sweeps: 1, ..CASSANDRA };
const RETRIED: Bounds = Bounds { retries: 1, ..SWITCH_BACK };
const MYSQL_AGAIN: Bounds = Bounds {
    name: "MySQL decides again, after a native write without an answer",
    prefix: &[TO_CASSANDRA, NATIVE_UNANSWERED, TO_MYSQL],
    requests: ONE,
    retries: 1,
    last_epoch: 3,
    attempts: 3,
    sweeps: 1,
    ..MYSQL
};
const FOURTH_EPOCH: Bounds = Bounds {
    name: "MySQL decides again, after a native write",
    prefix: &[TO_CASSANDRA, NATIVE, TO_MYSQL],
    requests: THREE,
    ..MYSQL_AGAIN
};
const CASSANDRA_AGAIN: Bounds = Bounds {
    name: "Cassandra decides again, after a write in each epoch",
    prefix: &[TO_CASSANDRA, NATIVE, TO_MYSQL, SECOND_BY_MYSQL, TO_CASSANDRA],
    requests: THREE,
    last_epoch: 3,
    attempts: 3,
    sweeps: 1,
    ..MYSQL
};
/// A request whose gateway paused in MySQL's epoch and whose lease the switch has waited for.
const HANGING: Bounds = Bounds {
    name: "Cassandra decides, and a gateway that paused before still has a transaction open in MySQL",
    prefix: &[&[
        Action::Start { gateway: 0, request: 0 },
        Action::Pause { gateway: 0 },
        Action::Begin,
        Action::Learn { gateway: 1 },
        Action::Acknowledge { gateway: 1 },
        Action::Advance,
        Action::Advance,
        Action::FenceCapture,
        Action::Advance,
        Action::Learn { gateway: 1 },
    ]],
    pauses: 1,
    ..SWITCH_BACK
};

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

/// Each rule: where it is broken, and what it says.
const RULES: &[(Rule, Bounds, &str)] = &[
    (Rule::Floor, AFTER_A_WRITE, "a native version is not below the epoch's floor"),
    (
        Rule::CompletedBeforeAnswered,
        Bounds { answers: 1, ..CASSANDRA },
        "no answer rests on a guard whose write is not complete",
    ),
    (Rule::CasCompares, CASSANDRA, "the CAS compares the nonce of the last CAS"),
    (
        Rule::StaleKeysAreTombstoned,
        CASSANDRA,
        "a native write leaves a row tombstone under each target key that the row no longer has",
    ),
    (Rule::TargetsBeforeTheAnswer, CASSANDRA, "the targets are written before the client gets its answer"),
    (Rule::NativeWritesNulls, CASSANDRA, "a native write writes NULLs explicitly"),
    (Rule::ApplyWritesNulls, CASSANDRA, "so does apply, where it writes a native record"),
    (
        Rule::DoneAfterAllEffects,
        Bounds { crashes: 1, ..CASSANDRA },
        "a version is marked as done after all of its effects",
    ),
    (Rule::RecentNonces, RETRIED, "a guard remembers the nonces of the writes before the last one"),
    (
        Rule::ReverseKeepsVersions,
        Bounds { crashes: 1, pauses: 1, ..CASSANDRA },
        "reverse changes MySQL's row only where the record is above the version kept for its key",
    ),
    (Rule::FallbackIsOff, MYSQL, "from the hold on, MySQL answers no read"),
    (
        Rule::FenceCoversTheGateway,
        Bounds { pauses: 1, ..MYSQL },
        "MySQL refuses the gateways' writes too once it is closed",
    ),
    (Rule::AppliedUpToF, MYSQL, "everything up to F is applied before the epoch closes"),
    (
        Rule::ControllerIsFenced,
        Bounds { take_overs: 1, taken_back: 1, ..MYSQL },
        "a controller that was replaced writes no record",
    ),
    (
        Rule::CaptureIsFenced,
        Bounds { mysql_ahead: true, ..CASSANDRA },
        "capture is fenced before the last version is read",
    ),
    (
        Rule::PhaseReadAfterTheInit,
        Bounds { capture_starts: 1, mysql_ahead: true, ..MYSQL },
        "a capture that starts fences every other one, and reads the phase after that",
    ),
    (
        Rule::AnswersOfBeforeTheSwitch,
        Bounds { retries: 1, ..MYSQL },
        "the answers of requests that MySQL decided are known once Cassandra decides",
    ),
    (
        Rule::HoldsAreWaitedFor,
        SWITCH_BACK,
        "the controller waits until each gateway has acknowledged the hold or lost its lease",
    ),
    (
        Rule::AcknowledgementsNameTheAttempt,
        SWITCH_BACK,
        "an acknowledgement counts for the attempt that it names",
    ),
    (Rule::OnlyARecordReleases, SWITCH_BACK, "only a record releases a gateway from a hold"),
    (
        Rule::LeaseCheckedBeforeTheEffects,
        Bounds { pauses: 1, ..SWITCH_BACK },
        "the lease is asked between the CAS's answer and the effects",
    ),
    (
        Rule::AbandonedAfterALapse,
        Bounds { pauses: 1, ..SWITCH_BACK },
        "a write that lived through a lapse of its lease is abandoned, though the lease was renewed",
    ),
    (
        Rule::SweptBeforeTheSwitchBack,
        Bounds { crashes: 1, ..SWITCH_BACK },
        "every guard is completed before the switch back, after the last lapse of a lease",
    ),
    (
        Rule::SweeperAsksWhoLeads,
        Bounds { pauses: 1, take_overs: 1, sweeps: 2, ..SWITCH_BACK },
        "whoever sweeps asks who leads between reading a guard and writing",
    ),
    (Rule::ReverseIsDrained, SWITCH_BACK, "reverse has reached the log's end before the switch back"),
    (
        Rule::CommitBeforeTheFenceIsLifted,
        HANGING,
        "MySQL is opened to writes after the record of the switch back",
    ),
    (
        Rule::CaptureAboveNativeVersions,
        SWITCH_BACK,
        "capture's versions after the switch back are above every native one",
    ),
    (Rule::NoncesReachMysql, RETRIED, "reverse brings the nonces of native writes to MySQL"),
    (
        Rule::CompletionsCarryTheNonce,
        Bounds { requests: ONE, crashes: 1, ..RETRIED },
        "who completes the write of another, a sweep too, publishes it with its nonce",
    ),
    (
        Rule::NoncesStayInCassandra,
        MYSQL_AGAIN,
        "a native write leaves its answer in Cassandra too, for an epoch after the next",
    ),
    (Rule::GuardTablePerEpoch, CASSANDRA_AGAIN, "each epoch has a guard table of its own"),
    (
        Rule::CheckAsksForTheEpoch,
        Bounds { last_epoch: 2, attempts: 2, sweeps: 1, ..CHECKED },
        "a check asks for the epoch at its end, and counts only if it is still the one of its beginning",
    ),
    (
        Rule::CheckWaitsForDone,
        Bounds { checks: 1, ..CASSANDRA },
        "a check reads the targets once the guard's version is done",
    ),
    (
        Rule::CheckReadsTheGuardAgain,
        CHECKED,
        "a check reads the guard again after the targets, and counts only if it is unchanged",
    ),
    (
        Rule::CheckComparesTheKeptVersion,
        CHECKED,
        "MySQL's row is compared only where reverse's version is the guard's",
    ),
    (Rule::CheckReadsOneSnapshot, CHECKED, "MySQL's row and reverse's version are read in one snapshot"),
    (
        Rule::CheckUsesItsEpochsGuards,
        Bounds { checks: 1, ..CASSANDRA_AGAIN },
        "a check uses the guards of its own epoch only",
    ),
    (Rule::CheckComparesExtraRows, CORRUPTED, "a check looks for rows that must not be there"),
    (
        Rule::CheckComparesWritetimes,
        Bounds { requests: &[BACK], ..CORRUPTED },
        "a check compares writetimes: none is above the guard's version",
    ),
    (Rule::RepairIsAboveTheWritetimes, CORRUPTED, "a repair is above every writetime that the check found"),
    (Rule::RepairWritesNulls, CORRUPTED, "a repair writes NULLs explicitly"),
    (Rule::RepairDeletesExtraRows, CORRUPTED, "a repair deletes the rows that must not be there"),
    (
        Rule::RepairNamesAllThatDiffered,
        Bounds { corruptions: 1, ..CHECKED },
        "it deletes each row that differed if the row of the guard is elsewhere by then, not only the extra ones",
    ),
];

const CHECKED: Bounds = Bounds {
    name: "Cassandra decides, after a native write",
    prefix: &[TO_CASSANDRA, NATIVE],
    checks: 1,
    ..CASSANDRA
};
const CORRUPTED: Bounds = Bounds { requests: ONE, corruptions: 1, ..CHECKED };

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
    for (number, (rule, bounds, says)) in RULES.iter().enumerate() {
        let began = Instant::now();
        let found = breadth_first(&Cutover { bounds: bounds.clone(), without: Some(*rule) });
        say!(
            "{rule:?}: {} states, {:.1} s, {:?}",
            found.states,
            began.elapsed().as_secs_f32(),
            found.wrong.as_ref().map(|(property, way)| (property, way.len()))
        );
        let (property, way) =
            found.wrong.unwrap_or_else(|| panic!("{rule:?}: nothing breaks without it in {bounds:?}"));
        let wrong = property_broken(property);
        let (number, steps) = (number + 1, way.len());
        let scripted: usize = bounds.prefix.iter().map(|script| script.len()).sum();
        let _ = writeln!(page, "| {number}. {says} | {wrong} | {} ({scripted}) | {steps} |", bounds.name);
        let _ = write!(traces, "\n### {number}. {says}\n\n{}. Without the rule, {wrong}:\n\n", bounds.name);
        for (step, action) in way.iter().enumerate() {
            let _ = writeln!(traces, "{}. `{action:?}`", step + 1);
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

fn property_broken(property: &str) -> &'static str {
    match property {
        "at rest targets, guard and MySQL are equal" => "at rest targets, guard and MySQL differ",
        "no acknowledged write is lost" => "an acknowledged write is lost",
        "one store decides" => "two stores decide at once",
        "a request happens at most once" => "a request happens twice",
        "nothing is called wrong that nobody corrupted" => "a false mismatch is confirmed",
        "nothing corrupt is called right" => "a corrupt row passes a check",
        _ => "a client is shown a stale or a mixed row",
    }
}
