//! A state of the world around one key.

use crate::cassandra::Place;
use crate::cutover::bridge::{Guard, Img, PLACES, is_right};
use crate::cutover::record::Record;

pub(crate) const GATEWAYS: usize = 2;
/// All effects of a native write, by bit.
pub(crate) const ALL_EFFECTS: u8 = 0b111;
/// The number of the request that repairs.
pub(crate) const REPAIR: u8 = 7;

/// What a gateway, or a sweep, is doing. `epoch` is that of the record that it acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum Stage {
    #[default]
    Idle,
    /// A client's transaction is open in MySQL.
    Mysql { request: u8 },
    /// The lease was asked, and whether an answer is kept for the request; the guard is to be read.
    Started { request: u8, epoch: u8, answered: bool },
    /// The write is decided: the guard to be set, and the nonce that the CAS compares (0: there is none).
    Decided { request: u8, epoch: u8, guard: Guard, expected: u8, answered: bool },
    /// The CAS was won (`own`), or the guard read is another one's and incomplete. The lease is to be asked.
    ToComplete { request: u8, epoch: u8, guard: Guard, own: bool, answered: bool },
    /// The effects are being made, by bit: record, base target, second target.
    Effects { request: u8, epoch: u8, guard: Guard, own: bool, answered: bool, made: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Gateway {
    /// The record that it acts on.
    pub(crate) view: Record,
    pub(crate) has_lease: bool,
    /// Whether what is under way began before a lapse.
    pub(crate) outlived: bool,
    /// The attempt that it has acknowledged.
    pub(crate) acknowledged: u8,
    pub(crate) stage: Stage,
}

/// A sweep of the guard table. The second one is that of a controller that was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Sweep {
    pub(crate) stage: Stage,
    /// Whether no gateway has lapsed since it began.
    pub(crate) counts: bool,
}

/// What the active controller knows and has not written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Controller {
    pub(crate) swept: bool,
    /// V, once capture is fenced.
    pub(crate) last: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Capture {
    #[default]
    Publishing,
    Stopped,
    /// It has fenced all others, and has not read the phase.
    Inited,
    /// It has read that it may publish, and has not fenced the others, where that rule is broken.
    PhaseRead,
}

/// A row change in MySQL's binlog that is not captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Row {
    pub(crate) before: Img,
    pub(crate) after: Img,
    pub(crate) nonce: u8,
}

/// What is on the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Logged {
    Captured { row: Row, version: u8 },
    Native(Guard),
}

/// A short list that is part of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Few<T, const N: usize> {
    items: [Option<T>; N],
    len: u8,
}

/// A write that has happened, in the order in which the stores decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Written {
    pub(crate) image: Img,
    /// The request; 0 for the row of before.
    pub(crate) nonce: u8,
    pub(crate) epoch: u8,
    pub(crate) version: u8,
}

/// A check of the row, by what it has read so far. It belongs to an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Check {
    #[default]
    Idle,
    /// The guard, or that there is none.
    Guard(Begun),
    /// Of the targets: that the guard's version is done. Of MySQL: the row, where reverse's version is not read in
    /// its snapshot.
    Half { begun: Begun, mysql: Img },
    /// Without a guard: the targets.
    Targets { begun: Begun, places: [Place; PLACES] },
    /// All but the guard again: whether they differ, at which places, the newest writetime there.
    Compared { begun: Begun, kept: u8, differ: bool, places: u8, newest: u8 },
    /// The guard again, too, by its nonce. The epoch is to be asked.
    Again { begun: Begun, kept: u8, differ: bool, places: u8, newest: u8, again: Guard },
    /// It found a mismatch, and a gateway is to repair it.
    Repair { places: u8, newest: u8 },
}

/// What a check read first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Begun {
    pub(crate) kind: Kind,
    pub(crate) epoch: u8,
    pub(crate) guard: Guard,
    /// Whether the corruption was there before.
    pub(crate) after_the_corruption: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Targets,
    Mysql,
    Unguarded,
}

