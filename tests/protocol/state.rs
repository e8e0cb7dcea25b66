//! A state of the model's world, and what can happen next.

use crate::cassandra::{Place, Write};
use crate::table::{IDS, PLACES, Placed, Rows, Small, SmallChange, differing};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Transaction {
    pub(crate) changes: Vec<SmallChange>,
    /// Or the DDL statement that it is.
    pub(crate) ddl: Option<Ddl>,
    pub(crate) commit_us: i16,
}

/// `DROP COLUMN a, ADD COLUMN a … DEFAULT`: every row's `a` changes, and no row change says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ddl {
    pub(crate) default: Option<u8>,
}

/// What is on the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Record {
    Change {
        of: SmallChange,
        version: i16,
    },
    Ddl {
        version: i16,
    },
    /// All rows of so many transactions are out, and so many of the next one where it is cut.
    Mark {
        transactions: u8,
        partial: Option<u8>,
        version: i16,
    },
}

/// A copy of the whole table at a borrowed watermark: the backfill, or a re-snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Copying {
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

/// A change that apply could not write and has put aside, and its retry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Aside {
    Nothing,
    Waiting { place: u8 },
    Borrowed { place: u8, version: i16 },
    Read { place: u8, version: i16, row: Option<Small> },
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

/// A dual write: a client's transaction, written to Cassandra ahead of the log.
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
        changes: Vec<SmallChange>,
        token: u8,
    },
    /// `writes` are the rows still to be written; `token` is the transaction's number, from 1, or 0
    /// where the COMMIT failed.
    Committed {
        writes: Vec<Vec<Placed>>,
        token: u8,
    },
    /// The client has its answer; no token where nothing was committed.
    Done {
        token: u8,
    },
}

/// The row put aside when a read with a token asked for it, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Asked(pub(crate) Option<u8>);

/// Somebody else's write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Corruption {
    pub(crate) id: u8,
    /// How long the log was.
    pub(crate) log: u8,
    /// A repair by a watermark from after it has been written.
    pub(crate) mended: bool,
}

/// What must never happen and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wrong {
    FalseAlarm,
    Missed,
    WentBack,
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
    /// Where capture goes on, where it does not take that from the watermark.
    pub(crate) ahead: Option<(u8, Option<u8>)>,
    /// The records whose writes Cassandra has acknowledged; bit by place in the log.
    pub(crate) applied: u64,
    /// The records whose offsets were committed without a write, where that rule is broken.
    pub(crate) owed: u64,
    pub(crate) cassandra: [Place; PLACES],
    pub(crate) backfill: Copying,
    pub(crate) resnapshot: Copying,
    /// The place of the watermark that the re-snapshot borrowed.
    pub(crate) resnapshotted: u8,
    pub(crate) aside: Aside,
    pub(crate) checks: Vec<Check>,
    pub(crate) corruption: Option<Corruption>,
    pub(crate) gateways: Vec<Gateway>,
    /// The row put aside as a read knows it that asked before it waited for its token, where that rule is broken.
    pub(crate) asked: Option<Asked>,
    pub(crate) idle_left: u8,
    pub(crate) checks_left: u8,
    pub(crate) dead_letters_left: u8,
    pub(crate) wrong: Option<Wrong>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A transaction is flushed to the binlog.
    Flush {
        transaction: usize,
        clock_back: bool,
    },
    /// So is an ALTER TABLE that changes values.
    Alter(Ddl),
    Visible,
    Executed,
    /// Capture publishes so many row changes; `whole` is whether it has also seen the end of the
    /// transaction that the last of them belongs to.
    Capture {
        rows: usize,
        whole: bool,
    },
    /// It was about to, and the Kafka transaction is aborted.
    Abort {
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
    /// Apply cannot write a change, and puts it aside.
    PutAside {
        place: usize,
    },
    RetryBorrow,
    RetryRead,
    RetryWrite,
    BackfillBorrow,
    BackfillRead,
    BackfillWrite {
        id: u8,
    },
    ResnapshotBorrow,
    ResnapshotRead,
    ResnapshotWrite {
        id: u8,
    },
    CheckBorrow {
        check: usize,
        id: u8,
    },
    CheckRead {
        check: usize,
        id: u8,
    },
    CheckCassandra {
        check: usize,
    },
    CheckEnd {
        check: usize,
    },
    CheckVerdict {
        check: usize,
    },
    Repair {
        check: usize,
    },
    Corrupt {
        place: usize,
        id: u8,
        write: Write,
    },
    GatewayBorrow {
        gateway: usize,
    },
    /// The client's transaction is in the binlog.
    GatewayCommit {
        gateway: usize,
        transaction: usize,
    },
    /// The COMMIT failed.
    GatewayFail {
        gateway: usize,
        transaction: usize,
    },
    /// One of its rows is written to Cassandra.
    GatewayWrite {
        gateway: usize,
        row: usize,
    },
    /// The writes left fail, or the COMMIT's outcome is not known.
    GatewayLose {
        gateway: usize,
    },
    /// A read with a token asks what is put aside, before it waits.
    ReadAsks,
}

/// The rows before the log begins: one that only the backfill can bring.
pub(crate) const FIRST: Rows = [Some(Small { k: 0, a: Some(1) }), None];

