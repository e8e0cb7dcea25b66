//! The controller: cutovers, sweeps, and controllers that are replaced.

use tandem_model::{GtidSet, Version};
use tandem_protocol::cutover::guard::{Next, next};
use tandem_protocol::cutover::switch::{Facts, Heard, Last, held};

use crate::cutover::action::Action;
use crate::cutover::bridge::{nonce, product};
use crate::cutover::record::{Record, authority, small};
use crate::cutover::rules::{Cutover, Rule};
use crate::cutover::state::{ALL_EFFECTS, Capture, Controller, Stage, State, Sweep, Wrong};

const SWEEPER: u8 = 101;

impl Cutover {
    pub(crate) fn controller_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if self.begins(state).is_some() {
            actions.push(Action::Begin);
        }
        if self.advances(state).is_some() {
            actions.push(Action::Advance);
        }
        if state.record.step > 0 && state.left.taken_back > 0 {
            actions.push(Action::TakeBack);
        }
        if state.record.step == 4 && state.controller.last.is_none() {
            actions.push(Action::FenceCapture);
        }
        let lifted_early = self.broken(Rule::CommitBeforeTheFenceIsLifted)
            && !state.record.is_mysqls()
            && state.record.step == 3;
        if state.read_only && (authority(state.record).fence_may_be_lifted() || lifted_early) {
            actions.push(Action::LiftFence);
        }
        if state.left.take_overs > 0 {
            actions.push(Action::TakeOver);
        }
        if state.zombie.is_some() {
            actions.push(Action::ZombieWrites);
        }
        if state.left.sweeps > 0
            && !state.record.is_mysqls()
            && state.record.step == 0
            && state.sweeps[0].stage == Stage::Idle
        {
            actions.push(Action::SweepBegins);
        }
        for (sweep, now) in state.sweeps.iter().enumerate() {
            match now.stage {
                Stage::Started { .. } => actions.push(Action::SweepReads { sweep }),
                Stage::ToComplete { .. } => actions.push(Action::SweepAsks { sweep }),
                Stage::Effects { made, .. } => {
                    for which in (0..3).filter(|which| made & (1 << which) == 0) {
                        if which > 0 || !state.log.is_full() {
                            actions.push(Action::SweepEffect { sweep, which });
                        }
                    }
                    if made == ALL_EFFECTS {
                        actions.push(Action::SweepFinishes { sweep });
                    }
                }
                _ => {}
            }
        }
    }

    fn begins(&self, state: &State) -> Option<Record> {
        let record = state.record;
        if record.epoch >= self.bounds.last_epoch || record.attempts >= self.bounds.attempts {
            return None;
        }
        let swept = state.controller.swept || self.broken(Rule::SweptBeforeTheSwitchBack);
        let may_begin = if record.is_mysqls() { !state.read_only } else { swept };
        authority(record).begin(0).filter(|_| may_begin).map(|next| small(&next))
    }

    /// The next record of the cutover, if its step is done.
    fn advances(&self, state: &State) -> Option<Record> {
        let now = authority(state.record);
        let attempt = now.cutover.as_ref()?.attempt;
        let heard = state.gateways.iter().map(|gateway| Heard {
            acknowledged: if self.broken(Rule::AcknowledgementsNameTheAttempt) && gateway.acknowledged > 0 {
                Some(attempt)
            } else {
                (gateway.acknowledged > 0).then_some(gateway.acknowledged.into())
            },
            lapsed: !gateway.has_lease,
        });
        let facts = Facts {
            held: held(heard, attempt) || self.broken(Rule::HoldsAreWaitedFor),
            swept: state.controller.swept || self.broken(Rule::SweptBeforeTheSwitchBack),
            fenced: state.read_only.then(GtidSet::default),
            drained: self.drained(state),
            last: Self::last(state),
        };
        now.advanced(&facts).ok().map(|next| small(&next))
    }

    fn drained(&self, state: &State) -> bool {
        if state.record.is_mysqls() {
            let applied = state.applied.count_ones() as usize == state.log.len();
            (state.binlog.len() == 0 && applied) || self.broken(Rule::AppliedUpToF)
        } else {
            state.reversed as usize == state.log.len() || self.broken(Rule::ReverseIsDrained)
        }
    }

    fn last(state: &State) -> Option<Last> {
        let version = if state.record.is_mysqls() { state.controller.last } else { Some(logged(state)) };
        version.map(|version| Last { version: Version(version.into()), ..Last::default() })
    }

    pub(crate) fn begin(&self, state: &mut State) -> Option<()> {
        state.record = self.begins(state)?;
        Some(())
    }

    pub(crate) fn advance(&self, state: &mut State) -> Option<()> {
        let next = self.advances(state)?;
        self.write(state, next);
        // The record is there; MySQL is closed, and F read at once.
        if state.record.step == 2 {
            state.read_only = true;
            self.write(state, self.advances(state)?);
        }
        Some(())
    }

    /// A record is on the control topic.
    fn write(&self, state: &mut State, next: Record) {
        let ends = next.epoch != state.record.epoch;
        state.record = next;
        if !ends {
            return;
        }
        state.controller = Controller::default();
        if next.is_mysqls() {
            // What did not reach MySQL has not happened, and capture begins at `gtid_executed`.
            let (kept, seen) = (state.kept, state.seen as usize);
            let lost = |w: &crate::cutover::state::Written| w.epoch + 1 == next.epoch && w.version > kept;
            if state.history.iter().enumerate().any(|(place, w)| place <= seen && lost(&w)) {
                state.wrong = Some(Wrong::AcknowledgedAndLost);
            }
            state.history.retain(|written| !lost(written));
            state.read = state.read.min(state.history.len() as u8 - 1);
            while state.binlog.take_first().is_some() {}
        } else {
            state.floors[self.table_of(next.epoch)] = next.floor;
            state.reversed = state.log.len() as u8;
        }
    }

    pub(crate) fn take_back(state: &mut State) {
        state.left.taken_back -= 1;
        state.record = small(&authority(state.record).taken_back());
        state.controller.last = None;
    }

    pub(crate) fn fence_capture(&self, state: &mut State) {
        if matches!(state.capture, Capture::Publishing | Capture::Inited)
            && !self.broken(Rule::CaptureIsFenced)
        {
            state.capture = Capture::Stopped;
        }
        state.controller.last = Some(logged(state));
    }

    pub(crate) fn take_over(&self, state: &mut State) {
        state.left.take_overs -= 1;
        if self.broken(Rule::ControllerIsFenced) {
            state.zombie = self.advances(state).or_else(|| self.begins(state));
        }
        state.controller = Controller::default();
        state.sweeps = [Sweep::default(), state.sweeps[0]];
    }

    pub(crate) fn zombie_writes(&self, state: &mut State) -> Option<()> {
        let next = state.zombie.take()?;
        self.write(state, next);
        Some(())
    }

    pub(crate) fn sweep_begins(state: &mut State) {
        state.left.sweeps -= 1;
        let stage = Stage::Started { request: SWEEPER, epoch: state.record.epoch, answered: false };
        state.sweeps[0] = Sweep { stage, counts: true };
        state.controller.swept = false;
    }

    pub(crate) fn sweep_reads(&self, state: &mut State, sweep: usize) -> Option<()> {
        let Stage::Started { request, epoch, answered } = state.sweeps[sweep].stage else { return None };
        let table = self.table_of(epoch);
        let (small, done) = (state.guards[table], Some(Version(state.done[table].into())));
        let guard = product(small);
        state.sweeps[sweep].stage = match next(guard.as_ref(), done, false, nonce(SWEEPER)) {
            Next::Complete(_) => Stage::ToComplete { request, epoch, guard: small, own: false, answered },
            _ => Stage::Idle,
        };
        Self::sweep_counts(state, sweep);
        Some(())
    }

    /// A controller that was replaced does not lead, and does not write.
    pub(crate) fn sweep_asks(&self, state: &mut State, sweep: usize) -> Option<()> {
        let Stage::ToComplete { request, epoch, guard, own, answered } = state.sweeps[sweep].stage else {
            return None;
        };
        let leads = sweep == 0 && state.record.epoch == epoch;
        state.sweeps[sweep].stage = if leads || self.broken(Rule::SweeperAsksWhoLeads) {
            Stage::Effects { request, epoch, guard, own, answered, made: 0 }
        } else {
            Stage::Idle
        };
        Some(())
    }

    pub(crate) fn sweep_effect(&self, state: &mut State, sweep: usize, which: u8) -> Option<()> {
        let Stage::Effects { request, epoch, guard, own, answered, made } = state.sweeps[sweep].stage else {
            return None;
        };
        self.effect(state, guard, which, own);
        state.sweeps[sweep].stage =
            Stage::Effects { request, epoch, guard, own, answered, made: made | 1 << which };
        Some(())
    }

    pub(crate) fn sweep_finishes(&self, state: &mut State, sweep: usize) -> Option<()> {
        let Stage::Effects { epoch, guard, .. } = state.sweeps[sweep].stage else { return None };
        self.mark_done(state, epoch, guard);
        state.sweeps[sweep].stage = Stage::Idle;
        Self::sweep_counts(state, sweep);
        Some(())
    }

    /// The sweep that has come to its end counts, if no gateway has lapsed since it began.
    fn sweep_counts(state: &mut State, sweep: usize) {
        let now = state.sweeps[sweep];
        if now.stage == Stage::Idle {
            state.controller.swept |= sweep == 0 && now.counts;
            state.sweeps[sweep] = Sweep::default();
        }
    }
}

/// The last version on the log, at least that of the row of before.
fn logged(state: &State) -> u8 {
    state.log.iter().map(crate::cutover::state::Logged::version).max().unwrap_or(0).max(state.captured)
}
