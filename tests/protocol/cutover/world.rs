//! Everything that can happen, in any order, and what must never come of it.

use stateright::{Model, Property};

use crate::cassandra::Place;
use crate::cutover::action::Action;
use crate::cutover::bridge::{PLACES, base_image, img, is_right, native_writes};
use crate::cutover::record::Record;
use crate::cutover::rules::Cutover;
use crate::cutover::state::{
    Capture, Check, Controller, Few, GATEWAYS, Gateway, Left, Stage, State, Sweep, Written, Wrong,
};
use crate::search::Explored;

/// The row before everything.
const FIRST: crate::cutover::bridge::Img = img(0, 1);

impl Cutover {
    fn genesis(&self) -> State {
        let bounds = &self.bounds;
        let mut places = [Place::default(); PLACES];
        for (place, write) in native_writes(FIRST, 0) {
            places[*place].apply(1, *write);
        }
        let mut history = Few::new();
        history.push(Written { image: FIRST, nonce: 0, epoch: 0, version: 0 });
        State {
            record: Record::default(),
            gateways: [Gateway { has_lease: true, ..Gateway::default() }; GATEWAYS],
            sweeps: [Sweep::default(); 2],
            controller: Controller::default(),
            zombie: None,
            mysql: FIRST,
            kept: 0,
            mysql_nonces: 0,
            read_only: false,
            binlog: Few::new(),
            capture: Capture::Publishing,
            captured: 1,
            log: Few::new(),
            applied: 0,
            reversed: 0,
            guards: Default::default(),
            done: [0; 2],
            floors: [0; 2],
            places,
            answers: 0,
            history,
            seen: 0,
            read: 0,
            started: 0,
            answered: 0,
            check: Check::Idle,
            corrupted: false,
            left: Left {
                retries: bounds.retries,
                crashes: bounds.crashes,
                pauses: bounds.pauses,
                taken_back: bounds.taken_back,
                sweeps: bounds.sweeps,
                take_overs: bounds.take_overs,
                capture_starts: bounds.capture_starts,
                answers: bounds.answers,
                checks: bounds.checks,
                corruptions: bounds.corruptions,
            },
            wrong: None,
        }
    }

    /// Nothing is under way, and nothing is left to do.
    fn at_rest(&self, state: &State) -> bool {
        let table = self.table_of(state.record.epoch);
        let followed = if state.record.is_mysqls() {
            state.binlog.len() == 0 && state.capture == Capture::Publishing
        } else {
            state.reversed as usize == state.log.len() && state.done[table] >= state.guards[table].version
        };
        followed
            && state.record.step == 0
            && state.applied.count_ones() as usize == state.log.len()
            && state.gateways.iter().all(|gateway| gateway.stage == Stage::Idle)
            && state.sweeps.iter().all(|sweep| sweep.stage == Stage::Idle)
            && state.check == Check::Idle
    }

    /// The targets hold MySQL's row and nothing else, the guard says the same, and no client was told of a later one.
    fn equal(&self, state: &State) -> bool {
        let table = self.table_of(state.record.epoch);
        let (guard, floor) = (state.guards[table], state.floors[table]);
        let written = !state.record.is_mysqls() && guard.version >= floor.max(1);
        let guarded = !written || guard.image == state.mysql;
        let right = (0..PLACES).all(|place| is_right(place, state.mysql, &state.places));
        right && guarded && base_image(&state.places) == state.mysql && state.mysql_is_current()
    }
}

impl Explored for Cutover {
    /// States that differ only in which gateway is which are one state.
    fn canonical(mut state: State) -> State {
        state.gateways.sort_unstable();
        state
    }
}

