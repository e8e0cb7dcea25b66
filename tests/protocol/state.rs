//! What the model's world consists of: its rules and bounds, a state, and what can happen next.

use crate::cassandra::{Place, Write};
use crate::table::{IDS, PLACES, Placed, Rows, Small, SmallChange, differing};

/// A rule of the protocol, to be broken. The numbers are those of the list in `docs/protocol.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    VersionPerChange,
    NeverBelowTheLast,
    LastFromTheWatermark,
    WatermarkMints,
    WithinExecuted,
    AskedBeforeTheRead,
    CutIsNotBorrowed,
    NullWhereItBecameNull,
    TombstoneForTheOldKey,
    FoldingKeepsAll,
    AnswerBeforeOffset,
    AppliedBeforeCompared,
    UpperBoundCoversTheEnd,
    NoChangeOfTheKey,
    RepairAtTheLowerBound,
    RepairWritesNulls,
    GatewayBorrowsBeforeCommit,
    GatewayWritesTheImageReadBack,
    GatewayWritesOnlyWhatIsCommitted,
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
    /// Checks of a row, one after the other.
    pub(crate) checks: u8,
    pub(crate) backfill: bool,
    pub(crate) corruption: bool,
    /// Whether a gateway makes one of the transactions, and writes it to Cassandra itself.
    pub(crate) gateway: bool,
    /// Whether apply may fold, and write records again.
    pub(crate) batches: bool,
}

/// The protocol within bounds, perhaps with a rule broken.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) bounds: Bounds,
    pub(crate) without: Option<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Transaction {
    pub(crate) changes: Vec<SmallChange>,
    pub(crate) commit_us: i16,
}

/// What is on the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Record {
    Change {
        of: SmallChange,
        version: i16,
    },
    /// All rows of so many transactions are out, and so many of the next one where it is cut.
    Mark {
        transactions: u8,
        cut: Option<u8>,
        version: i16,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Backfill {
    Waiting,
    /// What it read before it borrowed, where that rule is broken.
    ReadFirst(Rows),
    Borrowed {
        version: i16,
    },
    Read {
        version: i16,
        rows: Rows,
        left: u8,
    },
    Done,
}

/// A check of one row. `mark` is W₁'s place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Check {
    Idle,
    /// What it read before it borrowed, where that rule is broken.
    ReadFirst {
        id: u8,
        row: Option<Small>,
    },
    Borrowed {
        id: u8,
        mark: u8,
    },
    Read {
        id: u8,
        mark: u8,
        row: Option<Small>,
    },
    Compared {
        id: u8,
        mark: u8,
        row: Option<Small>,
        differ: bool,
        extra: Vec<usize>,
    },
    Ended {
        id: u8,
        mark: u8,
        row: Option<Small>,
        differ: bool,
        extra: Vec<usize>,
        end: u8,
    },
    Repair {
        id: u8,
        mark: u8,
        row: Option<Small>,
        extra: Vec<usize>,
    },
}

/// A dual write: a client's transaction of one row change, written to Cassandra ahead of the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Gateway {
    Idle,
    /// The version borrowed, and the table as the client has last seen it.
    Borrowed {
        version: i16,
        seen: Rows,
    },
    /// Committed before it borrowed, where that rule is broken.
    CommittedFirst {
        change: SmallChange,
    },
    Committed {
        version: i16,
        change: SmallChange,
    },
    Done,
}

/// Somebody else's write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Corruption {
    pub(crate) id: u8,
    /// How long the log was.
    pub(crate) log: u8,
    /// A repair by a watermark from after it has been written.
    pub(crate) mended: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// In the binlog, in its order.
    pub(crate) binlog: Vec<Transaction>,
    /// How many of them SELECT shows, and how many are in `gtid_executed`.
    pub(crate) visible: u8,
    pub(crate) executed: u8,
    pub(crate) log: Vec<Record>,
    /// Capture's last version, where it does not take it from the watermark.
    pub(crate) remembered: Option<i16>,
    /// The records whose writes Cassandra has acknowledged; bit by place in the log.
    pub(crate) applied: u64,
    /// The records whose offsets were committed without a write, where that rule is broken.
    pub(crate) owed: u64,
    pub(crate) cassandra: [Place; PLACES],
    pub(crate) backfill: Backfill,
    pub(crate) check: Check,
    pub(crate) corruption: Option<Corruption>,
    pub(crate) gateway: Gateway,
    pub(crate) idle_left: u8,
    pub(crate) checks_left: u8,
    pub(crate) false_alarm: bool,
    pub(crate) missed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A transaction is flushed to the binlog.
    Flush {
        transaction: usize,
        clock_back: bool,
    },
    Visible,
    Executed,
    /// Capture publishes so many row changes; `whole` is whether it has also seen the end of the
    /// transaction that the last of them belongs to.
    Capture {
        rows: usize,
        whole: bool,
    },
    IdleWatermark,
    Crash,
    /// Apply writes the records from one place to another, folded.
    Apply {
        from: usize,
        to: usize,
    },
    /// Offsets are committed, the write comes later or never.
    Acknowledge {
        place: usize,
    },
    WriteOwed,
    LoseOwed,
    BackfillBorrow,
    BackfillRead,
    BackfillWrite {
        id: u8,
    },
    CheckBorrow {
        id: u8,
    },
    CheckRead {
        id: u8,
    },
    CheckCassandra,
    CheckEnd,
    CheckVerdict,
    Repair,
    Corrupt {
        place: usize,
        id: u8,
        write: Write,
    },
    GatewayBorrow,
    /// The client's transaction is in the binlog.
    GatewayCommit {
        transaction: usize,
    },
    /// The COMMIT failed.
    GatewayFail {
        transaction: usize,
    },
    GatewayWrite,
    /// The write to Cassandra failed, or the COMMIT's outcome is not known.
    GatewayLose,
}

