//! A batch of two rows, beside native writes of each: a model of its own, in one epoch and at its end.
//!
//! One gateway makes the batch, may pause and lose its lease. Another writes the rows one by one. Whoever may act
//! settles and completes guards: the second gateway, and a sweep.

use stateright::{Model, Property};
use tandem_model::Version;
use tandem_protocol::cutover::batch::Settle;
use tandem_protocol::cutover::guard::{self, Accepted, Tentative};

use crate::cutover::bridge::{Img, img, nonce, row};
use crate::cutover::state::Few;
use crate::search::Explored;

const FIRST: Img = img(0, 1);
pub(crate) const BATCHED: Img = img(0, 2);
/// The nonce of the batch. Single writes count from 2.
pub(crate) const BATCH: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchRule {
    RowBeforeGuards,
    RowStays,
    GuardCasComparesTheNonce,
    AbortIsACas,
    AboveAllGuards,
    LeaseBeforeEachCas,
    WithoutARowTakenBack,
}

#[derive(Debug, Clone)]
pub(crate) struct Batches {
    pub(crate) without: Option<BatchRule>,
    /// The native writes of single rows, by key.
    pub(crate) singles: &'static [(usize, Img)],
    /// Whether the batch's gateway may lose its lease, and the epoch end.
    pub(crate) lapse: bool,
}

/// A guard, small, with the image of the batch's tentative write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Guard {
    pub(crate) version: u8,
    pub(crate) nonce: u8,
    pub(crate) recent: u16,
    pub(crate) image: Img,
    pub(crate) tentative: Option<Img>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Version 0: there is none.
    pub(crate) guard: Guard,
    pub(crate) done: u8,
    /// The target's row, and its writetime.
    pub(crate) target: (Img, u8),
    /// What has been committed, in order, with the nonces.
    pub(crate) history: Few<(Img, u8), 5>,
}