/// What must never happen and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wrong {
    AcknowledgedAndLost,
    TwoAuthorities,
    Twice,
    StaleAnswer,
    FalseAlarm,
    Missed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) record: Record,
    pub(crate) gateways: [Gateway; GATEWAYS],
    pub(crate) sweeps: [Sweep; 2],
    pub(crate) controller: Controller,
    /// The next record of a controller that was replaced, where it is not fenced.
    pub(crate) zombie: Option<Record>,
    pub(crate) mysql: Img,
    /// Reverse's version of the key, in MySQL, and the nonces there.
    pub(crate) kept: u8,
    pub(crate) mysql_nonces: u8,
    pub(crate) read_only: bool,
    pub(crate) binlog: Few<Row, 4>,
    pub(crate) capture: Capture,
    pub(crate) captured: u8,
    pub(crate) log: Few<Logged, 12>,
    pub(crate) applied: u16,
    pub(crate) reversed: u8,
    /// The guard tables of epochs 1 and 3, and what is marked as done in each.
    pub(crate) guards: [Guard; 2],
    pub(crate) done: [u8; 2],
    /// The floors of epochs 1 and 3.
    pub(crate) floors: [u8; 2],
    pub(crate) places: [Place; PLACES],
    /// The nonces whose answers Cassandra keeps.
    pub(crate) answers: u8,
    pub(crate) history: Few<Written, 7>,
    /// The newest write that a client has been told of.
    pub(crate) seen: u8,
    /// The newest write that a client has read from the base target.
    pub(crate) read: u8,
    pub(crate) started: u8,
    pub(crate) answered: u8,
    pub(crate) check: Check,
    pub(crate) corrupted: bool,
    pub(crate) left: Left,
    pub(crate) wrong: Option<Wrong>,
}

/// What is left of the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    pub(crate) retries: u8,
    pub(crate) crashes: u8,
    pub(crate) pauses: u8,
    pub(crate) taken_back: u8,
    pub(crate) sweeps: u8,
    pub(crate) take_overs: u8,
    pub(crate) capture_starts: u8,
    pub(crate) answers: u8,
    pub(crate) checks: u8,
    pub(crate) corruptions: u8,
}

impl<T: Copy, const N: usize> Few<T, N> {
    pub(crate) fn new() -> Self {
        Self { items: [None; N], len: 0 }
    }

    pub(crate) fn push(&mut self, item: T) {
        self.items[self.len as usize] = Some(item);
        self.len += 1;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len as usize == N
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = T> + '_ {
        self.items.iter().flatten().copied()
    }

    pub(crate) fn get(&self, index: usize) -> Option<T> {
        self.items.get(index).copied().flatten()
    }

    pub(crate) fn take_first(&mut self) -> Option<T> {
        let first = self.items[0].take()?;
        self.items.rotate_left(1);
        self.len -= 1;
        Some(first)
    }

    /// Keeps what fits.
    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        let kept: Vec<T> = self.iter().filter(keep).collect();
        *self = Self::new();
        for item in kept {
            self.push(item);
        }
    }
}

impl Logged {
    pub(crate) fn version(self) -> u8 {
        match self {
            Self::Captured { version, .. } => version,
            Self::Native(guard) => guard.version,
        }
    }
}

impl Stage {
    /// The request that a gateway is working on.
    pub(crate) fn request(self) -> Option<u8> {
        match self {
            Self::Idle => None,
            Self::Mysql { request }
            | Self::Started { request, .. }
            | Self::Decided { request, .. }
            | Self::ToComplete { request, .. }
            | Self::Effects { request, .. } => Some(request),
        }
    }
}

impl State {
    /// The newest version that anything on the log or any guard has.
    pub(crate) fn newest_version(&self) -> u8 {
        let logged = self.log.iter().map(Logged::version);
        logged.chain(self.guards.map(|guard| guard.version)).max().unwrap_or(0).max(self.captured)
    }

    /// A write has happened, at the place where the store decided it.
    pub(crate) fn happened(&mut self, image: Img, request: u8, version: u8) {
        let nonce = request + 1;
        if self.history.iter().any(|written| written.nonce == nonce) {
            self.wrong = Some(Wrong::Twice);
            return;
        }
        self.history.push(Written { image, nonce, epoch: self.record.epoch, version });
    }

    /// A client gets the answer that its write has happened.
    pub(crate) fn answer(&mut self, request: u8) {
        self.answered |= 1 << request;
        if request == REPAIR {
            (self.check, self.corrupted) = (Check::Idle, false);
        }
        match self.history.iter().position(|written| written.nonce == request + 1) {
            Some(place) => self.seen = self.seen.max(place as u8),
            None => self.wrong = Some(Wrong::AcknowledgedAndLost),
        }
    }

    /// Whether each target shows the newest write that a client was told of, or a later one, and the base target
    /// nothing older than was read there.
    pub(crate) fn targets_are_current(&self) -> bool {
        let shows = |place: usize, oldest: u8| {
            let mut since = self.history.iter().skip(oldest as usize);
            since.any(|written| is_right(place, written.image, &self.places))
        };
        shows(0, self.seen.max(self.read)) && (1..PLACES).all(|place| shows(place, self.seen))
    }

    pub(crate) fn mysql_is_current(&self) -> bool {
        self.history.iter().skip(self.seen as usize).any(|written| written.image == self.mysql)
    }

    /// The epoch of the newest write that a client was told of: its token's.
    pub(crate) fn seen_epoch(&self) -> u8 {
        self.history.get(self.seen as usize).map_or(0, |written| written.epoch)
    }
}
