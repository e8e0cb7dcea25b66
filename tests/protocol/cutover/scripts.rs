//! What happens before an exploration begins: whole cutovers and writes, without an accident.

use crate::cutover::action::Action::{self, *};

/// A cutover begins, and both gateways acknowledge it.
const HOLD: [Action; 5] = [
    Begin,
    Learn { gateway: 0 },
    Acknowledge { gateway: 0 },
    Learn { gateway: 1 },
    Acknowledge { gateway: 1 },
];

pub(crate) const TO_CASSANDRA: &[Action] = &[
    HOLD[0],
    HOLD[1],
    HOLD[2],
    HOLD[3],
    HOLD[4],
    Advance,
    Advance,
    FenceCapture,
    Advance,
    Learn { gateway: 0 },
    Learn { gateway: 1 },
];

pub(crate) const TO_MYSQL: &[Action] = &[
    SweepBegins,
    SweepReads { sweep: 0 },
    HOLD[0],
    HOLD[1],
    HOLD[2],
    HOLD[3],
    HOLD[4],
    Advance,
    Advance,
    LiftFence,
    CaptureInits,
    CaptureReadsThePhase,
    Learn { gateway: 0 },
    Learn { gateway: 1 },
];

/// A request is written by MySQL, through the first gateway, and is the record at a place of the log.
pub(crate) const fn mysql_write(request: u8, place: usize) -> [Action; 4] {
    [Start { gateway: 0, request }, MysqlCommit { gateway: 0, answered: true }, Publish, Apply { place }]
}

/// A request is written natively, through the first gateway, and reaches MySQL.
pub(crate) const fn native_write(request: u8, place: usize, answered: bool) -> [Action; 10] {
    [
        Start { gateway: 0, request },
        ReadGuard { gateway: 0 },
        Cas { gateway: 0 },
        AskLease { gateway: 0 },
        Effect { gateway: 0, which: 0 },
        Effect { gateway: 0, which: 1 },
        Effect { gateway: 0, which: 2 },
        Finish { gateway: 0, answered },
        Apply { place },
        Reverse,
    ]
}
