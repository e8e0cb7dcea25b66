//! The state of a table: one table halts, and the others go on.
//!
//! Whoever meets something that concerns a whole table halts the table instead of itself. From then on apply skips the
//! table's changes, and their offsets count as done. So the committed offsets say nothing about a table that is not live,
//! and everything that rests on "applied" asks for the table's state after the offsets.
//!
//! ```text
//!          halt                     resume                replayed              verified
//!  live ─────────► halted(from) ─────────────► replaying ──────────► verifying ──────────► live
//!    ▲                  │   the log holds its changes                    ▲
//!    │                  └────────────────────────────────────────────────┘
//!    └─ no record        rebuild: copy again, also if the log lacks changes
//! ```
//!
//! A statement that changes rows without row changes leads from live to verifying ([`recheck`]): no change is lost, and the
//! verification finds the rows that the statement has changed. Its state is written before a later change of the table is on
//! the log. A verification that began before counts no more.
//!
//! **Nothing is lost**, because every skipped change lies in the range that is replayed:
//!
//! - Records of states are written by one writer at a time, who has read all earlier ones ([`halt`] and the others get the
//!   newest state). `from` holds offsets that were committed *before* the first record said "halted". A change below them
//!   was applied, so every change that is skipped later lies at or above them.
//! - Apply skips a change only if the table was still halted when the control topic was read to its end *after* the change
//!   was fetched. So every skipped change was on the log before the record that says "replaying", and lies below the ends
//!   of the topics as they are after it.
//! - A table that halts again while it is replayed keeps the lower of both offsets.
//!
//! Versions make the order of replayed and new changes irrelevant. A rebuilt table needs no replay: its copy borrows a
//! watermark that was published after the record that ordered the copy, so it holds every row as the skipped changes left
//! it. What they deleted is found by the verification, which makes the table live.

use std::collections::BTreeMap;

use tandem_model::{Disposition, TableName};
use tandem_wire::control::{TableCondition, TableState};

/// The reason of a table that halts until its targets have a new column.
pub const NEW_COLUMN: &str = "new-column";

/// The reasons of a table that is verified after a statement that may have changed its definition.
const REDEFINED: [&str; 2] = ["alter-table", "rename-table"];

/// The reasons of a table that is verified after a statement that may have changed rows without row changes.
const REWRITTEN: [&str; 3] = ["alter-table", "rename-table", "truncate"];

/// Offsets by topic and partition.
pub type Offsets = BTreeMap<String, Vec<i64>>;

/// Why a table halts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFault {
    /// A short name, such as `plan`.
    pub reason: String,
    /// The error, without values of a row.
    pub cause: String,
    /// The role that met it.
    pub by: String,
    /// What becomes of the table's changes.
    pub changes: Changes,
}

/// What becomes of the changes of a table that halts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// They wait on the log.
    Wait,
    /// The log has lost some that were not applied. Later ones are on it.
    Expired,
    /// Capture does not publish them.
    NotCaptured,
}

/// An order that does not fit the state of its table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableOrderError {
    /// Only a halted table can resume.
    #[error("table {table} is {condition}, and only a halted table can resume")]
    NotHalted {
        /// The table.
        table: String,
        /// What holds for it.
        condition: TableCondition,
    },
    /// The log lacks changes of the table that were not applied.
    #[error("the log lacks changes of table {table} ({reason}): it must be rebuilt, which copies it again")]
    NotReplayable {
        /// The table.
        table: String,
        /// Why it has halted.
        reason: String,
    },
}

impl TableOrderError {
    /// What the caller does next. Each needs another order.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::NotHalted { .. } | Self::NotReplayable { .. } => Disposition::Refuse,
        }
    }
}

/// Whether the table's changes are applied. If not, apply skips them.
pub fn is_applied(state: Option<&TableState>) -> bool {
    state.is_none_or(|state| state.condition != TableCondition::Halted)
}

/// Whether a row check of the table can count: its changes are applied as those of other tables are.
pub fn is_checked(state: Option<&TableState>) -> bool {
    state.is_none_or(|state| matches!(state.condition, TableCondition::Live | TableCondition::Verifying))
}

/// Whether Cassandra may serve the table's rows.
pub fn is_live(state: Option<&TableState>) -> bool {
    state.is_none_or(|state| state.condition == TableCondition::Live)
}

/// Whether MySQL has another definition of the table since the table got this state. Whoever has a plan for the table reads the
/// definition again.
pub fn is_redefined(state: &TableState) -> bool {
    match state.condition {
        TableCondition::Halted => state.reason == NEW_COLUMN,
        TableCondition::Verifying => REDEFINED.contains(&state.reason.as_str()),
        TableCondition::Live | TableCondition::Replaying => false,
    }
}

/// Whether the table is verified because a statement has changed rows without row changes.
pub fn is_rewritten(state: &TableState) -> bool {
    state.condition == TableCondition::Verifying && REWRITTEN.contains(&state.reason.as_str())
}

/// Whether capture publishes the table's changes.
pub fn is_captured(state: Option<&TableState>) -> bool {
    state.is_none_or(|state| state.captured)
}

/// The state of a table that halts. `committed` are the offsets that apply's group had committed on the table's topics
/// before `current` was read. Returns `None` if the table has halted already, and nothing is new.
pub fn halt(
    current: Option<&TableState>,
    table: &TableName,
    fault: &TableFault,
    committed: &Offsets,
    now_us: i64,
) -> Option<TableState> {
    let halted = current.is_some_and(|state| state.condition == TableCondition::Halted);
    let captured = is_captured(current) && fault.changes != Changes::NotCaptured;
    let replayable = current.is_none_or(|state| state.replayable) && fault.changes == Changes::Wait;
    let worse = current.is_some_and(|state| state.captured != captured || state.replayable != replayable);
    if halted && !worse {
        return None;
    }
    // What was not replayed yet still has to be.
    let waiting = current.map(|state| &state.from).filter(|from| !from.is_empty());
    let from = match waiting {
        _ if !replayable => Offsets::new(),
        Some(waiting) => lower(waiting, committed),
        None => committed.clone(),
    };
    let TableFault { reason, cause, by, .. } = fault.clone();
    let next = next(current, table, TableCondition::Halted, now_us);
    Some(TableState { captured, replayable, from, reason, cause, by, ..next })
}

