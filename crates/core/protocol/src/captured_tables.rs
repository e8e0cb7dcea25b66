//! Which tables a capture publishes from a watermark on.
//!
//! The invariant: from the first watermark that has a table on, the table's change topic holds all changes of the
//! table. Tables can share a topic, so the topic alone does not show since when a table is captured.
//!
//! A table that the log lacks changes of is not captured, until an operator has ordered a new copy of it. The copy borrows a
//! watermark that has the table again, so it begins after capture has taken the table up.
//!
//! A table that is added to a log that has begun gets a state before the first watermark that has it: it is copied and
//! verified before it is live. So the phase of the others says nothing about it. Until a gateway knows a watermark that has
//! the table, and the states of then, MySQL serves its rows.
//!
//! The tables stay the same within a transaction that is partly published. The changes of one that halts meanwhile are
//! published to the end of the transaction; apply skips them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tandem_model::{CapturedTables, Disposition, TableName, Watermark};
use tandem_wire::control::TableState;

use crate::table_state::is_captured;

/// Capture cannot continue after a watermark with the mapped tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TablesError {
    /// A table's changes would move to another topic.
    #[error(
        "the changes of {table} are in topic `{from}` and would move to `{to}`, which the readers of `{from}` would \
         not notice. Set the table's `topic` back in tandem.toml"
    )]
    Moved {
        /// The table.
        table: TableName,
        /// Its topic at the last watermark.
        from: Arc<str>,
        /// Its topic by the configuration.
        to: Arc<str>,
    },
    /// Capture met what it cannot carry in the middle of a MySQL transaction that is partly published.
    #[error(
        "the last watermark lies inside a MySQL transaction, and table {table} has rows in it that cannot be carried: the \
         count of the published rows may include some of its rows, so capture cannot tell where the others go on"
    )]
    HaltedInPartial {
        /// The table.
        table: TableName,
    },
    /// A table was taken out of the mapping in the middle of a MySQL transaction.
    #[error(
        "the last watermark lies inside a MySQL transaction, and a table was taken out of the mapping since. Start \
         once with the former list until the transaction is published, then change it"
    )]
    ChangedInPartial,
}

impl TablesError {
    /// The configuration or the log must change first.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Moved { .. } | Self::HaltedInPartial { .. } | Self::ChangedInPartial => Disposition::Stop,
        }
    }
}

/// Which of the mapped tables a capture publishes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The tables that it publishes, with their topics.
    pub tables: BTreeMap<TableName, Arc<str>>,
    /// The tables that it does not publish although nobody has said so yet: they were taken out of the mapping, or put
    /// back without an order to copy them. They must be halted.
    pub left_out: BTreeSet<TableName>,
    /// The tables that are new in a log that has begun. It publishes them once their states say that they are copied.
    pub added: BTreeSet<TableName>,
}

/// The role whose fault says that a table's changes cannot be carried.
pub const CAPTURE: &str = "capture";

/// Which tables a capture publishes that continues after the watermark `last`. `mapped` has the topic of each mapped table,
/// `state` the state of a table.
///
/// The tables stay the same within a partly published transaction, because the watermark counts the published rows of all.
///
/// # Errors
///
/// See [`TablesError`].
pub fn select<'a>(
    last: &Watermark,
    mapped: &BTreeMap<TableName, Arc<str>>,
    state: impl Fn(&TableName) -> Option<&'a TableState>,
) -> Result<Selection, TablesError> {
    let before = &last.tables;
    let mut selection = Selection::default();
    if last.partial.is_some() {
        for table in before.captured.keys() {
            let cannot_be_carried = |state: &TableState| !state.captured && state.by == CAPTURE;
            if state(table).is_some_and(cannot_be_carried) {
                return Err(TablesError::HaltedInPartial { table: table.clone() });
            }
            let topic = mapped.get(table).ok_or(TablesError::ChangedInPartial)?;
            selection.tables.insert(table.clone(), topic.clone());
        }
        stays(&selection.tables, &before.captured)?;
        return Ok(selection);
    }
    let has_begun = !before.captured.is_empty() || !before.retired.is_empty();
    for (table, topic) in mapped.iter().filter(|(table, _)| is_captured(state(table))) {
        if has_begun
            && !before.captured.contains_key(table)
            && state(table).is_none_or(|state| state.copy_from.is_none())
        {
            // Whoever takes a table out says so in its state, and only an order to copy it takes that back.
            let known = before.retired.contains(table);
            let held = if known { &mut selection.left_out } else { &mut selection.added };
            held.insert(table.clone());
            continue;
        }
        selection.tables.insert(table.clone(), topic.clone());
    }
    stays(&selection.tables, &before.captured)?;
    let captured = before.captured.keys().filter(|table| is_captured(state(table)));
    selection.left_out.extend(captured.filter(|table| !mapped.contains_key(*table)).cloned());
    Ok(selection)
}

