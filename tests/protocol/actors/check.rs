//! Row checks, their verdict, and repair; and the corruptions that they are there to find.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use tandem_model::{CapturedTables, PartialTransaction, Version, Watermark};
use tandem_protocol::row_check::{Evidence, Verdict, judge};
use tandem_protocol::watermark::{applied_in, covers, newest_borrowable};

use crate::actors::apply::without_nulls;
use crate::capture_log::{gtid, gtids, position};
use crate::cassandra::{Put, Write};
use crate::protocol::{Protocol, Rule};
use crate::state::{Action, Check, Copying, Corruption, Record, State, Wrong};
use crate::table::{IDS, SmallChange, definition, differing, placed, places_of, repair};

const TOPIC: &str = "t";

impl Check {
    /// The row that it is about.
    pub(crate) fn id(&self) -> Option<u8> {
        match *self {
            Self::Idle => None,
            Self::ReadFirst { id, .. }
            | Self::Borrowed { id, .. }
            | Self::Read { id, .. }
            | Self::Compared { id, .. }
            | Self::Ended { id, .. }
            | Self::Repair { id, .. } => Some(id),
        }
    }
}

/// The table of the model, captured from the beginning.
fn captured() -> Arc<CapturedTables> {
    static TABLES: OnceLock<Arc<CapturedTables>> = OnceLock::new();
    let tables = TABLES.get_or_init(|| {
        let captured = [(definition().name.clone(), TOPIC.into())].into();
        Arc::new(CapturedTables { captured, ..CapturedTables::default() })
    });
    Arc::clone(tables)
}

impl Protocol {
    /// The watermark that may be borrowed now: its place in the log and its version.
    pub(crate) fn borrow(&self, state: &State) -> Option<(usize, i16)> {
        let executed =
            if self.broken(Rule::WithinExecuted) { state.binlog.len() as u8 } else { state.executed };
        let marks: Vec<(usize, Watermark)> = state
            .marks()
            .map(|(place, t, partial, v)| (place, self.watermark(place, t, partial, v)))
            .collect();
        let newest = newest_borrowable(
            marks.iter().map(|(_, w)| w),
            &gtids(executed),
            &definition().name,
            TOPIC,
            Version(i64::MIN),
        )?;
        let (place, w) = marks.iter().find(|(_, w)| std::ptr::eq(w, newest))?;
        Some((*place, w.version.0 as i16))
    }

    fn watermark(&self, place: usize, transactions: u8, partial: Option<u8>, version: i16) -> Watermark {
        let partial = partial.filter(|_| !self.broken(Rule::PartialIsNotBorrowed));
        Watermark {
            source: String::new(),
            gtid_set: gtids(transactions),
            position: position(transactions),
            version: Version(version.into()),
            tables: captured(),
            offsets: BTreeMap::from([(TOPIC.to_owned(), vec![place as i64])]),
            partial: partial
                .map(|rows| PartialTransaction { gtid: gtid(transactions + 1), rows: rows.into() }),
            clock_us: 0,
        }
    }

    /// The first watermark that bounds a check from above, if it is on the log: its place.
    fn upper(&self, state: &State, mark: u8, end: u8) -> Option<usize> {
        let Record::Mark { version: lower, .. } = state.log[mark as usize] else { return None };
        state
            .marks()
            .find(|&(place, t, partial, version)| {
                if self.broken(Rule::UpperBoundCoversTheEnd) {
                    return place > mark as usize;
                }
                version > lower && covers(&self.watermark(place, t, partial, version), &position(end))
            })
            .map(|(place, ..)| place)
    }

    fn verdict(&self, state: &State, id: u8, mark: u8, differ: bool, end: u8) -> Option<Verdict> {
        let upper = self.upper(state, mark, end)?;
        let Record::Mark { version: lower, .. } = state.log[mark as usize] else { return None };
        let last_change = (0..=upper).filter_map(|place| match state.log[place] {
            Record::Change { of, version } if of.id == id => {
                let seen = !self.broken(Rule::KeyChangeIsTwo) || !moves_away(state, place, of);
                seen.then_some(Version(version.into()))
            }
            Record::Ddl { version } if !self.broken(Rule::ResnapshotBeforeChecks) => {
                Some(Version(version.into()))
            }
            _ => None,
        });
        let last_change = if self.broken(Rule::NoChangeOfTheKey) { None } else { last_change.max() };
        let evidence = Evidence {
            last_change,
            lower: Version(lower.into()),
            floor: Version(0),
            put_aside: !self.is_checked(state, id),
            // A retry ends the checks of its key that are under way.
            settled: false,
        };
        Some(judge(differ, evidence))
    }

    /// Whether everything up to a watermark is applied.
    pub(crate) fn applied(&self, state: &State, mark: u8) -> bool {
        let Record::Mark { transactions, partial, version } = state.log[mark as usize] else { return false };
        let committed = state.unapplied().next().unwrap_or(state.log.len()) as i64;
        let mark = self.watermark(mark as usize, transactions, partial, version);
        applied_in(&mark, TOPIC, |_| Some(committed))
    }

