//! What each one does with a batch and its rows, one step at a time.

use tandem_model::Version;
use tandem_protocol::cutover::batch::{Outcome, Settle, commit_version, settle, settled, tentative};
use tandem_protocol::cutover::guard::{Known, Limits, NativeWrite, Next, next, propose};

use crate::cutover::batches::{
    Action, BATCH, BATCHED, BatchRule, Batches, Guard, HALF, Helper, Key, LOST, Maker, Proposal, Row, Single,
    State,
};
use crate::cutover::bridge::{Img, nonce, plan, row};

/// The nonces of the batch's tentative writes, and of what settles them.
const TENTATIVE: u8 = 10;
const SETTLED: u8 = 11;
const LIMITS: Limits = Limits { now_us: 0, floor: Version(2), remember_us: i64::MAX };

impl Batches {
    pub(crate) fn broken(&self, rule: BatchRule) -> bool {
        self.without == Some(rule)
    }

    /// The next step of whoever wants to write a key: only a settled and complete guard may be written on.
    fn next(key: &Key, number: u8) -> Next {
        next(key.guard.product().as_ref(), Some(Version(key.done.into())), false, nonce(number))
    }

    fn propose(key: usize, state: &State, number: u8, image: Img, is_batch: bool) -> Option<Proposal> {
        let now = &state.keys[key];
        let (guard, base) = (now.guard.product(), row(now.target.0));
        let known = guard.as_ref().map_or(Known::Base(base.as_ref()), Known::Guard);
        let write = NativeWrite { nonce: nonce(number), image: row(image), extra: Vec::new(), above: None };
        if is_batch {
            let made = tentative(plan(), known, write, nonce(BATCH), nonce(TENTATIVE), LIMITS).ok()?;
            let present = if now.guard.version > 0 { now.guard.image } else { now.target.0 };
            Some(now.guard.proposed(key, &made, present, Some(image)))
        } else {
            let made = propose(plan(), known, write, LIMITS).ok()?;
            Some(now.guard.proposed(key, &made, image, None))
        }
    }

    /// A CAS on a guard.
    fn cas(&self, state: &mut State, proposal: Proposal) -> bool {
        let guard = &mut state.keys[proposal.key].guard;
        let wins = if self.broken(BatchRule::GuardCasComparesTheNonce) {
            guard.version == proposal.read_version
        } else {
            guard.nonce == proposal.expected
        };
        if wins {
            *guard = proposal.guard;
        }
        wins
    }

    pub(crate) fn settle(&self, state: &State) -> Settle {
        let outcome = match state.row {
            Row::None if self.broken(BatchRule::WithoutARowTakenBack) => return Settle::Wait,
            Row::None => None,
            Row::Pending => Some(Outcome::Pending { deadline_us: 1 }),
            Row::Committed(version) => Some(Outcome::Committed(Version(version.into()))),
            Row::Aborted => Some(Outcome::Aborted),
        };
        settle(outcome, state.deadline_passed.into())
    }

