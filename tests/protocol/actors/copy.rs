//! Copies of the whole table at a borrowed watermark: the backfill into an empty Cassandra, and the
//! resnapshot after a DDL statement that changed values without any row change.

use tandem_model::Op;

use crate::actors::apply::without_nulls;
use crate::protocol::{Protocol, Rule};
use crate::state::{Action, Copying, Record, State};
use crate::table::{IDS, Rows, placed, read_mutations};

impl Protocol {
    pub(crate) fn copy_actions(&self, state: &State, actions: &mut Vec<Action>) {
        match &state.backfill {
            Copying::Waiting if self.broken(Rule::AskedBeforeTheRead) => actions.push(Action::BackfillRead),
            Copying::Waiting | Copying::ReadFirst(_) if self.borrow(state).is_some() => {
                actions.push(Action::BackfillBorrow);
            }
            Copying::Borrowed { .. } => actions.push(Action::BackfillRead),
            Copying::Read { left, .. } => {
                actions.extend(ids(*left).map(|id| Action::BackfillWrite { id }));
            }
            _ => {}
        }
        match &state.resnapshot {
            Copying::Done if state.resnapshot_is_due() && self.resnapshot_borrow(state).is_some() => {
                actions.push(Action::ResnapshotBorrow);
            }
            Copying::Borrowed { .. } => actions.push(Action::ResnapshotRead),
            Copying::Read { left, .. } => actions.extend(ids(*left).map(|id| Action::ResnapshotWrite { id })),
            _ => {}
        }
    }

    pub(crate) fn backfill_borrow(&self, state: &mut State) -> Option<()> {
        let (_, version) = self.borrow(state)?;
        state.backfill = match state.backfill {
            Copying::ReadFirst(rows) => Copying::read(version, rows),
            _ => Copying::Borrowed { version },
        };
        Some(())
    }

    pub(crate) fn backfill_write(state: &mut State, id: u8) -> Option<()> {
        let Copying::Read { version, rows, left } = state.backfill.clone() else { return None };
        if let Some(row) = rows[id as usize - 1] {
            state.write(placed(read_mutations(Op::Snapshot, id, row, version)));
        }
        let left = left & !(1 << id);
        state.backfill = if left == 0 { Copying::Done } else { Copying::Read { version, rows, left } };
        Some(())
    }

    /// The watermark that a re-snapshot may borrow: the newest, once it lies above the DDL statement.
    fn resnapshot_borrow(&self, state: &State) -> Option<(usize, i16)> {
        let ddl = state.log.iter().rposition(|r| matches!(r, Record::Ddl { .. }))?;
        self.borrow(state).filter(|(place, _)| *place > ddl || self.broken(Rule::ResnapshotAboveTheDdl))
    }

    pub(crate) fn resnapshot_borrow_now(&self, state: &mut State) -> Option<()> {
        let (_, version) = self.resnapshot_borrow(state)?;
        // Where the rule is broken it takes itself to be done as well.
        state.resnapshotted = state.log.len() as u8;
        state.resnapshot = Copying::Borrowed { version };
        Some(())
    }

    pub(crate) fn resnapshot_write(&self, state: &mut State, id: u8) -> Option<()> {
        let Copying::Read { version, rows, left } = state.resnapshot.clone() else { return None };
        if let Some(row) = rows[id as usize - 1] {
            let mut mutations = read_mutations(Op::Resnapshot, id, row, version);
            if self.broken(Rule::ResnapshotWritesNulls) {
                without_nulls(&mut mutations);
            }
            state.write(placed(mutations));
        }
        let left = left & !(1 << id);
        state.resnapshot = if left == 0 { Copying::Done } else { Copying::Read { version, rows, left } };
        Some(())
    }
}

impl Copying {
    /// What it reads: at once, or before it has borrowed, where that rule is broken.
    pub(crate) fn reads(&mut self, rows: Rows) {
        *self = match self {
            Self::Borrowed { version } => Self::read(*version, rows),
            _ => Self::ReadFirst(rows),
        };
    }
}

fn ids(left: u8) -> impl Iterator<Item = u8> {
    (1..=IDS).filter(move |id| left & (1 << id) != 0)
}
