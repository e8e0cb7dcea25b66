//! Everything that can happen, in any order, and what must never come of it.

use stateright::{Model, Property};
use tandem_model::Op;

use crate::cassandra::Place;
use crate::protocol::Protocol;
use crate::state::{Action, Aside, Asked, Check, Copying, FIRST, Gateway, Record, State, Wrong};
use crate::table::{PLACES, placed, read_mutations};

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            binlog: Vec::new(),
            visible: 0,
            executed: 0,
            log: vec![Record::Mark { transactions: 0, partial: None, version: 1 }],
            remembered: None,
            ahead: None,
            applied: 0,
            owed: 0,
            cassandra: [Place::default(); PLACES],
            backfill: Copying::Waiting,
            resnapshot: Copying::Done,
            resnapshotted: 0,
            aside: Aside::Nothing,
            checks: vec![Check::Idle; self.bounds.checks_at_once],
            corruption: None,
            gateways: vec![Gateway::Idle; self.bounds.gateways],
            asked: None,
            idle_left: self.bounds.idle_watermarks,
            checks_left: self.bounds.checks,
            dead_letters_left: self.bounds.dead_letters,
            wrong: None,
        };
        if !self.bounds.backfill {
            // It has brought the row of before already.
            let first = FIRST[0].expect("there is one");
            state.write(placed(read_mutations(Op::Snapshot, 1, first, 1)));
            state.backfill = Copying::Done;
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.mysql_actions(state, actions);
        self.capture_actions(state, actions);
        self.apply_actions(state, actions);
        self.retry_actions(state, actions);
        self.copy_actions(state, actions);
        self.check_actions(state, actions);
        self.gateway_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        let state = &mut next;
        match action {
            Action::Flush { transaction, clock_back } => {
                state.flush(state.choice(transaction), None, clock_back.then_some(3));
            }
            Action::Alter(ddl) => state.flush(Vec::new(), Some(ddl), None),
            Action::Visible => state.visible += 1,
            Action::Executed => state.executed += 1,
            Action::Capture { rows, whole } => self.capture(state, rows, whole),
            Action::Abort { rows, whole } => self.abort(state, rows, whole),
            Action::IdleWatermark => self.idle_watermark(state),
            Action::Crash => state.remembered = Some(0),
            Action::Apply { from, to } => self.apply(state, from, to),
            Action::Acknowledge { place } => {
                state.applied |= 1 << place;
                state.owed |= 1 << place;
            }
            Action::WriteOwed => self.write_owed(state),
            Action::LoseOwed => state.owed = 0,
            Action::PutAside { place } => Self::put_aside(state, place),
            Action::RetryBorrow | Action::RetryRead | Action::RetryWrite => self.retry(state)?,
            Action::BackfillBorrow => self.backfill_borrow(state)?,
            Action::BackfillRead => state.backfill.reads(last.rows(last.visible as usize)),
            Action::BackfillWrite { id } => Self::backfill_write(state, id)?,
            Action::ResnapshotBorrow => self.resnapshot_borrow_now(state)?,
            Action::ResnapshotRead => state.resnapshot.reads(last.rows(last.visible as usize)),
            Action::ResnapshotWrite { id } => self.resnapshot_write(state, id)?,
            Action::CheckBorrow { check, id } => self.check_borrow(state, check, id)?,
            Action::CheckRead { check, id } => Self::check_read(state, check, id),
            Action::CheckCassandra { check } => Self::check_cassandra(state, check)?,
            Action::CheckEnd { check } => Self::check_end(state, check)?,
            Action::CheckVerdict { check } => self.check_verdict(state, check)?,
            Action::Repair { check } => self.repair(state, check)?,
            Action::Corrupt { place, id, write } => Self::corrupt(state, place, id, write),
            Action::GatewayBorrow { gateway } => Self::gateway_borrow(state, gateway),
            Action::GatewayCommit { gateway, transaction } => {
                self.gateway_commit(state, gateway, transaction);
            }
            Action::GatewayFail { gateway, transaction } => Self::gateway_fail(state, gateway, transaction),
            Action::GatewayWrite { gateway, row } => Self::gateway_write(state, gateway, row)?,
            Action::ReadAsks => state.asked = Some(Asked(last.put_aside().map(|of| of.id))),
            Action::GatewayLose { gateway } => {
                let token = state.gateways[gateway].token().unwrap_or(0);
                state.gateways[gateway] = Gateway::Done { token };
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at rest both stores are equal", |_, state: &State| {
                !state.at_rest() || state.corruption.is_some_and(|c| !c.mended) || state.equal()
            }),
            Property::always("nothing is called wrong that nobody corrupted", |_, state: &State| {
                state.wrong != Some(Wrong::FalseAlarm)
            }),
            Property::always("nothing corrupt and quiet is called right", |_, state: &State| {
                state.wrong != Some(Wrong::Missed)
            }),
            Property::always("a cell's version never goes back", |_, state: &State| {
                state.wrong != Some(Wrong::WentBack)
            }),
            Property::always("a client that shows its token reads nothing older", |protocol, state| {
                !protocol.reads_something_older(state)
            }),
        ]
    }
}
