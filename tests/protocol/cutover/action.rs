//! What can happen next.

use crate::cassandra::Write;
use crate::cutover::state::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A request arrives at a gateway: for the first time, or again.
    Start {
        gateway: usize,
        request: u8,
    },
    /// MySQL commits its transaction, or finds its nonce. The answer may be lost.
    MysqlCommit {
        gateway: usize,
        answered: bool,
    },
    /// The gateway lets go of a request that it began under an older lease.
    GiveUp {
        gateway: usize,
    },
    ReadGuard {
        gateway: usize,
    },
    Cas {
        gateway: usize,
    },
    /// The lease is asked between the CAS's answer, or the reading of an incomplete guard, and the effects.
    AskLease {
        gateway: usize,
    },
    /// One of the effects: the record (0), the base target (1), the second target (2).
    Effect {
        gateway: usize,
        which: u8,
    },
    /// The version is marked as done, and the client gets its answer, or it is lost.
    Finish {
        gateway: usize,
        answered: bool,
    },
    /// The version is marked as done, where that does not wait for all effects.
    MarkDone {
        gateway: usize,
    },
    /// The client gets its answer, where that does not wait for the targets.
    AnswerEarly {
        gateway: usize,
    },
    /// An answer that rests on the guard: 404, 409, 412.
    AnswerFromGuard {
        gateway: usize,
    },
    /// A client reads the row, and remembers what it saw.
    Read {
        gateway: usize,
    },
    /// The gateway reads the control topic to its end, with a lease or for a new one.
    Learn {
        gateway: usize,
    },
    Renew {
        gateway: usize,
    },
    Acknowledge {
        gateway: usize,
    },
    /// A gateway's lease lapses; it pauses, or is gone with what was under way.
    Pause {
        gateway: usize,
    },
    Crash {
        gateway: usize,
    },
    /// A gateway begins writing although no record says so.
    ReleaseItself {
        gateway: usize,
    },
    /// The controller writes the first record of a cutover, the next one, or that it is taken back.
    Begin,
    Advance,
    TakeBack,
    /// Capture's transactional id is fenced, and V is read.
    FenceCapture,
    LiftFence,
    /// Another controller takes over; the record that the old one was about to write.
    TakeOver,
    ZombieWrites,
    SweepBegins,
    SweepReads {
        sweep: usize,
    },
    SweepAsks {
        sweep: usize,
    },
    SweepEffect {
        sweep: usize,
        which: u8,
    },
    SweepFinishes {
        sweep: usize,
    },
    /// Capture publishes the next row change.
    Publish,
    CaptureStarts,
    CaptureInits,
    CaptureReadsThePhase,
    Apply {
        place: usize,
    },
    Reverse,
    /// A check reads the guard; what is next; the guard again; the epoch, and gives its verdict.
    CheckBegins(Kind),
    CheckReads,
    CheckReadsTheGuardAgain,
    CheckEnds,
    /// A gateway begins the native write that changes nothing.
    Repair {
        gateway: usize,
    },
    /// Somebody else writes to a target, at a timestamp.
    Corrupt {
        place: usize,
        write: Write,
        at: u8,
    },
}
