//! Capture, apply and reverse, and the effects of a native write.

use tandem_model::Version;
use tandem_protocol::cutover::reverse::applies;
use tandem_protocol::mint::Minter;

use crate::cutover::action::Action;
use crate::cutover::bridge::{Guard, captured_writes, native_writes, without_nulls};
use crate::cutover::record::authority;
use crate::cutover::rules::{Cutover, Rule};
use crate::cutover::state::{Capture, Logged, REPAIR, Row, State};

impl Cutover {
    pub(crate) fn store_actions(&self, state: &State, actions: &mut Vec<Action>) {
        match state.capture {
            Capture::Publishing => {
                if state.binlog.len() > 0 && !state.log.is_full() {
                    actions.push(Action::Publish);
                }
                if state.left.capture_starts > 0 {
                    actions.push(Action::CaptureStarts);
                }
            }
            // One that starts while Cassandra decides reads so, and stops.
            Capture::Stopped if state.record.is_mysqls() => {
                actions.push(if self.broken(Rule::PhaseReadAfterTheInit) {
                    Action::CaptureReadsThePhase
                } else {
                    Action::CaptureInits
                });
            }
            Capture::Stopped => {}
            Capture::Inited => actions.push(Action::CaptureReadsThePhase),
            Capture::PhaseRead => actions.push(Action::CaptureInits),
        }
        for place in (0..state.log.len()).filter(|place| state.applied & (1 << place) == 0) {
            actions.push(Action::Apply { place });
        }
        if (state.reversed as usize) < state.log.len()
            && !(self.publishes_reverse() && state.binlog.is_full())
        {
            actions.push(Action::Reverse);
        }
    }

    /// Whether a capture that goes on by mistake meets reverse's transactions.
    fn publishes_reverse(&self) -> bool {
        self.broken(Rule::CaptureIsFenced) || self.broken(Rule::PhaseReadAfterTheInit)
    }

    pub(crate) fn publish(&self, state: &mut State) -> Option<()> {
        let row = state.binlog.take_first()?;
        let commit_us = if self.bounds.mysql_ahead { i64::from(state.newest_version()) + 1 } else { 0 };
        let version = Minter::after(Version(state.captured.into())).first_of_transaction(commit_us);
        state.captured = version.0 as u8;
        state.log.push(Logged::Captured { row, version: state.captured });
        Some(())
    }

    pub(crate) fn capture_starts(state: &mut State) {
        state.left.capture_starts -= 1;
        state.capture = Capture::Stopped;
    }

    pub(crate) fn capture_inits(&self, state: &mut State) {
        match state.capture {
            Capture::PhaseRead => self.capture_goes_on(state),
            _ => state.capture = Capture::Inited,
        }
    }

    pub(crate) fn capture_reads_the_phase(&self, state: &mut State) {
        let may_publish = authority(state.record).capture_may_publish();
        match (state.capture, may_publish) {
            (Capture::Inited, true) => self.capture_goes_on(state),
            (_, true) => state.capture = Capture::PhaseRead,
            (_, false) => state.capture = Capture::Stopped,
        }
    }

    /// It continues behind its last watermark, and not below the epoch's floor.
    fn capture_goes_on(&self, state: &mut State) {
        state.capture = Capture::Publishing;
        if !self.broken(Rule::CaptureAboveNativeVersions) {
            state.captured = state.captured.max(state.record.floor.saturating_sub(1));
        }
    }

    pub(crate) fn apply(&self, state: &mut State, place: usize) -> Option<()> {
        state.applied |= 1 << place;
        match state.log.get(place)? {
            Logged::Captured { row, version } => {
                for (place, write) in captured_writes(row.before, row.after) {
                    state.places[*place].apply(version.into(), *write);
                }
                state.answers |= bit(row.nonce);
            }
            Logged::Native(guard) => {
                for (place, write) in native_writes(guard.image, guard.stale) {
                    let repair = guard.nonce == REPAIR + 1 && self.broken(Rule::RepairWritesNulls);
                    let bare = repair || self.broken(Rule::ApplyWritesNulls);
                    let write = if bare { without_nulls(*write) } else { *write };
                    state.places[*place].apply(guard.version.into(), write);
                }
                if !self.broken(Rule::NoncesStayInCassandra) {
                    state.answers |= bit(guard.nonce);
                }
            }
        }
        Some(())
    }

    /// One of the effects of the write that a guard holds.
    pub(crate) fn effect(&self, state: &mut State, guard: Guard, which: u8, own: bool) {
        if which == 0 {
            let dropped =
                self.broken(Rule::NoncesReachMysql) || !own && self.broken(Rule::CompletionsCarryTheNonce);
            let nonce = if dropped { 0 } else { guard.nonce };
            state.log.push(Logged::Native(Guard { nonce, ..guard }));
            return;
        }
        for (place, write) in native_writes(guard.image, guard.stale) {
            if (*place == 0) == (which == 1) {
                let repair = guard.nonce == REPAIR + 1 && self.broken(Rule::RepairWritesNulls);
                let bare = repair || self.broken(Rule::NativeWritesNulls);
                let write = if bare { without_nulls(*write) } else { *write };
                state.places[*place].apply(guard.version.into(), write);
            }
        }
        if which == 1 && !self.broken(Rule::NoncesStayInCassandra) {
            state.answers |= bit(guard.nonce);
        }
    }

    pub(crate) fn reverse(&self, state: &mut State) -> Option<()> {
        let record = state.log.get(state.reversed as usize)?;
        state.reversed += 1;
        let Logged::Native(guard) = record else { return Some(()) };
        let (kept, version) = (Version(state.kept.into()), Version(guard.version.into()));
        if applies(Some(kept), version) || self.broken(Rule::ReverseKeepsVersions) {
            if self.publishes_reverse() && state.mysql != guard.image {
                state.binlog.push(Row { before: state.mysql, after: guard.image, nonce: 0 });
            }
            state.mysql = guard.image;
            state.kept = guard.version;
            state.mysql_nonces |= bit(guard.nonce);
        }
        Some(())
    }
}

/// The bit of a request's nonce; none for 0.
fn bit(nonce: u8) -> u8 {
    nonce.checked_sub(1).map_or(0, |request| 1 << request)
}
