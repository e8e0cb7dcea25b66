//! Apply: records to Cassandra, in any order, one by one or folded, and some of them again.

use tandem_mapping::fold;
use tandem_model::{Mutation, Write as ProductWrite};

use crate::protocol::{Protocol, Rule};
use crate::state::{Action, Aside, Record, State};
use crate::table::{SmallChange, mutations, passes_the_filter, placed};

impl Protocol {
    pub(crate) fn apply_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let places: Vec<usize> = state.unapplied().collect();
        for &place in &places {
            if self.broken(Rule::AnswerBeforeOffset) {
                actions.push(Action::Acknowledge { place });
            } else {
                actions.push(Action::Apply { from: place, to: place });
            }
            if state.dead_letters_left > 0 && state.aside == Aside::Nothing {
                actions.push(Action::PutAside { place });
            }
        }
        if self.bounds.batches && !self.broken(Rule::AnswerBeforeOffset) {
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
    }

    pub(crate) fn apply(&self, state: &mut State, from: usize, to: usize) {
        let mut mutations = Vec::new();
        for place in from..=to {
            if let Record::Change { of, version } = state.log[place] {
                mutations.extend(self.changes(of, version));
                state.applied |= 1 << place;
            }
        }
        let folded =
            if self.broken(Rule::FoldingKeepsAll) { newest_alone(mutations) } else { fold(mutations) };
        state.write(placed(folded));
    }

    pub(crate) fn write_owed(&self, state: &mut State) {
        for place in 0..state.log.len() {
            if let Record::Change { of, version } = state.log[place]
                && state.owed & (1 << place) != 0
            {
                state.write(placed(self.changes(of, version)));
            }
        }
        state.owed = 0;
    }

    fn changes(&self, of: SmallChange, version: i16) -> Vec<Mutation> {
        let mut out = mutations(of, version);
        let outside = of.before.is_some_and(|before| !passes_the_filter(before));
        if self.broken(Rule::TombstoneOfARowOutside) && outside && of.after.is_none() {
            out.retain(|m| &*m.target != "by_id");
        }
        if of.before.is_some() && of.after.is_some() {
            let deletes = |target: &'static str| {
                move |m: &Mutation| m.write != ProductWrite::DeleteRow || &*m.target != target
            };
            if self.broken(Rule::TombstoneForTheOldKey) {
                out.retain(deletes("by_k"));
            }
            if self.broken(Rule::TombstoneOutsideTheFilter) {
                out.retain(deletes("by_id"));
            }
            if self.broken(Rule::NullWhereItBecameNull) {
                without_nulls(&mut out);
            }
        }
        out
    }
}

pub(crate) fn without_nulls(mutations: &mut [Mutation]) {
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
