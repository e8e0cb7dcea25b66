//! A table halts, its changes are skipped, and all of them are replayed.
//!
//! One partition holds the table's changes. Two applies may read it at once, as after a rebalance. The table may break at
//! any moment, twice, and an operator mends and resumes it. A client reads with a token. The states of the table are the
//! product's, and so are the functions that make one of another.

use std::fmt::Write as _;
use std::path::Path;

use stateright::{Model, Property};
use tandem_model::TableName;
use tandem_protocol::table_state::{
    Changes, Offsets, TableFault, halt, is_applied, is_live, replayed, resume, verified,
};
use tandem_wire::control::{TableCondition, TableState};

use crate::search::{Explored, breadth_first};

/// The changes of the table, each at its own offset.
const CHANGES: u8 = 2;
/// How often the table may break.
const BREAKS: u8 = 2;
/// The records of the control topic.
const RECORDS: usize = 9;

/// What may be broken alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Who writes a state has read all earlier ones.
    OneWriter,
    /// A change is skipped by the states that were read after it was fetched.
    SkippedByLaterStates,
    /// The topics' ends are asked for after the record that says "replaying".
    EndsAfterReplaying,
    /// A table that halts again keeps the lower offsets.
    LowerOffsets,
    /// A replay of an earlier state does not count.
    ReplayOfThisState,
    /// A change is skipped only after the record that says "halted".
    HaltedBeforeSkipped,
    /// A read asks for the states after the offsets.
    StatesAfterOffsets,
    /// A table that was replayed is verified before it is live.
    LiveAfterAll,
}

/// Where the offsets are asked for is not a rule: nobody writes a state between the others' and one's own, so nothing is
/// skipped in between.
const RULES: [(Rule, &str); 8] = [
    (Rule::OneWriter, "who writes a state has read all earlier ones, and nobody writes in between"),
    (Rule::SkippedByLaterStates, "a change is skipped by states that were read after it was fetched"),
    (Rule::EndsAfterReplaying, "a replay asks for the ends of the topics after the record that says so"),
    (Rule::LowerOffsets, "a table that halts again before it is replayed keeps the lower offsets"),
    (Rule::ReplayOfThisState, "a replay counts only while the state is the one with which it began"),
    (Rule::HaltedBeforeSkipped, "a table halts before its changes are skipped"),
    (Rule::StatesAfterOffsets, "a read with a token asks for the table's state after the offsets"),
    (Rule::LiveAfterAll, "Cassandra serves a table only once it is replayed"),
];