    pub(crate) fn check_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let read_first = self.broken(Rule::AskedBeforeTheRead);
        for (check, now) in state.checks.iter().enumerate() {
            match now {
                // Rows are checked once they are copied. One that the log has brought whole may be
                // checked before, and is the same case.
                Check::Idle if state.checks_left > 0 && self.may_be_checked(state) => {
                    for id in (1..=IDS).filter(|&id| self.is_checked(state, id)) {
                        if read_first {
                            actions.push(Action::CheckRead { check, id });
                        } else if self.borrow(state).is_some() {
                            actions.push(Action::CheckBorrow { check, id });
                        }
                    }
                }
                Check::ReadFirst { id, .. } if self.borrow(state).is_some() => {
                    actions.push(Action::CheckBorrow { check, id: *id });
                }
                Check::Borrowed { id, .. } => actions.push(Action::CheckRead { check, id: *id }),
                Check::Read { mark, .. }
                    if self.broken(Rule::AppliedBeforeCompared) || self.applied(state, *mark) =>
                {
                    actions.push(Action::CheckCassandra { check });
                }
                Check::Compared { .. } => actions.push(Action::CheckEnd { check }),
                Check::Ended { id, mark, differ, end, .. }
                    if self.verdict(state, *id, *mark, *differ, *end).is_some() =>
                {
                    actions.push(Action::CheckVerdict { check });
                }
                Check::Repair { .. } => actions.push(Action::Repair { check }),
                _ => {}
            }
        }
        if self.bounds.corruption && state.corruption.is_none() && state.backfill == Copying::Done {
            for id in 1..=IDS {
                for &place in places_of(id) {
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

    fn may_be_checked(&self, state: &State) -> bool {
        state.backfill == Copying::Done
            && (!state.resnapshot_is_due() || self.broken(Rule::ResnapshotBeforeChecks))
    }

    fn is_checked(&self, state: &State, id: u8) -> bool {
        self.broken(Rule::AsideIsNotChecked) || state.put_aside().is_none_or(|of| of.id != id)
    }

    pub(crate) fn check_borrow(&self, state: &mut State, check: usize, id: u8) -> Option<()> {
        let mark = self.borrow(state)?.0 as u8;
        state.checks[check] = match state.checks[check] {
            Check::ReadFirst { row, .. } => Check::Read { id, mark, row },
            _ => {
                state.checks_left -= 1;
                Check::Borrowed { id, mark }
            }
        };
        Some(())
    }

    pub(crate) fn check_read(state: &mut State, check: usize, id: u8) {
        let row = state.rows(state.visible as usize)[id as usize - 1];
        state.checks[check] = match state.checks[check] {
            Check::Borrowed { mark, .. } => Check::Read { id, mark, row },
            _ => {
                state.checks_left -= 1;
                Check::ReadFirst { id, row }
            }
        };
    }

    pub(crate) fn check_cassandra(state: &mut State, check: usize) -> Option<()> {
        let Check::Read { id, mark, row } = state.checks[check] else { return None };
        let (differ, extra) = differing(id, row, &state.cassandra);
        state.checks[check] = Check::Compared { id, mark, row, differ, extra };
        Some(())
    }

    pub(crate) fn check_end(state: &mut State, check: usize) -> Option<()> {
        let Check::Compared { id, mark, row, differ, extra } = state.checks[check].clone() else {
            return None;
        };
        let end = state.binlog.len() as u8;
        state.checks[check] = Check::Ended { id, mark, row, differ, extra, end };
        Some(())
    }

    pub(crate) fn check_verdict(&self, state: &mut State, check: usize) -> Option<()> {
        let Check::Ended { id, mark, row, differ, extra, end } = state.checks[check].clone() else {
            return None;
        };
        state.checks[check] = Check::Idle;
        match self.verdict(state, id, mark, differ, end)? {
            Verdict::Mismatch => {
                if state.corruption.is_none_or(|c| c.id != id) {
                    state.wrong = Some(Wrong::FalseAlarm);
                }
                state.checks[check] = Check::Repair { id, mark, row, extra };
            }
            Verdict::Match | Verdict::Undecided | Verdict::PutAside => {
                // A row that is wrong and that nobody has changed since must not pass.
                let quiet = state.at_rest() && state.unchanged_since(id, mark);
                let corrupt = state.corruption.is_some_and(|c| c.id == id && !c.mended);
                if quiet && corrupt && differ {
                    state.wrong = Some(Wrong::Missed);
                }
            }
        }
        Some(())
    }

    pub(crate) fn repair(&self, state: &mut State, check: usize) -> Option<()> {
        let Check::Repair { id, mark, row, extra } = state.checks[check].clone() else { return None };
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
        state.checks[check] = Check::Idle;
        Some(())
    }

    /// Somebody else writes by the clock that every writer follows: at the newest version, the
    /// hardest to beat.
    pub(crate) fn corrupt(state: &mut State, place: usize, id: u8, write: Write) {
        let newest = state.log.iter().map(|r| match r {
            Record::Change { version, .. } | Record::Ddl { version } | Record::Mark { version, .. } => {
                *version
            }
        });
        let at = newest.max().expect("the log begins with a watermark");
        state.cassandra[place].apply(at, write);
        state.corruption = Some(Corruption { id, log: state.log.len() as u8, mended: false });
    }
}

/// Whether a change is one half of a changed primary key, whose other half is another row's.
fn moves_away(state: &State, place: usize, of: SmallChange) -> bool {
    let arrives = |r: &Record| match r {
        Record::Change { of: other, .. } => {
            other.id != of.id && other.before.is_none() && other.after == of.before
        }
        _ => false,
    };
    of.after.is_none() && state.log[place..].iter().any(arrives)
}
