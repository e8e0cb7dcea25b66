//! Gateways: native writes, writes to MySQL, leases, acknowledgements and answers.

use tandem_model::Version;
use tandem_protocol::cutover::guard::{Known, Limits, NativeWrite, Next, next, propose};
use tandem_protocol::cutover::lease::Lease;
use tandem_protocol::cutover::switch::Store;

use crate::cutover::action::Action;
use crate::cutover::bridge::{Guard, Img, base_image, nonce, plan, product, row, small};
use crate::cutover::record::authority;
use crate::cutover::rules::{Cutover, Rule};
use crate::cutover::state::{ALL_EFFECTS, Check, Gateway, REPAIR, Row, Stage, State, Wrong};

/// The nonce of a reader: no guard holds it.
const READER: u8 = 100;

impl Gateway {
    /// The lease of a gateway and its clock, for a write that began under the lease of time 10.
    fn lease(self) -> (Lease, i64) {
        let first = Lease::default().renewed(10, 10, 10);
        match (self.has_lease, self.outlived) {
            (true, false) => (first, 15),
            (true, true) => (first.renewed(30, 30, 10), 35),
            (false, _) => (first, 25),
        }
    }

    fn may_begin(self) -> bool {
        let (lease, now) = self.lease();
        lease.begin(now).is_some()
    }

    fn may_go_on(self) -> bool {
        let began = Lease::default().renewed(10, 10, 10).begin(15);
        let (lease, now) = self.lease();
        began.is_some_and(|began| lease.may_go_on(began, now))
    }
}

impl Cutover {
    /// The guard table that an epoch uses.
    pub(crate) fn table_of(&self, epoch: u8) -> usize {
        usize::from(epoch > 1 && !self.broken(Rule::GuardTablePerEpoch))
    }