    pub(crate) fn maker_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let may_act = !state.lapsed || self.broken(BatchRule::LeaseBeforeEachCas);
        let late_row = self.broken(BatchRule::RowBeforeGuards);
        match state.maker {
            Maker::Idle if !state.lapsed && !state.held => actions.push(Action::WriteRow),
            Maker::Placing(count)
                if count < 2 && may_act && Self::next(&state.keys[count], BATCH) == Next::Propose =>
            {
                actions.push(Action::ReadGuard);
            }
            Maker::Placing(2) if late_row && state.row == Row::None => actions.push(Action::WriteRow),
            Maker::Placing(2) if may_act => actions.push(Action::AskLease),
            Maker::Placed(_) => actions.push(Action::CasGuard),
            Maker::Committing => actions.push(Action::Commit),
            Maker::Committed => {
                let complete =
                    |key: &Key| key.guard.recent & (1 << BATCH) != 0 && key.done >= key.guard.version;
                if state.keys.iter().all(complete) {
                    actions.push(Action::Answer);
                }
            }
            _ => {}
        }
        if self.lapse && !state.lapsed && !matches!(state.maker, Maker::Idle | Maker::Over) {
            actions.push(Action::Lapse);
        }
    }

    pub(crate) fn make(&self, state: &mut State, action: Action) -> Option<()> {
        match (action, state.maker) {
            (Action::WriteRow, Maker::Idle) => {
                if !self.broken(BatchRule::RowBeforeGuards) {
                    state.row = Row::Pending;
                }
                state.maker = Maker::Placing(0);
            }
            (Action::WriteRow, _) => state.row = Row::Pending,
            (Action::ReadGuard, Maker::Placing(key)) => {
                state.maker = Maker::Placed(Self::propose(key, state, BATCH, BATCHED, true)?);
            }
            (Action::CasGuard, Maker::Placed(proposal)) => {
                let key = proposal.key;
                let wins = self.cas(state, proposal);
                if wins {
                    state.placed[key] = proposal.guard.version;
                }
                state.maker = Maker::Placing(key + usize::from(wins));
            }
            (Action::AskLease, _) => state.maker = Maker::Committing,
            (Action::Commit, _) => {
                if state.row != Row::Pending {
                    state.maker = Maker::Over;
                    return Some(());
                }
                let guards = state.placed.map(|version| Guard { version, ..state.keys[0].guard }.product());
                let above = if self.broken(BatchRule::AboveAllGuards) { &[][..] } else { &guards[..] };
                let version = commit_version(above.iter().flatten(), LIMITS);
                state.row = Row::Committed(version.0 as u8);
                state.maker = Maker::Committed;
                if !state.over {
                    state.keys.iter_mut().for_each(|key| key.history.push((BATCHED, BATCH)));
                }
            }
            (Action::Answer, _) => {
                state.maker = Maker::Over;
                if !state.keys.iter().all(|key| key.history.iter().any(|(_, by)| by == BATCH)) {
                    state.wrong = Some(LOST);
                }
            }
            _ => return None,
        }
        Some(())
    }

    pub(crate) fn single_actions(&self, state: &State, actions: &mut Vec<Action>) {
        match state.single {
            Single::Idle if state.singles < self.singles.len() && !state.held => {
                actions.push(Action::SingleStarts);
            }
            Single::Started => {
                let (key, number) = (self.singles[state.singles].0, state.singles as u8 + 2);
                if Self::next(&state.keys[key], number) == Next::Propose {
                    actions.push(Action::SingleReads);
                }
            }
            Single::Decided(_) => actions.push(Action::SingleCas),
            Single::Won { version } if state.keys[self.singles[state.singles].0].done >= version => {
                actions.push(Action::SingleAnswers);
            }
            _ => {}
        }
    }

    pub(crate) fn single(&self, state: &mut State, action: Action) -> Option<()> {
        let (key, image) = self.singles[state.singles];
        let number = state.singles as u8 + 2;
        state.single = match (action, state.single) {
            (Action::SingleStarts, _) => Single::Started,
            (Action::SingleReads, _) => Single::Decided(Self::propose(key, state, number, image, false)?),
            (Action::SingleCas, Single::Decided(proposal)) => {
                if self.cas(state, proposal) {
                    state.keys[key].history.push((image, number));
                    Single::Won { version: proposal.guard.version }
                } else {
                    Single::Started
                }
            }
            (Action::SingleAnswers, _) => {
                state.singles += 1;
                Single::Idle
            }
            _ => return None,
        };
        Some(())
    }

    pub(crate) fn helper_actions(state: &State, actions: &mut Vec<Action>) {
        for (helper, now) in state.helpers.iter().enumerate() {
            match now {
                Helper::Idle => {
                    for (key, at) in state.keys.iter().enumerate() {
                        let open = at.guard.tentative.is_some() || at.done < at.guard.version;
                        if open && (helper == 1 || !state.held) {
                            actions.push(Action::HelperReads { helper, key });
                        }
                    }
                }
                Helper::Saw { .. } => actions.push(Action::HelperAsks { helper }),
                _ => actions.push(Action::HelperActs { helper }),
            }
        }
    }

    pub(crate) fn help(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::HelperReads { helper, key } => {
                let guard = state.keys[key].guard;
                state.helpers[helper] = if guard.tentative.is_some() {
                    Helper::Saw { key, guard }
                } else {
                    Helper::Completes { key, version: guard.version, image: guard.image }
                };
            }
            Action::HelperAsks { helper } => {
                let Helper::Saw { key, guard } = state.helpers[helper] else { return None };
                let outcome = match self.settle(state) {
                    Settle::Wait => None,
                    Settle::Abort => {
                        state.helpers[helper] = Helper::Aborts;
                        return Some(());
                    }
                    Settle::Forward(version) => Some((Outcome::Committed(version), guard.tentative?)),
                    Settle::Back => Some((Outcome::Aborted, guard.image)),
                };
                state.helpers[helper] = match outcome {
                    None => Helper::Idle,
                    Some((outcome, image)) => {
                        let made = settled(&guard.product()?, nonce(BATCH), outcome, nonce(SETTLED))?;
                        Helper::Sets(guard.proposed(key, &made, image, None))
                    }
                };
            }
            Action::HelperActs { helper } => {
                match state.helpers[helper] {
                    Helper::Aborts if state.row == Row::Pending || self.broken(BatchRule::AbortIsACas) => {
                        state.row = Row::Aborted;
                    }
                    Helper::Sets(proposal) => {
                        self.cas(state, proposal);
                    }
                    Helper::Completes { key, version, image } => {
                        let key = &mut state.keys[key];
                        if version >= key.target.1 {
                            key.target = (image, version);
                        }
                        key.done = key.done.max(version);
                    }
                    _ => {}
                }
                state.helpers[helper] = Helper::Idle;
            }
            _ => return None,
        }
        Some(())
    }

    pub(crate) fn named(state: &State) -> bool {
        state.keys.iter().any(|key| key.guard.tentative.is_some())
    }

    pub(crate) fn complete(state: &State) -> bool {
        !Self::named(state) && state.keys.iter().all(|key| key.done >= key.guard.version)
    }

    pub(crate) fn world_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if !state.deadline_passed {
            actions.push(Action::DeadlinePasses);
        }
        if self.broken(BatchRule::RowStays) && !matches!(state.row, Row::None) {
            actions.push(Action::RowExpires);
        }
        let is_settled = matches!(state.row, Row::Committed(_) | Row::Aborted);
        if is_settled && !Self::named(state) {
            actions.push(Action::RemoveRow);
        }
        if self.lapse {
            let idle = state.single == Single::Idle && state.helpers[0] == Helper::Idle;
            let made = state.lapsed || matches!(state.maker, Maker::Idle | Maker::Over);
            if !state.swept && Self::complete(state) && state.helpers[1] == Helper::Idle {
                actions.push(Action::Swept);
            }
            if state.swept && !state.held {
                actions.push(Action::Hold);
            }
            if state.held && state.swept && idle && made && !state.over {
                actions.push(Action::End);
            }
        }
    }

    /// The epoch ends: what is complete has reached MySQL, and nothing else happens.
    pub(crate) fn end(state: &mut State) {
        state.over = true;
        let happened = |key: &Key| key.done >= key.guard.version && key.guard.recent & (1 << BATCH) != 0;
        match state.keys.iter().filter(|key| happened(key)).count() {
            1 => state.wrong = Some(HALF),
            0 => state.keys.iter_mut().for_each(|key| key.history.retain(|(_, by)| *by != BATCH)),
            _ => {}
        }
    }
}
