//! Where an exploration begins, what may happen in it, and where each rule is broken.

use crate::cutover::action::Action;
use crate::cutover::batches::{BatchRule, Batches};
use crate::cutover::bridge::{Img, img};
use crate::cutover::rules::{Bounds, Rule};
use crate::cutover::scripts::{TO_CASSANDRA, TO_MYSQL, mysql_write, native_write};

/// What the requests make of the row, which has `k` 0 and `a` 1 at first.
pub(crate) const MOVED: Img = img(1, 0);
pub(crate) const BACK: Img = img(0, 2);
pub(crate) const AGAIN: Img = img(1, 3);

pub(crate) const ONE: &[Img] = &[MOVED];
pub(crate) const TWO: &[Img] = &[MOVED, BACK];
pub(crate) const THREE: &[Img] = &[MOVED, BACK, AGAIN];

pub(crate) const BY_MYSQL: &[Action] = &mysql_write(0, 0);
pub(crate) const SECOND_BY_MYSQL: &[Action] = &mysql_write(1, 1);
pub(crate) const NATIVE: &[Action] = &native_write(0, 0, true);
pub(crate) const NATIVE_UNANSWERED: &[Action] = &native_write(0, 0, false);

pub(crate) const MYSQL: Bounds = Bounds {
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
pub(crate) const CASSANDRA: Bounds = Bounds { name: "Cassandra decides", prefix: &[TO_CASSANDRA], ..MYSQL };
pub(crate) const AFTER_A_WRITE: Bounds =
    Bounds { name: "Cassandra decides, after a write in MySQL", prefix: &[BY_MYSQL, TO_CASSANDRA], ..MYSQL };
pub(crate) const SWITCH_BACK: Bounds = Bounds { last_epoch: 2, attempts: 2, sweeps: 1, ..CASSANDRA };
pub(crate) const RETRIED: Bounds = Bounds { retries: 1, ..SWITCH_BACK };
pub(crate) const MYSQL_AGAIN: Bounds = Bounds {
    name: "MySQL decides again, after a native write without an answer",
    prefix: &[TO_CASSANDRA, NATIVE_UNANSWERED, TO_MYSQL],
    requests: ONE,
    retries: 1,
    last_epoch: 3,
    attempts: 3,
    sweeps: 1,
    ..MYSQL
};
pub(crate) const FOURTH_EPOCH: Bounds = Bounds {
    name: "MySQL decides again, after a native write",
    prefix: &[TO_CASSANDRA, NATIVE, TO_MYSQL],
    requests: THREE,
    ..MYSQL_AGAIN
};
pub(crate) const CASSANDRA_AGAIN: Bounds = Bounds {
    name: "Cassandra decides again, after a write in each epoch",
    prefix: &[TO_CASSANDRA, NATIVE, TO_MYSQL, SECOND_BY_MYSQL, TO_CASSANDRA],
    requests: THREE,
    last_epoch: 3,
    attempts: 3,
    sweeps: 1,
    ..MYSQL
};
/// A request whose gateway paused in MySQL's epoch and whose lease the switch has waited for.
pub(crate) const HANGING: Bounds = Bounds {
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

pub(crate) const CHECKED: Bounds = Bounds {
    name: "Cassandra decides, after a native write",
    prefix: &[TO_CASSANDRA, NATIVE],
    checks: 1,
    ..CASSANDRA
};
pub(crate) const CORRUPTED: Bounds = Bounds { requests: ONE, corruptions: 1, ..CHECKED };

/// Native writes beside a batch: one of each of its rows, or two of the first.
pub(crate) const ONE_OF_EACH: &[(usize, Img)] = &[(0, img(0, 3)), (1, img(0, 0))];
pub(crate) const TWO_OF_THE_FIRST: &[(usize, Img)] = &[(0, img(0, 3)), (0, img(0, 0))];

/// Each rule: where it is broken, and what it says.
pub(crate) const RULES: &[(Rule, Bounds, &str)] = &[
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

const BATCH: Batches = Batches { without: None, singles: ONE_OF_EACH, lapse: false };

/// The same for batches.
pub(crate) const BATCH_RULES: &[(BatchRule, Batches, &str)] = &[
    (BatchRule::RowBeforeGuards, BATCH, "a batch's row is written before any guard names the batch"),
    (BatchRule::RowStays, BATCH, "it has no TTL, and stays as long as a guard names the batch"),
    (
        BatchRule::WithoutARowTakenBack,
        Batches { lapse: true, ..BATCH },
        "a guard that names a batch without a row is taken back",
    ),
    (
        BatchRule::GuardCasComparesTheNonce,
        Batches { singles: TWO_OF_THE_FIRST, ..BATCH },
        "a CAS compares the nonce and not the version: a tentative write does not raise that",
    ),
    (BatchRule::AbortIsACas, BATCH, "a batch is aborted by a CAS from pending"),
    (BatchRule::AboveAllGuards, BATCH, "a batch's version is above the guards of all its keys"),
    (
        BatchRule::LeaseBeforeEachCas,
        Batches { lapse: true, ..BATCH },
        "a batch's gateway asks its lease before each CAS",
    ),
];
