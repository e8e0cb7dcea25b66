//! A search breadth first. It ends at the first state that is wrong, so its trace is a shortest one.
//!
//! Stateright's own search goes on for a block of states, and the trace that it returns is the last one of the block.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use stateright::{Model, Property};

/// A model with states that are equal but for names.
pub(crate) trait Explored: Model<State: Copy + Hash, Action: Copy> {
    /// The one state that stands for all of them.
    fn canonical(state: Self::State) -> Self::State {
        state
    }
}

/// What a search has found.
#[derive(Debug)]
pub(crate) struct Found<Action> {
    pub(crate) states: usize,
    /// The steps of the longest way that was gone.
    pub(crate) depth: usize,
    /// What became wrong, and how.
    pub(crate) wrong: Option<(&'static str, Vec<Action>)>,
}

/// Goes through all states within the bounds, in the order of their distance from the beginning.
pub(crate) fn breadth_first<M: Explored>(model: &M) -> Found<M::Action> {
    let properties = model.properties();
    let mut known: HashSet<u64, BuildHasherDefault<Fold>> = HashSet::default();
    // For each state that was met: the one before it, and which of its actions led here.
    let mut ways: Vec<(u32, u16)> = Vec::new();
    let mut waiting: VecDeque<(M::State, u32)> = VecDeque::new();
    let (mut level, mut depth) = (0, 0);
    let first = model.init_states().remove(0);
    known.insert(fingerprint::<M>(first));
    ways.push((0, 0));
    waiting.push_back((first, 0));
    let mut actions = Vec::new();
    while let Some((state, at)) = waiting.pop_front() {
        if at >= level {
            level = ways.len() as u32;
            depth += usize::from(at > 0);
        }
        if let Some(property) = properties.iter().find(|property| !holds(property, model, &state)) {
            return Found { states: ways.len(), depth, wrong: Some((property.name, way(model, &ways, at))) };
        }
        actions.clear();
        model.actions(&state, &mut actions);
        for (number, action) in actions.iter().enumerate() {
            let Some(next) = model.next_state(&state, *action) else { continue };
            if known.insert(fingerprint::<M>(next)) {
                waiting.push_back((next, ways.len() as u32));
                ways.push((at, number as u16));
            }
        }
    }
    Found { states: ways.len(), depth, wrong: None }
}

fn holds<M: Model>(property: &Property<M>, model: &M, state: &M::State) -> bool {
    (property.condition)(model, state)
}

fn fingerprint<M: Explored>(state: M::State) -> u64 {
    let state = M::canonical(state);
    let mut fold = Fold::default();
    state.hash(&mut fold);
    fold.finish()
}

/// A hasher for small fields: the same on every run, and each step mixes all bits.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0x9e37_79b9_7f4a_7c15) * 0xca5a_8263_9512_1157;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn way<M: Explored>(model: &M, ways: &[(u32, u16)], mut at: u32) -> Vec<M::Action> {
    let mut numbers = Vec::new();
    while at > 0 {
        let (before, number) = ways[at as usize];
        numbers.push(number);
        at = before;
    }
    let mut state = model.init_states().remove(0);
    let mut way = Vec::new();
    for number in numbers.into_iter().rev() {
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        let action = actions[number as usize];
        state = model.next_state(&state, action).unwrap();
        way.push(action);
    }
    way
}
