//! The rules of the cutover, and how far the exploration goes.

use crate::cutover::action::Action;
use crate::cutover::bridge::Img;

/// A rule, to be broken. The numbers are those of the list in `docs/cutover-protocol.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Floor,
    CompletedBeforeAnswered,
    CasCompares,
    StaleKeysAreTombstoned,
    TargetsBeforeTheAnswer,
    NativeWritesNulls,
    ApplyWritesNulls,
    DoneAfterAllEffects,
    RecentNonces,
    AppliedUpToF,
    CommitBeforeTheFenceIsLifted,
    ReverseIsDrained,
    HoldsAreWaitedFor,
    FenceCoversTheGateway,
    LeaseCheckedBeforeTheEffects,
    SweptBeforeTheSwitchBack,
    ReverseKeepsVersions,
    SweeperAsksWhoLeads,
    CaptureIsFenced,
    AbandonedAfterALapse,
    OnlyARecordReleases,
    ControllerIsFenced,
    CaptureAboveNativeVersions,
    FallbackIsOff,
    AcknowledgementsNameTheAttempt,
    AnswersOfBeforeTheSwitch,
    NoncesReachMysql,
    CompletionsCarryTheNonce,
    NoncesStayInCassandra,
    PhaseReadAfterTheInit,
    GuardTablePerEpoch,
    CheckAsksForTheEpoch,
    CheckWaitsForDone,
    CheckReadsTheGuardAgain,
    CheckComparesTheKeptVersion,
    CheckReadsOneSnapshot,
    CheckUsesItsEpochsGuards,
    CheckComparesExtraRows,
    CheckComparesWritetimes,
    RepairIsAboveTheWritetimes,
    RepairWritesNulls,
    RepairDeletesExtraRows,
    RepairNamesAllThatDiffered,
}

/// How far the exploration goes.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    /// What happens before anything is explored.
    pub(crate) prefix: &'static [&'static [Action]],
    /// What each client's request makes of the row. They begin in this order.
    pub(crate) requests: &'static [Img],
    /// Requests that a client sends again before it has an answer.
    pub(crate) retries: u8,
    /// Leases that lapse, with what is under way lost (a crash) or going on late (a pause).
    pub(crate) crashes: u8,
    pub(crate) pauses: u8,
    /// The epoch in which no further cutover begins, and how many cutovers may begin and be taken back.
    pub(crate) last_epoch: u8,
    pub(crate) attempts: u8,
    pub(crate) taken_back: u8,
    /// Sweeps of the guard table.
    pub(crate) sweeps: u8,
    /// Controllers that are replaced.
    pub(crate) take_overs: u8,
    /// Whether a capture may start anew.
    pub(crate) capture_starts: u8,
    /// Answers that rest on a guard, and reads whose answer counts as seen.
    pub(crate) answers: u8,
    /// Whether MySQL's clock is ahead of all others. It is behind them otherwise.
    pub(crate) mysql_ahead: bool,
    /// Checks, and writes of somebody else to a target.
    pub(crate) checks: u8,
    pub(crate) corruptions: u8,
}

/// The cutover within bounds, perhaps with a rule broken.
#[derive(Debug, Clone)]
pub(crate) struct Cutover {
    pub(crate) bounds: Bounds,
    pub(crate) without: Option<Rule>,
}

impl Cutover {
    pub(crate) fn broken(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }
}