/// A record of the table's state, as far as the model needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Record {
    condition: TableCondition,
    /// Where the replay begins. `None` if there is nothing to replay.
    from: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Apply {
    Idle,
    /// It has fetched the changes from `low` to `high`, and knew so many records of states then.
    Fetched {
        low: u8,
        high: u8,
        seen: u8,
    },
    /// The table is broken. It has asked for the offsets, if the rule holds, and knows so many records.
    Halting {
        low: u8,
        high: u8,
        offsets: u8,
        seen: u8,
    },
    /// The changes below `high` are applied or skipped.
    Done {
        high: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    /// The changes on the log.
    log: u8,
    /// The changes in Cassandra, as bits.
    applied: u8,
    committed: u8,
    records: [Record; RECORDS],
    count: u8,
    broken: bool,
    breaks: u8,
    applies: [Apply; 2],
    /// The incarnation of the replay that runs, where it goes on, and its end.
    replay: Option<(u8, u8, u8)>,
    /// The states that the replay has seen at its last step.
    replay_seen: u8,
    /// The end of the topic when the operator gave the order.
    ordered_end: u8,
    /// A read of the newest change: what it knows of the states, and whether the offsets cover its token.
    read: Option<(u8, bool)>,
    stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Publish,
    Break,
    /// It knows all records of states but so many.
    Fetch(u8, u8),
    /// Maps what was fetched: applies it, skips it, or begins to halt the table.
    Map(u8),
    Halt(u8),
    Commit(u8),
    Mend,
    Resume,
    Replay,
    Replayed,
    Verify,
    Read,
    AskOffsets,
    Answer,
}

struct Tables {
    without: Option<Rule>,
}

fn table() -> TableName {
    TableName::new("d", "t")
}

impl State {
    /// The newest of the first `seen` records, as the product has it.
    fn state(&self, seen: u8) -> Option<TableState> {
        let Record { condition, from } = self.records[usize::from(seen.checked_sub(1)?)];
        let from = from.map(|from| ("t".to_owned(), vec![i64::from(from)])).into_iter().collect();
        Some(TableState {
            table: table().to_string(),
            incarnation: i64::from(seen),
            condition,
            captured: true,
            replayable: true,
            from,
            copy_from: None,
            reason: String::new(),
            cause: String::new(),
            by: String::new(),
            since_us: 0,
            at_us: 0,
        })
    }

    /// Whether there is room for another record. Where the bounds end, nothing is judged.
    fn push(&mut self, next: &TableState) -> bool {
        let from = next.from.get("t").map(|from| from[0] as u8);
        let Some(record) = self.records.get_mut(usize::from(self.count)) else { return false };
        *record = Record { condition: next.condition, from };
        self.count += 1;
        true
    }

    fn newest(&self) -> Option<TableState> {
        self.state(self.count)
    }
}

impl Tables {
    fn holds(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn step(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        match action {
            Action::Publish => next.log += 1,
            Action::Break => {
                next.broken = true;
                next.breaks += 1;
            }
            Action::Fetch(i, late) => {
                let (low, high, seen) = (state.committed, state.log, state.count - late);
                next.applies[usize::from(i)] = Apply::Fetched { low, high, seen };
            }
            Action::Map(i) => next.applies[usize::from(i)] = self.map(&mut next, i)?,
            Action::Halt(i) => {
                let Apply::Halting { low, high, offsets, seen } = state.applies[usize::from(i)] else {
                    return None;
                };
                // Without the rule, it writes by what it knew before.
                let seen = if self.holds(Rule::OneWriter) { state.count } else { seen };
                let mut current = state.state(seen);
                if !self.holds(Rule::LowerOffsets)
                    && let Some(current) = &mut current
                {
                    current.from = Offsets::new();
                }
                let fault = TableFault {
                    reason: String::new(),
                    cause: String::new(),
                    by: String::new(),
                    changes: Changes::Wait,
                };
                let committed = Offsets::from([("t".to_owned(), vec![i64::from(offsets)])]);
                if let Some(halted) = halt(current.as_ref(), &table(), &fault, &committed, 0)
                    && !next.push(&halted)
                {
                    return None;
                }
                let seen = next.count;
                next.applies[usize::from(i)] = Apply::Fetched { low, high, seen };
            }
            Action::Commit(i) => {
                let Apply::Done { high } = state.applies[usize::from(i)] else { return None };
                next.committed = state.committed.max(high);
                next.applies[usize::from(i)] = Apply::Idle;
            }
            Action::Mend => {
                next.broken = false;
                next.ordered_end = state.log;
            }
            Action::Resume => {
                let resumed = resume(state.newest().as_ref(), &table(), "", 0).ok()?;
                if !next.push(&resumed) {
                    return None;
                }
            }
            Action::Replay => self.replay(&mut next)?,
            Action::Replayed => {
                let (incarnation, from, end) = state.replay?;
                if from < end {
                    return None;
                }
                // Without the rule, it writes by what it knew before.
                let seen = if self.holds(Rule::OneWriter) { state.count } else { state.replay_seen };
                let (mut current, mut counted) = (state.state(seen), incarnation);
                if !self.holds(Rule::ReplayOfThisState)
                    && let Some(current) = &mut current
                {
                    (current.condition, counted) = (TableCondition::Replaying, seen);
                }
                next.replay = None;
                if let Some(done) = replayed(current.as_ref(), i64::from(counted), "", 0)
                    && !next.push(&done)
                {
                    return None;
                }
            }
            Action::Verify => {
                let newest = state.newest()?;
                let live = verified(Some(&newest), newest.incarnation, "", 0)?;
                if !next.push(&live) {
                    return None;
                }
            }
            Action::Read => next.read = Some((state.count, false)),
            Action::AskOffsets => {
                let (seen, _) = state.read?;
                next.read = Some((seen, state.committed == CHANGES));
            }
            Action::Answer => {
                let (seen, covered) = state.read?;
                let seen = if self.holds(Rule::StatesAfterOffsets) { state.count } else { seen };
                let known = state.state(seen);
                let live = if self.holds(Rule::LiveAfterAll) {
                    is_live(known.as_ref())
                } else {
                    is_applied(known.as_ref())
                };
                next.stale = covered && live && state.applied & (1 << (CHANGES - 1)) == 0;
                next.read = None;
            }
        }
        Some(next)
    }

    fn map(&self, next: &mut State, i: u8) -> Option<Apply> {
        let Apply::Fetched { low, high, seen } = next.applies[usize::from(i)] else { return None };
        let seen = if self.holds(Rule::SkippedByLaterStates) { next.count } else { seen };
        if !is_applied(next.state(seen).as_ref()) {
            return Some(Apply::Done { high });
        }
        if next.broken {
            if !self.holds(Rule::HaltedBeforeSkipped) && next.count == 0 {
                // It goes on at once, and halts the table behind what it has skipped.
                next.committed = next.committed.max(high);
            }
            return Some(Apply::Halting { low, high, offsets: next.committed, seen: next.count });
        }
        for offset in low..high {
            next.applied |= 1 << offset;
        }
        Some(Apply::Done { high })
    }

    /// Begins a replay, or replays one more change.
    fn replay(&self, next: &mut State) -> Option<()> {
        next.replay_seen = next.count;
        match next.replay {
            None => {
                let state = next.newest().filter(|s| s.condition == TableCondition::Replaying)?;
                let end = if self.holds(Rule::EndsAfterReplaying) { next.log } else { next.ordered_end };
                let from = state.from.get("t").map_or(end, |from| (from[0] as u8).min(end));
                next.replay = Some((next.count, from, end));
            }
            Some((incarnation, from, end)) if from < end && !next.broken => {
                next.applied |= 1 << from;
                next.replay = Some((incarnation, from + 1, end));
            }
            Some(_) => return None,
        }
        Some(())
    }
}

impl Model for Tables {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let none = Record { condition: TableCondition::Live, from: None };
        vec![State {
            log: 0,
            applied: 0,
            committed: 0,
            records: [none; RECORDS],
            count: 0,
            broken: false,
            breaks: 0,
            applies: [Apply::Idle; 2],
            replay: None,
            replay_seen: 0,
            ordered_end: 0,
            read: None,
            stale: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.log < CHANGES {
            actions.push(Action::Publish);
        }
        if !state.broken && state.breaks < BREAKS {
            actions.push(Action::Break);
        }
        for i in 0..2 {
            match state.applies[usize::from(i)] {
                Apply::Idle if state.committed < state.log => {
                    let late = if self.holds(Rule::SkippedByLaterStates) { 0 } else { state.count.min(2) };
                    actions.extend((0..=late).map(|late| Action::Fetch(i, late)));
                }
                Apply::Idle => {}
                Apply::Fetched { .. } => actions.push(Action::Map(i)),
                Apply::Halting { .. } => actions.push(Action::Halt(i)),
                Apply::Done { .. } => actions.push(Action::Commit(i)),
            }
        }
        let condition = state.newest().map(|state| state.condition);
        if state.broken {
            actions.push(Action::Mend);
        }
        if condition == Some(TableCondition::Halted) && !state.broken {
            actions.push(Action::Resume);
        }
        actions.push(Action::Replay);
        if state.replay.is_some() {
            actions.push(Action::Replayed);
        }
        // A verification finds nothing while all that is committed is in Cassandra. It is the replay that has to see to
        // that, so a verification is not asked whether it is true.
        if condition == Some(TableCondition::Verifying) {
            actions.push(Action::Verify);
        }
        match state.read {
            None if state.log == CHANGES => actions.push(Action::Read),
            None => {}
            Some(_) => actions.extend([Action::AskOffsets, Action::Answer]),
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.step(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a change is lost", |_, state: &State| {
                let at_rest = state.log == CHANGES
                    && state.committed == CHANGES
                    && state.applies == [Apply::Idle; 2]
                    && state.replay.is_none()
                    && state.newest().is_none_or(|state| {
                        matches!(state.condition, TableCondition::Live | TableCondition::Verifying)
                    });
                !at_rest || state.applied == (1 << CHANGES) - 1
            }),
            Property::always("a client reads something older than its own write", |_, state: &State| {
                !state.stale
            }),
        ]
    }
}

impl Explored for Tables {}

#[test]
fn with_every_rule_no_change_is_lost() {
    let found = breadth_first(&Tables { without: None });
    assert!(found.wrong.is_none(), "{:#?}", found.wrong);
    assert!(found.states > 10_000, "{}", found.states);
}

/// Writes and checks `docs/halted-tables.md`.
#[test]
fn without_any_rule_something_goes_wrong() {
    let (mut table, mut traces, mut unbroken) = (String::new(), String::new(), Vec::new());
    for (number, (rule, says)) in (1..).zip(RULES) {
        let Some((what, way)) = breadth_first(&Tables { without: Some(rule) }).wrong else {
            unbroken.push(says);
            continue;
        };
        let _ = writeln!(table, "| {number}. {says} | {what} | {} |", way.len());
        let _ = write!(traces, "\n### {number}. {says}\n\nWithout it, {what}:\n\n");
        for (step, action) in (1..).zip(way) {
            let _ = writeln!(traces, "{step}. `{action:?}`");
        }
    }
    assert!(unbroken.is_empty(), "nothing goes wrong without: {unbroken:#?}");
    let page = format!(
        "# The rules of halted tables, and what breaks without each\n\n\
         Made by `tests/protocol/halted_tables.rs`: each rule is broken alone, and the search finds a shortest way to something \
         wrong.\n\n| rule | without it | steps |\n|---|---|---|\n{table}\n## The traces\n{traces}"
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/halted-tables.md");
    if std::env::var_os("TANDEM_WRITE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
    } else {
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        let remedy = "run this test with TANDEM_WRITE_DOCS=1";
        assert!(known == page, "docs/halted-tables.md is not what the model says: {remedy}");
    }
}