/// The state of a halted table whose changes are applied again, from the log.
///
/// # Errors
/// The table has not halted, or the log lacks changes of it.
pub fn resume(
    current: Option<&TableState>,
    table: &TableName,
    by: &str,
    now_us: i64,
) -> Result<TableState, TableOrderError> {
    match current {
        Some(state) if state.condition == TableCondition::Halted && state.replayable => {
            Ok(TableState { by: by.to_owned(), ..next(current, table, TableCondition::Replaying, now_us) })
        }
        Some(TableState { condition: TableCondition::Halted, reason, .. }) => {
            Err(TableOrderError::NotReplayable { table: table.to_string(), reason: reason.clone() })
        }
        _ => Err(TableOrderError::NotHalted {
            table: table.to_string(),
            condition: current.map_or(TableCondition::Live, |state| state.condition),
        }),
    }
}

/// The state of a table that is copied again. `version` is that of the newest watermark; if capture does not publish the
/// table, that watermark says so.
pub fn rebuild(
    current: Option<&TableState>,
    table: &TableName,
    version: i64,
    by: &str,
    reason: &str,
    now_us: i64,
) -> TableState {
    // Each order has a version of its own, so that no copy of an earlier one counts.
    let earlier = current.and_then(|state| state.copy_from).map_or(version, |earlier| earlier + 1);
    TableState {
        captured: true,
        replayable: true,
        from: Offsets::new(),
        copy_from: Some(version.max(earlier)),
        reason: "rebuild".to_owned(),
        cause: reason.to_owned(),
        by: by.to_owned(),
        ..next(current, table, TableCondition::Verifying, now_us)
    }
}

/// The state of a table that is new in a log that has begun. `version` is that of the newest watermark.
pub fn add(
    current: Option<&TableState>,
    table: &TableName,
    version: i64,
    by: &str,
    now_us: i64,
) -> TableState {
    TableState { reason: "added".to_owned(), ..rebuild(current, table, version, by, "", now_us) }
}

/// The state of a table whose rows a statement has changed without row changes. It is verified again: what differs is
/// repaired. `None` for a table that has halted or is replayed, because that ends with a verification anyway.
pub fn recheck(
    current: Option<&TableState>,
    table: &TableName,
    statement: &str,
    by: &str,
    now_us: i64,
) -> Option<TableState> {
    if !is_checked(current) {
        return None;
    }
    let reason = match current {
        // Whoever has a plan for the table still has to read its definition again.
        Some(earlier) if is_redefined(earlier) && !REDEFINED.contains(&&*reason_of(statement)) => {
            earlier.reason.clone()
        }
        _ => reason_of(statement),
    };
    Some(TableState {
        reason,
        cause: format!("{statement} may have changed rows without row changes"),
        by: by.to_owned(),
        ..next(current, table, TableCondition::Verifying, now_us)
    })
}

fn reason_of(statement: &str) -> String {
    statement.to_lowercase().replace(' ', "-")
}

/// The state after the replay that began with `incarnation`. `None` if that replay does not count any more.
pub fn replayed(current: Option<&TableState>, incarnation: i64, by: &str, now_us: i64) -> Option<TableState> {
    let state = of(current, incarnation, TableCondition::Replaying)?;
    Some(follow(state, TableCondition::Verifying, by, now_us))
}

/// The state after a clean verification of the table that began with `incarnation`. `None` if it does not count any more.
pub fn verified(current: Option<&TableState>, incarnation: i64, by: &str, now_us: i64) -> Option<TableState> {
    let state = of(current, incarnation, TableCondition::Verifying)?;
    Some(follow(state, TableCondition::Live, by, now_us))
}

fn of(current: Option<&TableState>, incarnation: i64, condition: TableCondition) -> Option<&TableState> {
    current.filter(|state| state.incarnation == incarnation && state.condition == condition)
}

fn follow(state: &TableState, condition: TableCondition, by: &str, now_us: i64) -> TableState {
    TableState {
        incarnation: state.incarnation + 1,
        condition,
        from: Offsets::new(),
        by: by.to_owned(),
        since_us: now_us,
        at_us: now_us,
        ..state.clone()
    }
}

/// The next state with everything that does not change.
fn next(
    current: Option<&TableState>,
    table: &TableName,
    condition: TableCondition,
    now_us: i64,
) -> TableState {
    let none = TableState {
        table: table.to_string(),
        incarnation: 0,
        condition,
        captured: true,
        replayable: true,
        from: Offsets::new(),
        copy_from: None,
        reason: String::new(),
        cause: String::new(),
        by: String::new(),
        since_us: now_us,
        at_us: now_us,
    };
    let current = current.cloned().unwrap_or(none);
    TableState { incarnation: current.incarnation + 1, condition, since_us: now_us, at_us: now_us, ..current }
}

/// The lower offset of each partition.
fn lower(one: &Offsets, other: &Offsets) -> Offsets {
    let mut lowest = other.clone();
    for (topic, offsets) in one {
        let known = lowest.entry(topic.clone()).or_insert_with(|| offsets.clone());
        for (known, offset) in known.iter_mut().zip(offsets) {
            *known = (*known).min(*offset);
        }
    }
    lowest
}

#[cfg(test)]
mod tests;
