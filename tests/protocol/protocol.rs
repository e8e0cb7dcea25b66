//! The rules, and how far the exploration goes.

/// A rule of the protocol, to be broken. The numbers are those of the list in `docs/protocol.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    VersionPerChange,
    NeverBelowTheLast,
    LastFromTheWatermark,
    AbortedIsForgotten,
    WatermarkMints,
    WithinExecuted,
    AskedBeforeTheRead,
    PartialIsNotBorrowed,
    NullWhereItBecameNull,
    TombstoneForTheOldKey,
    TombstoneOutsideTheFilter,
    TombstoneOfARowOutside,
    KeyChangeIsTwo,
    FoldingKeepsAll,
    AnswerBeforeOffset,
    AppliedBeforeCompared,
    UpperBoundCoversTheEnd,
    NoChangeOfTheKey,
    RepairAtTheLowerBound,
    RepairWritesNulls,
    ResnapshotAboveTheDdl,
    ResnapshotWritesNulls,
    ResnapshotBeforeChecks,
    RetryAboveTheChange,
    RetryWritesNulls,
    RetryTombstonesTheOldKeys,
    AsideIsNotChecked,
    GatewayBorrowsBeforeCommit,
    GatewayWritesTheImageReadBack,
    GatewayWritesOnlyWhatIsCommitted,
    TokenIsApplied,
    AsideIsReadFromMysql,
    ResnapshotBeforeReads,
    AskedAfterTheWait,
}

/// How far the exploration goes.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    /// Transactions of MySQL.
    pub(crate) transactions: usize,
    /// Whether a transaction's commit time may lie before those of all others.
    pub(crate) clock_steps_back: bool,
    /// Watermarks without any change before them.
    pub(crate) idle_watermarks: u8,
    /// Checks of a row, and how many of them may be under way at once.
    pub(crate) checks: u8,
    pub(crate) checks_at_once: usize,
    pub(crate) backfill: bool,
    pub(crate) corruption: bool,
    /// Whether one of the transactions may be an ALTER TABLE that changes values.
    pub(crate) alter: bool,
    /// Changes that apply may put aside.
    pub(crate) dead_letters: u8,
    /// Gateways, which make one of the transactions each, and write it to Cassandra themselves.
    pub(crate) gateways: usize,
    /// Whether apply may fold, and write records again.
    pub(crate) batches: bool,
}

/// The protocol within bounds, perhaps with a rule broken.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) bounds: Bounds,
    pub(crate) without: Option<Rule>,
}

impl Protocol {
    pub(crate) fn broken(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }
}
