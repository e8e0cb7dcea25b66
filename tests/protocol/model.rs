//! Everything that can happen, in any order: MySQL commits in its three moments, capture publishes
//! and crashes, apply writes in any order, a backfill and row checks borrow watermarks, a repair
//! writes, somebody else corrupts a row.
//!
//! Minting, mapping, folding, equality, repair, the choice of a watermark, what covers a position and
//! the verdict of a check are the product's own functions. What the loops do around them (what is
//! asked before what) is written here, and each such rule can be broken by [`Rule`].

use std::collections::BTreeMap;

use stateright::{Model, Property};
use tandem_mapping::fold;
use tandem_model::{
    BinlogPosition, Cut, Gtid, GtidSet, Minter, Mutation, Version, Watermark, Write as ProductWrite,
    newest_borrowable,
};
use tandem_verify::{Verdict, judge};

use crate::cassandra::{Place, Put, Write};
use crate::state::{
    Action, Backfill, Check, Corruption, FIRST, Gateway, Protocol, Record, Rule, State, Transaction,
    transactions,
};
use crate::table::{
    IDS, PLACES, Rows, Small, SmallChange, differing, mutations, placed, places_of, places_of_row,
    read_mutations, repair,
};

const TOPIC: &str = "t";
const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

impl Protocol {
    fn broken(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    /// Capture's batch after the last watermark: so many rows, and the watermark behind them.
    fn capture(&self, state: &mut State, mut rows: usize, whole: bool) {
        let (mut transaction, cut, version) = state.last_mark();
        let last = state.remembered.unwrap_or(version);
        let mut minter = Minter::after(Version(last.into()));
        let mut out = cut.unwrap_or(0);
        while rows > 0 {
            let Transaction { changes, commit_us } = state.binlog[transaction as usize].clone();
            while rows > 0 && (out as usize) < changes.len() {
                let version = match out {
                    0 if self.broken(Rule::NeverBelowTheLast) => {
                        minter = Minter::after(Version(commit_us.into()));
                        minter.last()
                    }
                    0 => minter.first_of_transaction(commit_us.into()),
                    _ if self.broken(Rule::VersionPerChange) => minter.last(),
                    _ => minter.further(),
                };
                state.log.push(Record::Change { of: changes[out as usize], version: version.0 as i16 });
                out += 1;
                rows -= 1;
            }
            if out as usize == changes.len() && (rows > 0 || whole) {
                (transaction, out) = (transaction + 1, 0);
            }
        }
        if whole && out > 0 {
            // All rows of a transaction that was cut are out, and now its end is there as well.
            (transaction, out) = (transaction + 1, 0);
        }
        let clock = state.binlog[..transaction as usize].iter().map(|t| t.commit_us).max().unwrap_or(0);
        let cut = (out > 0).then_some(out);
        self.mark(state, minter, clock, transaction, cut);
    }

    fn mark(&self, state: &mut State, mut minter: Minter, clock: i16, transactions: u8, cut: Option<u8>) {
        let version =
            if self.broken(Rule::WatermarkMints) { minter.last() } else { minter.watermark(clock.into()) };
        state.remembered = None;
        state.log.push(Record::Mark { transactions, cut, version: version.0 as i16 });
    }

    /// The watermark that may be borrowed now: its place in the log and its version.
    fn borrow(&self, state: &State) -> Option<(usize, i16)> {
        let executed =
            if self.broken(Rule::WithinExecuted) { state.binlog.len() as u8 } else { state.executed };
        let marks: Vec<(usize, Watermark)> =
            state.marks().map(|(place, t, cut, v)| (place, self.watermark(t, cut, v))).collect();
        let newest = newest_borrowable(marks.iter().map(|(_, w)| w), &gtids(executed), TOPIC)?;
        let (place, w) = marks.iter().find(|(_, w)| std::ptr::eq(w, newest))?;
        Some((*place, w.version.0 as i16))
    }

    fn watermark(&self, transactions: u8, cut: Option<u8>, version: i16) -> Watermark {
        let gtid = || -> Gtid { format!("{SERVER}:{}", transactions + 1).parse().expect("a GTID") };
        let cut = cut.filter(|_| !self.broken(Rule::CutIsNotBorrowed));
        Watermark {
            source: String::new(),
            gtid_set: gtids(transactions),
            position: position(transactions),
            version: Version(version.into()),
            offsets: BTreeMap::from([(TOPIC.to_owned(), Vec::new())]),
            cut: cut.map(|rows| Cut { gtid: gtid(), rows: rows.into() }),
            clock_us: 0,
        }
    }

    fn changes(&self, of: SmallChange, version: i16) -> Vec<Mutation> {
        let mut out = mutations(of, version);
        if of.before.is_some() && of.after.is_some() {
            if self.broken(Rule::TombstoneForTheOldKey) {
                out.retain(|m| m.write != ProductWrite::DeleteRow);
            }
            if self.broken(Rule::NullWhereItBecameNull) {
                without_nulls(&mut out);
            }
        }
        out
    }

    /// The first watermark that bounds a check from above, if it is on the log: its place.
    fn upper(&self, state: &State, mark: u8, end: u8) -> Option<usize> {
        let Record::Mark { version: lower, .. } = state.log[mark as usize] else { return None };
        state
            .marks()
            .find(|&(place, t, cut, version)| {
                if self.broken(Rule::UpperBoundCoversTheEnd) {
                    return place > mark as usize;
                }
                version > lower && self.watermark(t, cut, version).covers(&position(end))
            })
            .map(|(place, ..)| place)
    }

    fn verdict(&self, state: &State, id: u8, mark: u8, differ: bool, end: u8) -> Option<Verdict> {
        let upper = self.upper(state, mark, end)?;
        let Record::Mark { version: lower, .. } = state.log[mark as usize] else { return None };
        let last_change = state.log[..=upper].iter().filter_map(|record| match record {
            Record::Change { of, version } if of.id == id => Some(Version((*version).into())),
            _ => None,
        });
        let last_change = if self.broken(Rule::NoChangeOfTheKey) { None } else { last_change.max() };
        Some(judge(differ, last_change, Version(lower.into()), Version(0)))
    }

    /// Whether everything up to a watermark is applied.
    fn applied(&self, state: &State, mark: u8) -> bool {
        self.broken(Rule::AppliedBeforeCompared) || state.unapplied().all(|place| place > mark as usize)
    }
}

fn gtids(transactions: u8) -> GtidSet {
    match transactions {
        0 => GtidSet::default(),
        n => format!("{SERVER}:1-{n}").parse().expect("a GTID set"),
    }
}

fn position(transactions: u8) -> BinlogPosition {
    BinlogPosition { file: "binlog.000001".into(), pos: transactions.into() }
}

fn without_nulls(mutations: &mut [Mutation]) {
    for mutation in mutations {
        if let ProductWrite::Upsert(cells) = &mut mutation.write {
            for cell in cells {
                if *cell == tandem_model::Cell::Null {
                    *cell = tandem_model::Cell::Unset;
                }
            }
        }
    }
}

/// The newest mutation of each row, and nothing else of it.
fn newest_alone(mutations: Vec<Mutation>) -> Vec<Mutation> {
    let mut out: Vec<Mutation> = Vec::new();
    for mutation in mutations {
        match out.iter_mut().find(|m| m.target == mutation.target && m.key == mutation.key) {
            Some(known) if known.version <= mutation.version => *known = mutation,
            Some(_) => {}
            None => out.push(mutation),
        }
    }
    out
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            binlog: Vec::new(),
            visible: 0,
            executed: 0,
            log: vec![Record::Mark { transactions: 0, cut: None, version: 1 }],
            remembered: None,
            applied: 0,
            owed: 0,
            cassandra: [Place::default(); PLACES],
            backfill: Backfill::Waiting,
            check: Check::Idle,
            corruption: None,
            gateway: if self.bounds.gateway { Gateway::Idle } else { Gateway::Done },
            idle_left: self.bounds.idle_watermarks,
            checks_left: self.bounds.checks,
            false_alarm: false,
            missed: false,
        }]
        .into_iter()
        .map(|mut state| {
            if !self.bounds.backfill {
                // It has brought the row of before already.
                let first = FIRST[0].expect("there is one");
                state.write(placed(read_mutations(1, first, 1)));
                state.backfill = Backfill::Done;
            }
            state
        })
        .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.binlog.len() < self.bounds.transactions {
            let count = transactions(&state.rows(state.binlog.len())).len();
            let back = self.bounds.clock_steps_back && !state.binlog.is_empty();
            for transaction in 0..count {
                actions.push(Action::Flush { transaction, clock_back: false });
                if back {
                    actions.push(Action::Flush { transaction, clock_back: true });
                }
            }
        }
        if (state.visible as usize) < state.binlog.len() {
            actions.push(Action::Visible);
        }
        if state.executed < state.visible {
            actions.push(Action::Executed);
        }
        let (captured, cut, _) = state.last_mark();
        let mut left = 0;
        for (number, transaction) in state.binlog.iter().enumerate().skip(captured as usize) {
            let out = if number == captured as usize { cut.unwrap_or(0) as usize } else { 0 };
            for row in out + 1..=transaction.changes.len() {
                left += 1;
                if row < transaction.changes.len() {
                    actions.push(Action::Capture { rows: left, whole: false });
                } else {
                    // Between its last row and its end a transaction is still cut.
                    actions.push(Action::Capture { rows: left, whole: false });
                    actions.push(Action::Capture { rows: left, whole: true });
                }
            }
            if out == transaction.changes.len() && out > 0 {
                actions.push(Action::Capture { rows: 0, whole: true });
            }
        }
        if state.idle_left > 0 {
            actions.push(Action::IdleWatermark);
        }
        if self.broken(Rule::LastFromTheWatermark) && state.remembered.is_none() {
            actions.push(Action::Crash);
        }
        let places: Vec<usize> = state.unapplied().collect();
        for &place in &places {
            if self.broken(Rule::AnswerBeforeOffset) {
                actions.push(Action::Acknowledge { place });
            } else {
                actions.push(Action::Apply { from: place, to: place });
            }
        }
        if self.bounds.batches && self.without != Some(Rule::AnswerBeforeOffset) {
            // A batch begins at or below the first record that is not done: those done may come again.
            if let Some(first) = places.first() {
                for from in 0..=*first {
                    for to in (*first).max(from + 1)..state.log.len() {
                        let change = |place: usize| matches!(state.log[place], Record::Change { .. });
                        if change(from) && change(to) {
                            actions.push(Action::Apply { from, to });
                        }
                    }
                }
            }
        }
        if state.owed != 0 {
            actions.extend([Action::WriteOwed, Action::LoseOwed]);
        }
        let read_first = self.broken(Rule::AskedBeforeTheRead);
        match &state.backfill {
            Backfill::Waiting if read_first => actions.push(Action::BackfillRead),
            Backfill::Waiting | Backfill::ReadFirst(_) if self.borrow(state).is_some() => {
                actions.push(Action::BackfillBorrow);
            }
            Backfill::Borrowed { .. } => actions.push(Action::BackfillRead),
            Backfill::Read { left, .. } => {
                let ids = (1..=IDS).filter(|id| left & (1 << id) != 0);
                actions.extend(ids.map(|id| Action::BackfillWrite { id }));
            }
            _ => {}
        }
        match &state.check {
            // Rows are checked once the backfill is applied. One that the log has brought whole may be
            // checked before, and is the same case.
            Check::Idle if state.checks_left > 0 && state.backfill == Backfill::Done => {
                for id in 1..=IDS {
                    if read_first {
                        actions.push(Action::CheckRead { id });
                    } else if self.borrow(state).is_some() {
                        actions.push(Action::CheckBorrow { id });
                    }
                }
            }
            Check::ReadFirst { id, .. } if self.borrow(state).is_some() => {
                actions.push(Action::CheckBorrow { id: *id });
            }
            Check::Borrowed { id, .. } => actions.push(Action::CheckRead { id: *id }),
            Check::Read { mark, .. } if self.applied(state, *mark) => actions.push(Action::CheckCassandra),
            Check::Compared { .. } => actions.push(Action::CheckEnd),
            Check::Ended { id, mark, differ, end, .. }
                if self.verdict(state, *id, *mark, *differ, *end).is_some() =>
            {
                actions.push(Action::CheckVerdict);
            }
            Check::Repair { .. } => actions.push(Action::Repair),
            _ => {}
        }
        match &state.gateway {
            Gateway::Idle if self.broken(Rule::GatewayBorrowsBeforeCommit) => self.client(state, actions),
            Gateway::Idle | Gateway::CommittedFirst { .. } => actions.push(Action::GatewayBorrow),
            Gateway::Borrowed { .. } => self.client(state, actions),
            Gateway::Committed { .. } => actions.extend([Action::GatewayWrite, Action::GatewayLose]),
            Gateway::Done => {}
        }
        if self.bounds.corruption && state.corruption.is_none() && state.backfill == Backfill::Done {
            for id in 1..=IDS {
                for place in places_of(id) {
                    let there = state.cassandra[place].read().is_some();
                    let writes =
                        [Write::Delete, Write::Foreign(0, 3), Write::Upsert([Put::Value(3), Put::Unset])];
                    for write in if there { &writes[..2] } else { &writes[2..] } {
                        actions.push(Action::Corrupt { place, id, write: *write });
                    }
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Flush { transaction, clock_back } => {
                let changes = transactions(&state.rows(state.binlog.len())).swap_remove(transaction);
                let commit_us = if clock_back { 3 } else { 10 * (state.binlog.len() as i16 + 1) };
                state.binlog.push(Transaction { changes, commit_us });
            }
            Action::Visible => state.visible += 1,
            Action::Executed => state.executed += 1,
            Action::Capture { rows, whole } => self.capture(&mut state, rows, whole),
            Action::IdleWatermark => {
                let (transactions, cut, version) = state.last_mark();
                let minter = Minter::after(Version(state.remembered.unwrap_or(version).into()));
                let caught_up = transactions as usize == state.binlog.len();
                let clock = if caught_up { 10 * i16::from(transactions) + 5 } else { 0 };
                self.mark(&mut state, minter, clock, transactions, cut);
                state.idle_left -= 1;
            }
            Action::Crash => state.remembered = Some(0),
            Action::Apply { from, to } => {
                let mut mutations = Vec::new();
                for place in from..=to {
                    if let Record::Change { of, version } = state.log[place] {
                        mutations.extend(self.changes(of, version));
                        state.applied |= 1 << place;
                    }
                }
                let folded = if self.broken(Rule::FoldingKeepsAll) {
                    newest_alone(mutations)
                } else {
                    fold(mutations)
                };
                state.write(placed(folded));
            }
            Action::Acknowledge { place } => {
                state.applied |= 1 << place;
                state.owed |= 1 << place;
            }
            Action::WriteOwed => {
                for place in 0..state.log.len() {
                    if let Record::Change { of, version } = state.log[place]
                        && state.owed & (1 << place) != 0
                    {
                        state.write(placed(self.changes(of, version)));
                    }
                }
                state.owed = 0;
            }
            Action::LoseOwed => state.owed = 0,
            Action::BackfillBorrow => {
                let (_, version) = self.borrow(&state)?;
                state.backfill = match state.backfill {
                    Backfill::ReadFirst(rows) => Backfill::read(version, rows),
                    _ => Backfill::Borrowed { version },
                };
            }
            Action::BackfillRead => {
                let rows = state.rows(state.visible as usize);
                state.backfill = match state.backfill {
                    Backfill::Borrowed { version } => Backfill::read(version, rows),
                    _ => Backfill::ReadFirst(rows),
                };
            }
            Action::BackfillWrite { id } => {
                let Backfill::Read { version, rows, left } = state.backfill.clone() else { return None };
                if let Some(row) = rows[id as usize - 1] {
                    state.write(placed(read_mutations(id, row, version)));
                }
                let left = left & !(1 << id);
                state.backfill =
                    if left == 0 { Backfill::Done } else { Backfill::Read { version, rows, left } };
            }
            Action::CheckBorrow { id } => {
                let mark = self.borrow(&state)?.0 as u8;
                state.check = match state.check {
                    Check::ReadFirst { row, .. } => Check::Read { id, mark, row },
                    _ => {
                        state.checks_left -= 1;
                        Check::Borrowed { id, mark }
                    }
                };
            }
            Action::CheckRead { id } => {
                let row = state.rows(state.visible as usize)[id as usize - 1];
                state.check = match state.check {
                    Check::Borrowed { mark, .. } => Check::Read { id, mark, row },
                    _ => {
                        state.checks_left -= 1;
                        Check::ReadFirst { id, row }
                    }
                };
            }
            Action::CheckCassandra => {
                let Check::Read { id, mark, row } = state.check else { return None };
                let (differ, extra) = differing(id, row, &state.cassandra);
                state.check = Check::Compared { id, mark, row, differ, extra };
            }
            Action::CheckEnd => {
                let Check::Compared { id, mark, row, differ, extra } = state.check else { return None };
                state.check = Check::Ended { id, mark, row, differ, extra, end: state.binlog.len() as u8 };
            }
            Action::CheckVerdict => {
                let Check::Ended { id, mark, row, differ, extra, end } = state.check.clone() else {
                    return None;
                };
                state.check = Check::Idle;
                match self.verdict(&state, id, mark, differ, end)? {
                    Verdict::Mismatch => {
                        state.false_alarm = state.corruption.is_none_or(|c| c.id != id);
                        state.check = Check::Repair { id, mark, row, extra };
                    }
                    Verdict::Match | Verdict::Undecided => {
                        // A row that is wrong and that nobody has changed since must not pass.
                        let quiet = state.at_rest() && state.unchanged_since(id, mark);
                        let corrupt = state.corruption.is_some_and(|c| c.id == id && !c.mended);
                        state.missed = quiet && corrupt && differ;
                    }
                }
            }
            Action::Repair => {
                let Check::Repair { id, mark, row, extra } = state.check.clone() else { return None };
                let place = if self.broken(Rule::RepairAtTheLowerBound) {
                    state.marks().next_back()?.0
                } else {
                    mark as usize
                };
                let Record::Mark { version, .. } = state.log[place] else { return None };
                let mut mutations = repair(id, row, &extra, version);
                if self.broken(Rule::RepairWritesNulls) {
                    without_nulls(&mut mutations);
                }
                state.write(placed(mutations));
                if let Some(corruption) = &mut state.corruption {
                    corruption.mended |= corruption.id == id && place >= corruption.log as usize;
                }
                state.check = Check::Idle;
            }
            Action::GatewayBorrow => {
                // The row's lock orders it: neither `gtid_executed` nor a cut matters to a gateway.
                let (.., version) = state.last_mark();
                state.gateway = match state.gateway {
                    Gateway::CommittedFirst { change } => Gateway::Committed { version, change },
                    _ => Gateway::Borrowed { version, seen: state.rows(state.visible as usize) },
                };
            }
            Action::GatewayCommit { transaction } => {
                let change = transactions(&state.rows(state.binlog.len())).swap_remove(transaction).remove(0);
                let commit_us = 10 * (state.binlog.len() as i16 + 1);
                state.binlog.push(Transaction { changes: vec![change], commit_us });
                state.gateway = match state.gateway {
                    Gateway::Borrowed { version, seen } => {
                        Gateway::Committed { version, change: self.written(change, &seen) }
                    }
                    _ => Gateway::CommittedFirst { change },
                };
            }
            Action::GatewayFail { transaction } => {
                let change = transactions(&state.rows(state.binlog.len())).swap_remove(transaction).remove(0);
                state.gateway = match state.gateway {
                    Gateway::Borrowed { version, .. }
                        if self.broken(Rule::GatewayWritesOnlyWhatIsCommitted) =>
                    {
                        Gateway::Committed { version, change }
                    }
                    _ => Gateway::Done,
                };
            }
            Action::GatewayWrite => {
                let Gateway::Committed { version, change } = state.gateway else { return None };
                let mut gone = places_of_row(change.id, change.before);
                gone.retain(|place| !places_of_row(change.id, change.after).contains(place));
                state.write(placed(repair(change.id, change.after, &gone, version)));
                state.gateway = Gateway::Done;
            }
            Action::GatewayLose => state.gateway = Gateway::Done,
            Action::Corrupt { place, id, write } => {
                // By the clock that every writer follows: at the newest change, the hardest to beat.
                let newest = state.log.iter().map(|r| match r {
                    Record::Change { version, .. } | Record::Mark { version, .. } => *version,
                });
                let at = newest.max()?;
                state.cassandra[place].apply(at, write);
                state.corruption = Some(Corruption { id, log: state.log.len() as u8, mended: false });
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at rest both stores are equal", |_, state: &State| {
                !state.at_rest() || state.corruption.is_some_and(|c| !c.mended) || state.equal()
            }),
            Property::always("nothing is called wrong that nobody corrupted", |_, state: &State| {
                !state.false_alarm
            }),
            Property::always("nothing corrupt and quiet is called right", |_, state: &State| !state.missed),
        ]
    }
}

impl Protocol {
    /// What a client may do next: a transaction of one row change, which may fail.
    fn client(&self, state: &State, actions: &mut Vec<Action>) {
        if state.binlog.len() >= self.bounds.transactions {
            return;
        }
        let next = transactions(&state.rows(state.binlog.len()));
        for (transaction, _) in next.iter().enumerate().filter(|(_, changes)| changes.len() == 1) {
            actions.push(Action::GatewayCommit { transaction });
            actions.push(Action::GatewayFail { transaction });
        }
    }

    /// What a gateway writes of a change: the image that it read back under the row's lock. Where that
    /// rule is broken, what the client has last seen, with what the client has changed of it.
    fn written(&self, change: SmallChange, seen: &Rows) -> SmallChange {
        let (Some(before), Some(after), Some(seen)) =
            (change.before, change.after, seen[change.id as usize - 1])
        else {
            return change;
        };
        if !self.broken(Rule::GatewayWritesTheImageReadBack) {
            return change;
        }
        let k = if before.k == after.k { seen.k } else { after.k };
        let a = if before.a == after.a { seen.a } else { after.a };
        SmallChange { after: Some(Small { k, a }), ..change }
    }
}