/// The rows before the log begins: one that only the backfill can bring.
pub(crate) const FIRST: Rows = [Some(Small { k: 0, a: Some(1) }), None];

impl State {
    pub(crate) fn rows(&self, transactions: usize) -> Rows {
        let mut rows = FIRST;
        for change in self.binlog[..transactions].iter().flat_map(|t| &t.changes) {
            rows[change.id as usize - 1] = change.after;
        }
        rows
    }

    pub(crate) fn last_mark(&self) -> (u8, Option<u8>, i16) {
        self.marks().next_back().map(|(_, t, c, v)| (t, c, v)).expect("the log begins with a watermark")
    }

    pub(crate) fn marks(&self) -> impl DoubleEndedIterator<Item = (usize, u8, Option<u8>, i16)> {
        self.log.iter().enumerate().filter_map(|(place, record)| match *record {
            Record::Mark { transactions, cut, version } => Some((place, transactions, cut, version)),
            Record::Change { .. } => None,
        })
    }

    pub(crate) fn unapplied(&self) -> impl Iterator<Item = usize> {
        let changes = self.log.iter().enumerate().filter(|(_, r)| matches!(r, Record::Change { .. }));
        changes.map(|(place, _)| place).filter(|place| self.applied & (1 << place) == 0)
    }

    /// Nothing is under way, and nothing is left to do.
    pub(crate) fn at_rest(&self) -> bool {
        let all = self.binlog.len() as u8;
        let (captured, cut, _) = self.last_mark();
        self.executed == all
            && captured == all
            && cut.is_none()
            && self.owed == 0
            && self.unapplied().next().is_none()
            && self.backfill == Backfill::Done
            && self.check == Check::Idle
            && matches!(self.gateway, Gateway::Idle | Gateway::Done)
    }

    pub(crate) fn equal(&self) -> bool {
        let rows = self.rows(self.binlog.len());
        (1..=IDS).all(|id| !differing(id, rows[id as usize - 1], &self.cassandra).0)
    }

    pub(crate) fn unchanged_since(&self, id: u8, mark: u8) -> bool {
        let later = &self.log[mark as usize..];
        !later.iter().any(|r| matches!(r, Record::Change { of, .. } if of.id == id))
    }

    pub(crate) fn write(&mut self, writes: Vec<Placed>) {
        for (place, at, write) in writes {
            self.cassandra[place].apply(at, write);
        }
    }
}

/// The transactions that can come next.
pub(crate) fn transactions(rows: &Rows) -> Vec<Vec<SmallChange>> {
    let mut all = Vec::new();
    for id in 1..=IDS {
        let change = |before, after| SmallChange { id, before, after };
        match rows[id as usize - 1] {
            Some(row) => {
                let old = Some(row);
                if row.a.is_some() {
                    all.push(vec![change(old, Some(Small { a: None, ..row }))]);
                }
                let two = Some(Small { a: Some(2), ..row });
                if two != old {
                    all.push(vec![change(old, two)]);
                    // A value that comes and goes within one transaction.
                    all.push(vec![change(old, two), change(two, Some(Small { a: None, ..row }))]);
                }
                all.push(vec![change(old, Some(Small { k: 1 - row.k, ..row }))]);
                all.push(vec![change(old, None)]);
                // REPLACE.
                all.push(vec![change(old, None), change(None, Some(Small { a: None, ..row }))]);
            }
            None => {
                all.push(vec![change(None, Some(Small { k: 0, a: Some(1) }))]);
                all.push(vec![change(None, Some(Small { k: 1, a: None }))]);
            }
        }
    }
    let gone = |id, row| SmallChange { id, before: row, after: None };
    let come = |id, row| SmallChange { id, before: None, after: row };
    match *rows {
        [one @ Some(_), None] => all.push(vec![gone(1, one), come(2, one)]),
        [None, two @ Some(_)] => all.push(vec![gone(2, two), come(1, two)]),
        [one @ Some(_), two @ Some(_)] => {
            all.push(vec![gone(1, one), gone(2, two), come(1, two), come(2, one)]);
        }
        [None, None] => {}
    }
    all
}

impl Backfill {
    pub(crate) fn read(version: i16, rows: Rows) -> Self {
        Self::Read { version, rows, left: 0b110 }
    }
}