impl Model for Cutover {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = self.genesis();
        for action in self.bounds.prefix.iter().copied().flatten() {
            let mut actions = Vec::new();
            self.actions(&state, &mut actions);
            assert!(actions.contains(action), "{action:?} cannot happen in {state:?}");
            state = self.next_state(&state, *action).unwrap();
            assert_eq!(state.wrong, None, "after {action:?}");
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.gateway_actions(state, actions);
        self.controller_actions(state, actions);
        self.store_actions(state, actions);
        self.check_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        let state = &mut next;
        match action {
            Action::Start { gateway, request } => self.start(state, gateway, request),
            Action::MysqlCommit { gateway, answered } => self.mysql_commit(state, gateway, answered)?,
            Action::GiveUp { gateway } => state.gateways[gateway].stage = Stage::Idle,
            Action::ReadGuard { gateway } => self.read_guard(state, gateway)?,
            Action::Cas { gateway } => self.cas(state, gateway)?,
            Action::AskLease { gateway } => self.ask_lease(state, gateway)?,
            Action::Effect { gateway, which } => self.gateway_effect(state, gateway, which)?,
            Action::Finish { gateway, answered } => self.finish(state, gateway, answered)?,
            Action::MarkDone { gateway } => self.mark_done_early(state, gateway)?,
            Action::AnswerEarly { gateway } => state.answer(state.gateways[gateway].stage.request()?),
            Action::AnswerFromGuard { gateway } => self.answer_from_guard(state, gateway),
            Action::Read { .. } => Self::read(state),
            Action::Learn { gateway } => state.gateways[gateway].view = state.record,
            Action::Renew { gateway } => {
                state.gateways[gateway].has_lease = true;
                state.gateways[gateway].view = state.record;
            }
            Action::Acknowledge { gateway } => {
                let now = &mut state.gateways[gateway];
                now.acknowledged = now.view.attempts;
            }
            Action::Pause { gateway } => Self::lapse(state, gateway, false),
            Action::Crash { gateway } => Self::lapse(state, gateway, true),
            Action::ReleaseItself { gateway } => state.gateways[gateway].view.step = 0,
            Action::Begin => self.begin(state)?,
            Action::Advance => self.advance(state)?,
            Action::TakeBack => Self::take_back(state),
            Action::FenceCapture => self.fence_capture(state),
            Action::LiftFence => state.read_only = false,
            Action::TakeOver => self.take_over(state),
            Action::ZombieWrites => self.zombie_writes(state)?,
            Action::SweepBegins => Self::sweep_begins(state),
            Action::SweepReads { sweep } => self.sweep_reads(state, sweep)?,
            Action::SweepAsks { sweep } => self.sweep_asks(state, sweep)?,
            Action::SweepEffect { sweep, which } => self.sweep_effect(state, sweep, which)?,
            Action::SweepFinishes { sweep } => self.sweep_finishes(state, sweep)?,
            Action::Publish => self.publish(state)?,
            Action::CaptureStarts => Self::capture_starts(state),
            Action::CaptureInits => self.capture_inits(state),
            Action::CaptureReadsThePhase => self.capture_reads_the_phase(state),
            Action::Apply { place } => self.apply(state, place)?,
            Action::Reverse => self.reverse(state)?,
            Action::Repair { gateway } => Self::start_repair(state, gateway),
            Action::CheckBegins(_)
            | Action::CheckReads
            | Action::CheckReadsTheGuardAgain
            | Action::CheckEnds
            | Action::Corrupt { .. } => self.check(state, action)?,
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "at rest targets, guard and MySQL are equal",
                |cutover: &Self, state: &State| {
                    !cutover.at_rest(state) || state.corrupted || cutover.equal(state)
                },
            ),
            Property::always("no acknowledged write is lost", |_, state: &State| {
                state.wrong != Some(Wrong::AcknowledgedAndLost)
            }),
            Property::always("one store decides", |_, state: &State| {
                state.wrong != Some(Wrong::TwoAuthorities)
            }),
            Property::always("a request happens at most once", |_, state: &State| {
                state.wrong != Some(Wrong::Twice)
            }),
            Property::always(
                "no answer and no read is older than what was answered",
                |cutover: &Self, state: &State| {
                    state.wrong != Some(Wrong::StaleAnswer) && !cutover.reads_something_older(state)
                },
            ),
            Property::always("nothing is called wrong that nobody corrupted", |_, state: &State| {
                state.wrong != Some(Wrong::FalseAlarm)
            }),
            Property::always("nothing corrupt is called right", |_, state: &State| {
                state.wrong != Some(Wrong::Missed)
            }),
        ]
    }
}
