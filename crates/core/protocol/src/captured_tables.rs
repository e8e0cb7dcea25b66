//! Which tables a capture publishes from a watermark on.
//!
//! The invariant: from the first watermark that has a table on, the table's change topic holds all changes of the
//! table. Tables can share a topic, so the topic alone does not show since when a table is captured.

use std::collections::BTreeMap;
use std::sync::Arc;

use tandem_model::{CapturedTables, Disposition, TableName, Watermark};

/// Capture cannot continue after a watermark with the mapped tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TablesError {
    /// A table was removed from the mapping and is mapped again.
    #[error(
        "table {table} was taken out of tandem.toml and put back, and what changed in between is not on the log"
    )]
    Retired {
        /// The table.
        table: TableName,
    },
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
    /// The mapped tables changed in the middle of a MySQL transaction.
    #[error(
        "the last watermark lies inside a MySQL transaction, and the list of mapped tables has changed since. Start \
         once with the former list until the transaction is published, then change it"
    )]
    ChangedInPartial,
}

impl TablesError {
    /// The configuration or the log must change first.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Retired { .. } | Self::Moved { .. } | Self::ChangedInPartial => Disposition::Stop,
        }
    }
}

/// The tables of a capture that continues after the watermark `last`. `mapped` has the topic of each mapped table.
///
/// # Errors
///
/// See [`TablesError`].
pub fn resumed(
    last: &Watermark,
    mapped: &BTreeMap<TableName, Arc<str>>,
) -> Result<CapturedTables, TablesError> {
    let before = &last.tables;
    if last.partial.is_some() && before.captured.keys().ne(mapped.keys()) {
        return Err(TablesError::ChangedInPartial);
    }
    for (table, topic) in mapped {
        if before.retired.contains(table) {
            return Err(TablesError::Retired { table: table.clone() });
        }
        if let Some(from) = before.captured.get(table).filter(|from| *from != topic) {
            let (table, from, to) = (table.clone(), Arc::clone(from), Arc::clone(topic));
            return Err(TablesError::Moved { table, from, to });
        }
    }
    Ok(resnapshot(before, mapped))
}

/// The tables after a re-snapshot. It copies every mapped table again, so a table may also come back or move.
pub fn resnapshot(before: &CapturedTables, mapped: &BTreeMap<TableName, Arc<str>>) -> CapturedTables {
    let known = before.captured.keys().chain(&before.retired);
    CapturedTables {
        captured: mapped.clone(),
        retired: known.filter(|table| !mapped.contains_key(*table)).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::{BinlogPosition, GtidSet, PartialTransaction, Version};

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

    #[test]
    fn a_table_that_leaves_does_not_come_back_without_a_resnapshot() {
        let both = mapped(&[("a", "p.changes"), ("b", "p.changes")]);
        let one = mapped(&[("a", "p.changes")]);
        let first = resumed(&after(CapturedTables::default()), &both).unwrap();
        assert_eq!((&first.captured, first.retired.len()), (&both, 0));
        let second = resumed(&after(first), &one).unwrap();
        assert_eq!((&second.captured, second.retired.contains(&table("b"))), (&one, true));
        let third = resumed(&after(second.clone()), &both);
        assert_eq!(third, Err(TablesError::Retired { table: table("b") }));
        let copied = resnapshot(&second, &both);
        assert_eq!((&copied.captured, copied.retired.len()), (&both, 0));
    }

    #[test]
    fn a_table_does_not_move_to_another_topic() {
        let shared = mapped(&[("a", "p.changes")]);
        let first = resumed(&after(CapturedTables::default()), &shared).unwrap();
        let moved = resumed(&after(first), &mapped(&[("a", "p.d.a")])).unwrap_err();
        assert_eq!(
            moved,
            TablesError::Moved { table: table("a"), from: "p.changes".into(), to: "p.d.a".into() }
        );
    }

    #[test]
    fn the_tables_do_not_change_within_a_transaction() {
        let first = resumed(&after(CapturedTables::default()), &mapped(&[("a", "t")])).unwrap();
        let gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1".parse().unwrap();
        let partial = Watermark { partial: Some(PartialTransaction { gtid, rows: 1 }), ..after(first) };
        let more = mapped(&[("a", "t"), ("b", "t")]);
        assert_eq!(resumed(&partial, &more), Err(TablesError::ChangedInPartial));
        assert!(resumed(&partial, &mapped(&[("a", "t")])).is_ok());
    }
}
