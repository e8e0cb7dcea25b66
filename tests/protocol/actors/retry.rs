//! A change that apply has put aside, and its retry: the row is read again at a watermark, never the
//! image written.

use tandem_model::Version;
use tandem_protocol::dead_letter::least_version;

use crate::actors::apply::without_nulls;
use crate::protocol::{Protocol, Rule};
use crate::state::{Action, Aside, Check, State};
use crate::table::{former_keys, placed, retry};

impl Protocol {
    pub(crate) fn retry_actions(&self, state: &State, actions: &mut Vec<Action>) {
        match state.aside {
            Aside::Waiting { place } if self.retry_borrow(state, place).is_some() => {
                actions.push(Action::RetryBorrow);
            }
            Aside::Borrowed { .. } => actions.push(Action::RetryRead),
            Aside::Read { .. } => actions.push(Action::RetryWrite),
            _ => {}
        }
    }

    /// The version that a retry may borrow: the newest watermark's, once it lies above the change.
    fn retry_borrow(&self, state: &State, change: u8) -> Option<i16> {
        let (_, version) = self.borrow(state)?;
        let least = least_version(Version(state.change_at(change).1.into()));
        (Version(version.into()) >= least || self.broken(Rule::RetryAboveTheChange)).then_some(version)
    }

    pub(crate) fn put_aside(state: &mut State, place: usize) {
        state.applied |= 1 << place;
        state.aside = Aside::Waiting { place: place as u8 };
        state.dead_letters_left -= 1;
    }

    pub(crate) fn retry(&self, state: &mut State) -> Option<()> {
        state.aside = match state.aside {
            Aside::Waiting { place } => Aside::Borrowed { place, version: self.retry_borrow(state, place)? },
            Aside::Borrowed { place, version } => {
                let id = state.change_at(place).0.id;
                Aside::Read { place, version, row: state.rows(state.visible as usize)[id as usize - 1] }
            }
            Aside::Read { place, version, row } => {
                let (of, _) = state.change_at(place);
                let mut former = former_keys(of);
                if self.broken(Rule::RetryTombstonesTheOldKeys) {
                    former.clear();
                }
                let mut mutations = retry(of.id, row, &former, version);
                if self.broken(Rule::RetryWritesNulls) {
                    without_nulls(&mut mutations);
                }
                state.write(placed(mutations));
                if !self.broken(Rule::AsideIsNotChecked) {
                    // A check that has been under way meanwhile begins again.
                    for check in &mut state.checks {
                        if check.id() == Some(of.id) {
                            *check = Check::Idle;
                        }
                    }
                }
                Aside::Nothing
            }
            Aside::Nothing => return None,
        };
        Some(())
    }
}