    pub(crate) fn gateway_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (gateway, now) in state.gateways.iter().enumerate() {
            match now.stage {
                Stage::Idle => self.idle_actions(state, gateway, actions),
                Stage::Mysql { .. } => {
                    if !state.binlog.is_full()
                        && (!state.read_only || self.broken(Rule::FenceCoversTheGateway))
                    {
                        actions.push(Action::MysqlCommit { gateway, answered: true });
                        if state.left.retries > 0 {
                            actions.push(Action::MysqlCommit { gateway, answered: false });
                        }
                    }
                    if now.outlived {
                        actions.push(Action::GiveUp { gateway });
                    }
                }
                Stage::Started { .. } => actions.push(Action::ReadGuard { gateway }),
                Stage::Decided { .. } => actions.push(Action::Cas { gateway }),
                Stage::ToComplete { .. } => actions.push(Action::AskLease { gateway }),
                Stage::Effects { own, made, .. } => {
                    for which in (0..3).filter(|which| made & (1 << which) == 0) {
                        if which > 0 || !state.log.is_full() {
                            actions.push(Action::Effect { gateway, which });
                        }
                    }
                    if made == ALL_EFFECTS {
                        actions.push(Action::Finish { gateway, answered: own });
                        if own && state.left.retries > 0 {
                            actions.push(Action::Finish { gateway, answered: false });
                        }
                    } else if self.broken(Rule::DoneAfterAllEffects) {
                        actions.push(Action::MarkDone { gateway });
                    }
                    if own && made == 1 && self.broken(Rule::TargetsBeforeTheAnswer) {
                        actions.push(Action::AnswerEarly { gateway });
                    }
                }
            }
            if now.has_lease {
                if now.view != state.record {
                    actions.push(Action::Learn { gateway });
                }
                if state.left.pauses > 0 {
                    actions.push(Action::Pause { gateway });
                }
                if now.view.step > 0 && self.broken(Rule::OnlyARecordReleases) {
                    actions.push(Action::ReleaseItself { gateway });
                }
            } else {
                actions.push(Action::Renew { gateway });
            }
            if state.left.crashes > 0 && now.stage != Stage::Idle {
                actions.push(Action::Crash { gateway });
            }
        }
    }

    fn idle_actions(&self, state: &State, gateway: usize, actions: &mut Vec<Action>) {
        let now = state.gateways[gateway];
        if !now.may_begin() {
            return;
        }
        if now.view.step > 0 && now.acknowledged != now.view.attempts {
            actions.push(Action::Acknowledge { gateway });
        }
        if state.left.answers > 0 && !state.record.is_mysqls() {
            actions.push(Action::Read { gateway });
        }
        let Some(store) = authority(now.view).writes_to() else { return };
        if store == Store::Cassandra && state.left.answers > 0 && self.may_answer(state, gateway) {
            actions.push(Action::AnswerFromGuard { gateway });
        }
        if store == Store::Cassandra && matches!(state.check, Check::Repair { .. }) {
            actions.push(Action::Repair { gateway });
        }
        let known = state.started.count_ones() as u8;
        if (known as usize) < self.bounds.requests.len() {
            actions.push(Action::Start { gateway, request: known });
        }
        if state.left.retries > 0 {
            let open = (0..known).filter(|request| state.answered & (1 << request) == 0);
            actions.extend(open.map(|request| Action::Start { gateway, request }));
        }
    }

    /// Whether a request may be answered from the guard as it is.
    fn may_answer(&self, state: &State, gateway: usize) -> bool {
        let view = state.gateways[gateway].view;
        let table = self.table_of(view.epoch);
        let Some(guard) = product(state.guards[table]) else { return false };
        let done = Some(Version(state.done[table].into()));
        let complete = next(Some(&guard), done, false, nonce(READER)) == Next::Propose;
        view.epoch >= state.seen_epoch() && (complete || self.broken(Rule::CompletedBeforeAnswered))
    }

    /// A request arrives. Whether an answer is kept is asked now, before the guard is read.
    pub(crate) fn start(&self, state: &mut State, gateway: usize, request: u8) {
        let bit = 1 << request;
        if state.started & bit != 0 {
            state.left.retries -= 1;
        }
        state.started |= bit;
        let answered = state.answers & bit != 0 && !self.broken(Rule::AnswersOfBeforeTheSwitch);
        let now = &mut state.gateways[gateway];
        let epoch = now.view.epoch;
        now.outlived = false;
        now.stage = if now.view.is_mysqls() {
            Stage::Mysql { request }
        } else {
            Stage::Started { request, epoch, answered }
        };
    }

    pub(crate) fn start_repair(state: &mut State, gateway: usize) {
        let now = &mut state.gateways[gateway];
        now.outlived = false;
        now.stage = Stage::Started { request: REPAIR, epoch: now.view.epoch, answered: false };
    }

    pub(crate) fn mysql_commit(&self, state: &mut State, gateway: usize, answered: bool) -> Option<()> {
        let request = state.gateways[gateway].stage.request()?;
        let (nonce, after) = (request + 1, self.bounds.requests[request as usize]);
        if state.mysql_nonces & (1 << request) == 0 {
            if !state.record.is_mysqls() {
                state.wrong = Some(Wrong::TwoAuthorities);
            }
            if state.mysql != after {
                state.binlog.push(Row { before: state.mysql, after, nonce });
            }
            state.mysql = after;
            state.mysql_nonces |= 1 << request;
            state.happened(after, request, 0);
        }
        if answered {
            state.answer(request);
        }
        state.gateways[gateway].stage = Stage::Idle;
        Some(())
    }

    pub(crate) fn read_guard(&self, state: &mut State, gateway: usize) -> Option<()> {
        let Stage::Started { request, epoch, answered } = state.gateways[gateway].stage else { return None };
        let table = self.table_of(epoch);
        let mut known = state.guards[table];
        if self.broken(Rule::RecentNonces) && known.version > 0 {
            known.recent = 1 << (known.nonce - 1);
        }
        let guard = product(known);
        let done = Some(Version(state.done[table].into()));
        state.gateways[gateway].stage = match next(guard.as_ref(), done, answered, nonce(request + 1)) {
            Next::Settle(_) => unreachable!("there are no batches here"),
            Next::Complete(_) => Stage::ToComplete { request, epoch, guard: known, own: false, answered },
            Next::Happened(_) | Next::Answered => {
                state.answer(request);
                Stage::Idle
            }
            Next::Propose => {
                let base = row(base_image(&state.places));
                let (image, write) = self.native_write(state, request, known.image);
                let known = guard.as_ref().map_or(Known::Base(base.as_ref()), Known::Guard);
                let floor = if self.broken(Rule::Floor) { 1 } else { state.floors[table] };
                let limits = Limits { now_us: 0, floor: Version(floor.into()), remember_us: i64::MAX };
                let proposal = propose(plan(), known, write, limits).ok()?;
                let mut guard = small(&proposal.guard, image);
                if self.broken(Rule::StaleKeysAreTombstoned) {
                    guard.stale = 0;
                }
                let expected = proposal.expected.map_or(0, |nonce| nonce.0 as u8);
                Stage::Decided { request, epoch, guard, expected, answered }
            }
        };
        Some(())
    }

    /// What a request makes of the row. A repair changes nothing.
    fn native_write(&self, state: &State, request: u8, present: Img) -> (Img, NativeWrite) {
        if let (REPAIR, Check::Repair { places, newest }) = (request, state.check) {
            return (present, self.repair(present, places, newest));
        }
        let image = *self.bounds.requests.get(request as usize).unwrap_or(&present);
        let (nonce, image_row) = (nonce(request + 1), row(image));
        (image, NativeWrite { nonce, image: image_row, extra: Vec::new(), above: None })
    }

    pub(crate) fn cas(&self, state: &mut State, gateway: usize) -> Option<()> {
        let Stage::Decided { request, epoch, guard, expected, answered } = state.gateways[gateway].stage
        else {
            return None;
        };
        let table = self.table_of(epoch);
        let wins = state.guards[table].nonce == expected || self.broken(Rule::CasCompares);
        state.gateways[gateway].stage = if wins {
            state.guards[table] = guard;
            // In the table of an epoch that is over, nothing has happened.
            if !state.record.is_mysqls() && self.table_of(state.record.epoch) == table {
                state.happened(guard.image, request, guard.version);
            }
            Stage::ToComplete { request, epoch, guard, own: true, answered }
        } else {
            Stage::Started { request, epoch, answered }
        };
        Some(())
    }

    pub(crate) fn ask_lease(&self, state: &mut State, gateway: usize) -> Option<()> {
        let mut now = state.gateways[gateway];
        let Stage::ToComplete { request, epoch, guard, own, answered } = now.stage else { return None };
        if self.broken(Rule::AbandonedAfterALapse) {
            now.outlived = false;
        }
        let goes_on = now.may_go_on() || self.broken(Rule::LeaseCheckedBeforeTheEffects);
        state.gateways[gateway].stage = if goes_on {
            Stage::Effects { request, epoch, guard, own, answered, made: 0 }
        } else {
            Stage::Idle
        };
        Some(())
    }

    pub(crate) fn gateway_effect(&self, state: &mut State, gateway: usize, which: u8) -> Option<()> {
        let Stage::Effects { request, epoch, guard, own, answered, made } = state.gateways[gateway].stage
        else {
            return None;
        };
        self.effect(state, guard, which, own);
        state.gateways[gateway].stage =
            Stage::Effects { request, epoch, guard, own, answered, made: made | 1 << which };
        Some(())
    }

    pub(crate) fn finish(&self, state: &mut State, gateway: usize, answered: bool) -> Option<()> {
        let Stage::Effects { request, epoch, guard, own, answered: known, .. } =
            state.gateways[gateway].stage
        else {
            return None;
        };
        self.mark_done(state, epoch, guard);
        state.gateways[gateway].stage =
            if own { Stage::Idle } else { Stage::Started { request, epoch, answered: known } };
        if answered {
            state.answer(request);
        }
        Some(())
    }

    pub(crate) fn mark_done(&self, state: &mut State, epoch: u8, guard: Guard) {
        let done = &mut state.done[self.table_of(epoch)];
        *done = (*done).max(guard.version);
    }

    pub(crate) fn mark_done_early(&self, state: &mut State, gateway: usize) -> Option<()> {
        let Stage::Effects { epoch, guard, .. } = state.gateways[gateway].stage else { return None };
        self.mark_done(state, epoch, guard);
        Some(())
    }

    pub(crate) fn answer_from_guard(&self, state: &mut State, gateway: usize) {
        state.left.answers -= 1;
        let guard = state.guards[self.table_of(state.gateways[gateway].view.epoch)];
        match state.history.iter().position(|written| written.nonce == guard.nonce) {
            Some(place) if place as u8 >= state.seen => state.seen = place as u8,
            _ => state.wrong = Some(Wrong::StaleAnswer),
        }
    }

    pub(crate) fn read(state: &mut State) {
        state.left.answers -= 1;
        let image = base_image(&state.places);
        let oldest = state.seen.max(state.read);
        let mut since = state.history.iter().enumerate().skip(oldest as usize);
        let read = since.find(|(_, written)| written.image == image);
        state.read = read.map_or(state.read, |(place, _)| place as u8);
    }

    pub(crate) fn lapse(state: &mut State, gateway: usize, gone: bool) {
        let now = &mut state.gateways[gateway];
        now.has_lease = false;
        if gone {
            state.left.crashes -= 1;
            now.stage = Stage::Idle;
            now.acknowledged = 0;
        } else {
            state.left.pauses -= 1;
        }
        now.outlived = now.stage != Stage::Idle;
        state.controller.swept = false;
        state.sweeps.iter_mut().for_each(|sweep| sweep.counts = false);
    }

    /// Whether a read that a gateway serves now shows something older than what a client was told of.
    pub(crate) fn reads_something_older(&self, state: &State) -> bool {
        state.gateways.iter().filter(|gateway| gateway.has_lease).any(|gateway| {
            let view = authority(gateway.view);
            let fallback = self.broken(Rule::FallbackIsOff) && gateway.view.is_mysqls();
            if view.mysql_may_answer() || fallback {
                // A token of a newer epoch makes the gateway read the control topic first.
                let tokenless = !state.record.is_mysqls();
                (tokenless || gateway.view.epoch >= state.seen_epoch()) && !state.mysql_is_current()
            } else {
                !state.record.is_mysqls() && !state.corrupted && !state.targets_are_current()
            }
        })
    }
}