impl Transaction {
    /// How many records capture makes of it.
    pub(crate) fn records(&self) -> usize {
        self.changes.len() + usize::from(self.ddl.is_some())
    }

    fn run(&self, rows: &mut Rows) {
        for change in &self.changes {
            rows[change.id as usize - 1] = change.after;
        }
        if let Some(ddl) = self.ddl {
            rows.iter_mut().flatten().for_each(|row| row.a = ddl.default);
        }
    }
}

impl Gateway {
    /// The number of the transaction that its client has committed, from 1.
    pub(crate) fn token(&self) -> Option<u8> {
        match *self {
            Self::CommittedFirst { token, .. } | Self::Committed { token, .. } | Self::Done { token } => {
                (token > 0).then_some(token)
            }
            Self::Idle | Self::Borrowed { .. } => None,
        }
    }
}

impl State {
    pub(crate) fn rows(&self, transactions: usize) -> Rows {
        let mut rows = FIRST;
        self.binlog[..transactions].iter().for_each(|t| t.run(&mut rows));
        rows
    }

    /// A row as it was after each of its changes from a transaction on, that one's included.
    pub(crate) fn row_since(&self, id: u8, transaction: u8) -> Vec<Option<Small>> {
        let number = transaction as usize;
        let mut rows = self.rows(number);
        let mut states = vec![rows[id as usize - 1]];
        for later in &self.binlog[number..] {
            for change in later.changes.iter().filter(|c| c.id == id) {
                states.push(change.after);
            }
            later.run(&mut rows);
            states.push(rows[id as usize - 1]);
        }
        states
    }

    pub(crate) fn last_mark(&self) -> (u8, Option<u8>, i16) {
        self.marks().next_back().map(|(_, t, c, v)| (t, c, v)).expect("the log begins with a watermark")
    }

    pub(crate) fn marks(&self) -> impl DoubleEndedIterator<Item = (usize, u8, Option<u8>, i16)> {
        self.log.iter().enumerate().filter_map(|(place, record)| match *record {
            Record::Mark { transactions, partial, version } => Some((place, transactions, partial, version)),
            Record::Change { .. } | Record::Ddl { .. } => None,
        })
    }

    /// Where capture goes on: so many transactions are out, and so many rows of the next.
    pub(crate) fn captured(&self) -> (u8, Option<u8>) {
        let (transactions, partial, _) = self.last_mark();
        self.ahead.unwrap_or((transactions, partial))
    }

    pub(crate) fn unapplied(&self) -> impl Iterator<Item = usize> {
        let changes = self.log.iter().enumerate().filter(|(_, r)| matches!(r, Record::Change { .. }));
        changes.map(|(place, _)| place).filter(|place| self.applied & (1 << place) == 0)
    }

    /// The change at a place of the log.
    pub(crate) fn change_at(&self, place: u8) -> (SmallChange, i16) {
        match self.log[place as usize] {
            Record::Change { of, version } => (of, version),
            _ => unreachable!("only changes are put aside"),
        }
    }

    /// The change that is put aside.
    pub(crate) fn put_aside(&self) -> Option<SmallChange> {
        match self.aside {
            Aside::Nothing => None,
            Aside::Waiting { place } | Aside::Borrowed { place, .. } | Aside::Read { place, .. } => {
                Some(self.change_at(place).0)
            }
        }
    }

    /// Whether values changed that no row change tells of, and no resnapshot has brought them yet.
    pub(crate) fn resnapshot_is_due(&self) -> bool {
        let ddl = self.log.iter().rposition(|r| matches!(r, Record::Ddl { .. }));
        ddl.is_some_and(|place| self.resnapshotted as usize <= place || self.resnapshot != Copying::Done)
    }

    /// Nothing is under way, and nothing is left to do.
    pub(crate) fn at_rest(&self) -> bool {
        let all = self.binlog.len() as u8;
        let (captured, partial) = self.captured();
        self.executed == all
            && captured == all
            && partial.is_none()
            && self.owed == 0
            && self.unapplied().next().is_none()
            && self.backfill == Copying::Done
            && !self.resnapshot_is_due()
            && self.aside == Aside::Nothing
            && self.checks.iter().all(|c| *c == Check::Idle)
            && self.gateways.iter().all(|g| matches!(g, Gateway::Idle | Gateway::Done { .. }))
    }

    pub(crate) fn equal(&self) -> bool {
        let rows = self.rows(self.binlog.len());
        (1..=IDS).all(|id| !differing(id, rows[id as usize - 1], &self.cassandra).0)
    }

    pub(crate) fn unchanged_since(&self, id: u8, mark: u8) -> bool {
        let later = &self.log[mark as usize..];
        !later.iter().any(|r| match r {
            Record::Change { of, .. } => of.id == id,
            Record::Ddl { .. } => true,
            Record::Mark { .. } => false,
        })
    }

    pub(crate) fn write(&mut self, writes: Vec<Placed>) {
        for (place, at, write) in writes {
            let before = self.cassandra[place].versions();
            self.cassandra[place].apply(at, write);
            let after = self.cassandra[place].versions();
            if before.iter().zip(after).any(|(before, after)| after < *before) {
                self.wrong = Some(Wrong::WentBack);
            }
        }
    }
}

impl Copying {
    pub(crate) fn read(version: i16, rows: Rows) -> Self {
        Self::Read { version, rows, left: 0b110 }
    }
}