/// A guard to be set, and what its CAS compares: the nonce, or, where that rule is broken, the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Proposal {
    pub(crate) key: usize,
    pub(crate) expected: u8,
    pub(crate) read_version: u8,
    pub(crate) guard: Guard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Maker {
    Idle,
    /// So many guards hold its writes.
    Placing(usize),
    Placed(Proposal),
    /// The lease was asked.
    Committing,
    Committed,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Single {
    Idle,
    Started,
    Decided(Proposal),
    Won { version: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Helper {
    Idle,
    Saw { key: usize, guard: Guard },
    Aborts,
    Sets(Proposal),
    Completes { key: usize, version: u8, image: Img },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    None,
    Pending,
    Committed(u8),
    Aborted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) keys: [Key; 2],
    pub(crate) row: Row,
    pub(crate) maker: Maker,
    pub(crate) placed: [u8; 2],
    pub(crate) lapsed: bool,
    pub(crate) single: Single,
    pub(crate) singles: usize,
    pub(crate) helpers: [Helper; 2],
    pub(crate) deadline_passed: bool,
    pub(crate) swept: bool,
    pub(crate) held: bool,
    pub(crate) over: bool,
    pub(crate) wrong: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The batch: its row is written, a guard is read, the CAS of a guard, the lease is asked, the CAS of the row.
    WriteRow,
    ReadGuard,
    CasGuard,
    AskLease,
    Commit,
    Answer,
    Lapse,
    DeadlinePasses,
    RowExpires,
    RemoveRow,
    SingleStarts,
    SingleReads,
    SingleCas,
    SingleAnswers,
    HelperReads {
        helper: usize,
        key: usize,
    },
    HelperAsks {
        helper: usize,
    },
    HelperActs {
        helper: usize,
    },
    /// A sweep has found nothing to settle or to complete; the hold; the end of the epoch.
    Swept,
    Hold,
    End,
}

pub(crate) const LOST: &str = "an acknowledged write is lost";
pub(crate) const HALF: &str = "a batch happens by half";
const STUCK: &str = "a key waits for ever";

impl Guard {
    pub(crate) fn product(self) -> Option<guard::Guard> {
        let accepted = |bit| Accepted { nonce: nonce(bit), version: Version(self.version.into()) };
        let tentative = self.tentative.map(|image| Tentative {
            batch: nonce(BATCH),
            request: nonce(BATCH),
            image: row(image),
            stale: Vec::new(),
        });
        (self.version > 0).then(|| guard::Guard {
            version: Version(self.version.into()),
            nonce: nonce(self.nonce),
            recent: (0..16).filter(|bit| self.recent & (1 << bit) != 0).map(accepted).collect(),
            before: None,
            image: row(self.image),
            stale: Vec::new(),
            tentative,
        })
    }

    /// The small guard of a proposal. The images are those that were given to the product.
    pub(crate) fn proposed(
        self,
        key: usize,
        made: &guard::Proposal,
        image: Img,
        tentative: Option<Img>,
    ) -> Proposal {
        Proposal {
            key,
            expected: made.expected.map_or(0, |nonce| nonce.0 as u8),
            read_version: self.version,
            guard: Guard {
                version: made.guard.version.0 as u8,
                nonce: made.guard.nonce.0 as u8,
                recent: made.guard.recent.iter().fold(0, |bits, accepted| bits | 1 << accepted.nonce.0),
                image,
                tentative: made.guard.tentative.as_ref().and(tentative),
            },
        }
    }
}

impl Explored for Batches {}

impl Model for Batches {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let guard = Guard { version: 0, nonce: 0, recent: 0, image: FIRST, tentative: None };
        let mut history = Few::new();
        history.push((FIRST, 0));
        vec![State {
            keys: [Key { guard, done: 0, target: (FIRST, 1), history }; 2],
            row: Row::None,
            maker: Maker::Idle,
            placed: [0; 2],
            lapsed: false,
            single: Single::Idle,
            singles: 0,
            helpers: [Helper::Idle; 2],
            deadline_passed: false,
            swept: false,
            held: false,
            over: false,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.maker_actions(state, actions);
        if state.over {
            return;
        }
        self.single_actions(state, actions);
        Self::helper_actions(state, actions);
        self.world_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        let state = &mut next;
        match action {
            Action::Lapse => (state.lapsed, state.swept) = (true, false),
            Action::DeadlinePasses => state.deadline_passed = true,
            Action::RowExpires | Action::RemoveRow => state.row = Row::None,
            Action::Swept => state.swept = true,
            Action::Hold => state.held = true,
            Action::End => Self::end(state),
            Action::SingleStarts | Action::SingleReads | Action::SingleCas | Action::SingleAnswers => {
                self.single(state, action)?;
            }
            Action::HelperReads { .. } | Action::HelperAsks { .. } | Action::HelperActs { .. } => {
                self.help(state, action)?;
            }
            _ => self.make(state, action)?,
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LOST, |_, state: &State| state.wrong != Some(LOST)),
            Property::always(HALF, |_, state: &State| state.wrong != Some(HALF)),
            Property::always("at rest guards and targets hold what was committed", |_, state: &State| {
                let at_rest = Self::complete(state)
                    && state.helpers == [Helper::Idle; 2]
                    && !matches!(state.single, Single::Decided(_))
                    && !matches!(state.maker, Maker::Placed(_) | Maker::Committing)
                    && !state.over;
                let right = |key: &Key| {
                    let last = key.history.iter().next_back().map(|(image, _)| image);
                    let guarded = key.guard.version == 0 || last == Some(key.guard.image);
                    last == Some(key.target.0) && guarded
                };
                !at_rest || state.keys.iter().all(right)
            }),
            Property::always(STUCK, |batches: &Self, state: &State| {
                let done = matches!(state.maker, Maker::Over | Maker::Committed)
                    || state.lapsed && matches!(state.maker, Maker::Placing(_));
                let waits = Self::named(state) && batches.settle(state) == Settle::Wait;
                !(done && waits && state.deadline_passed)
            }),
        ]
    }
}