/// Each table keeps its topic.
fn stays(
    tables: &BTreeMap<TableName, Arc<str>>,
    before: &BTreeMap<TableName, Arc<str>>,
) -> Result<(), TablesError> {
    for (table, to) in tables {
        if let Some(from) = before.get(table).filter(|from| *from != to) {
            let (table, from, to) = (table.clone(), Arc::clone(from), Arc::clone(to));
            return Err(TablesError::Moved { table, from, to });
        }
    }
    Ok(())
}

/// The tables of the watermarks after `before`, for a capture that publishes `captured`.
pub fn continued(before: &CapturedTables, captured: &BTreeMap<TableName, Arc<str>>) -> CapturedTables {
    let known = before.captured.keys().chain(&before.retired);
    CapturedTables {
        captured: captured.clone(),
        retired: known.filter(|table| !captured.contains_key(*table)).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table_state::{Changes, TableFault, add, halt, rebuild};
    use tandem_model::{BinlogPosition, GtidSet, PartialTransaction, Version};
    use tandem_wire::control::TableCondition;

    fn table(name: &str) -> TableName {
        TableName::new("d", name)
    }

    fn mapped(tables: &[(&str, &str)]) -> BTreeMap<TableName, Arc<str>> {
        tables.iter().map(|(name, topic)| (table(name), (*topic).into())).collect()
    }

    fn after(tables: CapturedTables) -> Watermark {
        Watermark {
            source: "s".into(),
            gtid_set: GtidSet::default(),
            position: BinlogPosition::default(),
            version: Version(1),
            tables: Arc::new(tables),
            offsets: BTreeMap::new(),
            partial: None,
            clock_us: 0,
        }
    }

    fn within(watermark: Watermark) -> Watermark {
        let gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1".parse().unwrap();
        Watermark { partial: Some(PartialTransaction { gtid, rows: 1 }), ..watermark }
    }

    fn lost(name: &str) -> TableState {
        let fault = TableFault {
            reason: "truncate".into(),
            cause: String::new(),
            by: String::new(),
            changes: Changes::NotCaptured,
        };
        halt(None, &table(name), &fault, &BTreeMap::new(), 1).unwrap()
    }

    #[test]
    fn a_table_that_leaves_does_not_come_back_without_a_copy() {
        let both = mapped(&[("a", "p.changes"), ("b", "p.changes")]);
        let one = mapped(&[("a", "p.changes")]);
        let first = after(continued(&CapturedTables::default(), &both));
        let left = select(&first, &one, |_| None).unwrap();
        assert_eq!((&left.tables, left.left_out), (&one, BTreeSet::from([table("b")])));
        let second = after(continued(&first.tables, &one));
        assert!(second.tables.retired.contains(&table("b")));
        let put_back = select(&second, &both, |_| None).unwrap();
        assert_eq!((&put_back.tables, put_back.left_out), (&one, BTreeSet::from([table("b")])));
        let halted = lost("b");
        let state = |name: &TableName| (*name == table("b")).then_some(&halted);
        assert_eq!(
            select(&second, &both, state).unwrap(),
            Selection { tables: one.clone(), ..Selection::default() }
        );
        let ordered = rebuild(Some(&halted), &table("b"), 1, "cli", "", 2);
        let state = |name: &TableName| (*name == table("b")).then_some(&ordered);
        assert_eq!(
            select(&second, &both, state).unwrap(),
            Selection { tables: both.clone(), ..Selection::default() }
        );
        // Whatever holds for the table by now.
        let again = TableState { condition: TableCondition::Halted, ..ordered.clone() };
        let state_again = |name: &TableName| (*name == table("b")).then_some(&again);
        assert_eq!(select(&second, &both, state_again).unwrap().tables, both);
        // Not in the middle of a transaction.
        assert_eq!(select(&within(second), &both, state).unwrap().tables, one);
    }

    #[test]
    fn a_table_that_is_halted_by_apply_is_still_captured() {
        let one = mapped(&[("a", "p.changes")]);
        let halted = TableState { captured: true, ..lost("a") };
        let last = after(continued(&CapturedTables::default(), &one));
        assert_eq!(select(&last, &one, |_| Some(&halted)).unwrap().tables, one);
    }

    #[test]
    fn a_table_does_not_move_to_another_topic() {
        let shared = mapped(&[("a", "p.changes")]);
        let first = after(continued(&CapturedTables::default(), &shared));
        let moved = select(&first, &mapped(&[("a", "p.d.a")]), |_| None).unwrap_err();
        assert_eq!(
            moved,
            TablesError::Moved { table: table("a"), from: "p.changes".into(), to: "p.d.a".into() }
        );
    }

    #[test]
    fn a_new_table_is_captured_once_its_state_says_that_it_is_copied() {
        let one = mapped(&[("a", "t")]);
        let more = mapped(&[("a", "t"), ("b", "t")]);
        let begun = after(continued(&CapturedTables::default(), &one));
        let added = select(&begun, &more, |_| None).unwrap();
        assert_eq!((&added.tables, added.added), (&one, BTreeSet::from([table("b")])));
        let ordered = add(None, &table("b"), 1, "capture", 2);
        assert!(ordered.condition == TableCondition::Verifying && ordered.copy_from.is_some());
        let state = |name: &TableName| (*name == table("b")).then_some(&ordered);
        assert_eq!(
            select(&begun, &more, state).unwrap(),
            Selection { tables: more.clone(), ..Selection::default() }
        );
        // The first tables of a log need no order: their copies are the first ones.
        let nothing = after(CapturedTables::default());
        assert_eq!(
            select(&nothing, &more, |_| None).unwrap(),
            Selection { tables: more, ..Selection::default() }
        );
    }

    #[test]
    fn the_tables_do_not_change_within_a_transaction() {
        let one = mapped(&[("a", "t")]);
        let more = mapped(&[("a", "t"), ("b", "t")]);
        let partial = within(after(continued(&CapturedTables::default(), &one)));
        let ordered = add(None, &table("b"), 1, "capture", 2);
        for state in [None, Some(&ordered)] {
            let of = |name: &TableName| state.filter(|_| *name == table("b"));
            let taken_up_later = select(&partial, &more, of).unwrap();
            assert_eq!(taken_up_later, Selection { tables: one.clone(), ..Selection::default() });
        }
        let partial = within(after(continued(&CapturedTables::default(), &more)));
        assert_eq!(select(&partial, &one, |_| None), Err(TablesError::ChangedInPartial));
        let halted = lost("b");
        let state = |name: &TableName| (*name == table("b")).then_some(&halted);
        // By an operator: its rows are counted, so they are published to the end.
        assert_eq!(select(&partial, &more, state).unwrap().tables, more);
        let halted = TableState { by: CAPTURE.into(), ..lost("b") };
        let state = |name: &TableName| (*name == table("b")).then_some(&halted);
        assert_eq!(select(&partial, &more, state), Err(TablesError::HaltedInPartial { table: table("b") }));
    }
}
