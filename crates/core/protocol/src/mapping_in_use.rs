//! Which mapping apply uses while its processes are restarted, one after the other, with another one.
//!
//! The invariant: a change is lost to no column. What was applied by another layout of a table is covered by the copy that
//! the table gets for its present layout.
//!
//! - **One layout at a time.** A process with another layout than the members of apply's group waits until the last of them
//!   has left, and joins then. Until that moment the old processes go on, whatever share of the partitions they have to
//!   take over. Nothing waits for an order by hand, and going back to the old mapping is the same.
//! - **Checked with every assignment.** Processes that see an empty group at the same time may join it together. So each
//!   member asks again once it has partitions, before it reads a record: which layout is in use, and who else is a member
//!   ([`turn`]). The record of the layout in use decides. A member that Kafka has expelled, for example because it was
//!   paused, cannot commit, and is asked again when it comes back.
//! - **The copy begins behind.** A member writes the record of its layout when it sees no member of another one. It
//!   reads the newest watermark after that. Whatever the others have applied and committed lies at or below it: it came to
//!   the log in a Kafka transaction that ended with a watermark at or below this one. What they have not committed is
//!   applied again, by the new layout. A table whose layout is another one than before is copied anew, at watermarks above
//!   that (`since`). So its rows are read from a MySQL that has executed all of these changes. The copy overwrites every cell,
//!   NULLs included: the layout may have been in use before.
//! - **Changes from before an ALTER may lack what the mapping needs**, such as a column that was added since. Those below
//!   `since` are applied as far as they go, because the copy overwrites the rows that they leave ([`is_overwritten`]). All
//!   changes from before the definitions that the layout rests on are below it: the watermark that it is taken from covers
//!   what MySQL had executed when they were read. A change at or above it that does not fit halts its table: after a column was renamed in MySQL and in the mapping, say, the layout
//!   is the same and no copy comes.
//! - **Repairs and checks of another mapping do not count.** Whoever compares or repairs rows by a mapping asks after its last
//!   read, and before it writes or reports, whether that mapping is still in use. A repair has the version of a watermark
//!   that it borrowed before it asked. So if the mapping changes after that, that watermark is older than the record of the
//!   new one, and the copy wins: it begins above the newest watermark that it sees after it has read that record. Without the
//!   question, a dead letter of the new mapping could be settled by a retry that does not write the new column.
//!
//! The group's members are told apart by their client ids, which carry the layout. Kafka itself has the list, and a process
//! that is not on it cannot commit offsets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use tandem_mapping::TablePlan;
use tandem_model::{TableName, Version};
use tandem_wire::control::{BackfillProgress, MappingInUse, TableInUse};
use tandem_wire::fingerprint;

/// The layouts of a process's mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layouts {
    layout: String,
    configured: String,
    /// By `database.table`.
    tables: BTreeMap<String, String>,
}

/// What a member of apply's group does with its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It applies: its layout is in use.
    Apply,
    /// It leaves the group, and waits until the members with another layout have left.
    Leave,
    /// Its layout comes into use, or its spelling of the layout in use is another one: it writes the record.
    Begin,
}

impl Layouts {
    /// The layouts of these plans. `configured` is [`configured`] of the same mapping.
    ///
    /// A mapped table that has halted may have no plan (`left_out`). It keeps the layout that is in use: it is no reason
    /// for other processes to wait, and once it is back it is copied if its layout is another one then.
    pub fn of(
        plans: &[Arc<TablePlan>],
        left_out: &[TableName],
        in_use: Option<&MappingInUse>,
        configured: String,
    ) -> Self {
        let planned = plans.iter().map(|plan| (plan.source().name.to_string(), fingerprint(&plan.layout())));
        Self::new(planned, left_out, in_use, configured)
    }

    fn new(
        planned: impl IntoIterator<Item = (String, String)>,
        left_out: &[TableName],
        in_use: Option<&MappingInUse>,
        configured: String,
    ) -> Self {
        let mut tables: BTreeMap<_, _> = planned.into_iter().collect();
        for table in left_out.iter().map(TableName::to_string) {
            let known = in_use.and_then(|in_use| in_use.tables.iter().find(|known| known.table == table));
            if let Some(known) = known {
                tables.insert(table, known.layout.clone());
            }
        }
        let mut all = String::new();
        for (table, layout) in &tables {
            // Writing to a String cannot fail.
            let _ = writeln!(all, "{table} {layout}");
        }
        Self { layout: fingerprint(&all), configured, tables }
    }

    /// The hash of all layouts.
    pub fn layout(&self) -> &str {
        &self.layout
    }

    /// Whether apply uses these layouts, or none yet.
    pub fn are_in_use(&self, in_use: Option<&MappingInUse>) -> bool {
        in_use.is_none_or(|in_use| in_use.layout == self.layout)
    }

    /// Whether apply uses other layouts for the same configured mapping: MySQL's tables have other definitions by now.
    pub fn are_superseded(&self, in_use: Option<&MappingInUse>) -> bool {
        !self.are_in_use(in_use) && in_use.is_some_and(|in_use| in_use.configured == self.configured)
    }

    /// Whether apply uses this layout of a table, or none yet.
    pub fn is_table_in_use(&self, table: &TableName, in_use: Option<&MappingInUse>) -> bool {
        let table = table.to_string();
        let mine = self.tables.get(&table);
        in_use.is_none_or(|in_use| {
            let used = in_use.tables.iter().find(|known| known.table == table);
            used.map(|used| &used.layout) == mine
        })
    }
}

/// The hash of a configured mapping: of the name and the spelling of each table.
pub fn configured<'a>(tables: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let tables: BTreeMap<_, _> = tables.into_iter().collect();
    fingerprint(&format!("{tables:?}"))
}

/// What a member does once it has partitions. `others` says whether the group has members with another layout.
///
/// Members with one layout may begin at the same time. Each record is valid, because each was written by a member that saw
/// no other layout. To wait for one another would stop them all: a member that is being asked holds up the rebalance that
/// the other one needs.
pub fn turn(mine: &Layouts, in_use: Option<&MappingInUse>, others: bool) -> Turn {
    match in_use {
        Some(in_use) if in_use.layout == mine.layout => {
            if others || in_use.configured == mine.configured {
                Turn::Apply
            } else {
                Turn::Begin
            }
        }
        _ if others => Turn::Leave,
        _ => Turn::Begin,
    }
}

/// The record of a layout that comes into use after `before`. If only the spelling is another one, it differs in nothing else.
/// `newest` is the version of the newest watermark, read while the group had no member with another layout.
pub fn begin(
    mine: &Layouts,
    before: Option<&MappingInUse>,
    newest: Option<Version>,
    now_us: i64,
) -> MappingInUse {
    let same = before.filter(|before| before.layout == mine.layout);
    // Above the newest version: at the same one, a tombstone of an earlier copy would win over the row.
    let above = newest.map(|version| version.0 + 1);
    // A table that was not mapped before was applied by no other layout. One that was taken out and comes back has a
    // rebuild, which is a copy of its own.
    let since = |table: &str, layout: &str| {
        let known = before?.tables.iter().find(|known| known.table == table)?;
        if known.layout == layout { known.since } else { above }
    };
    let tables = mine.tables.iter().map(|(table, layout)| TableInUse {
        since: since(table, layout),
        table: table.clone(),
        layout: layout.clone(),
    });
    MappingInUse {
        generation: same.map_or(before.map_or(0, |b| b.generation) + 1, |same| same.generation),
        layout: mine.layout.clone(),
        configured: mine.configured.clone(),
        tables: tables.collect(),
        at_us: now_us,
    }
}

/// From where on the copy of a table counts while `in_use` is the mapping.
pub fn since(in_use: Option<&MappingInUse>, table: &str) -> Option<Version> {
    let table = in_use?.tables.iter().find(|known| known.table == table)?;
    table.since.map(Version)
}

/// Whether the copy of a table overwrites all that a change with this version leaves in the targets.
///
/// The copy begins at versions of `since` and above. So a change from before an ALTER may lack what a later mapping needs.
pub fn is_overwritten(version: Option<Version>, since: Option<Version>) -> bool {
    version.zip(since).is_some_and(|(version, since)| version < since)
}

/// The hash that a copy of a table with this layout has in its progress. A layout that comes into use again, after
/// another one, needs a copy of its own.
pub fn copy_hash(layout: &str, since: Option<Version>) -> String {
    match since {
        None => layout.to_owned(),
        Some(since) => fingerprint(&format!("{layout} since {since}")),
    }
}

/// Whether a copy of a table is one for its layout in the mapping in use. Another one does not count.
pub fn is_of_mapping_in_use(in_use: Option<&MappingInUse>, progress: &BackfillProgress) -> bool {
    let tables = in_use.into_iter().flat_map(|in_use| &in_use.tables);
    let mut of_table = tables.filter(|known| known.table == progress.table);
    of_table.all(|known| progress.mapping == copy_hash(&known.layout, known.since.map(Version)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_a_plan_keeps_the_layout_in_use() {
        let table = |name: &str, layout: &str| (name.to_owned(), layout.to_owned());
        let of = |planned: &[(String, String)], left_out: &[TableName], in_use: Option<&MappingInUse>| {
            Layouts::new(planned.iter().cloned(), left_out, in_use, String::new())
        };
        let whole = of(&[table("d.a", "1"), table("d.b", "1")], &[], None);
        let in_use = begin(&whole, None, None, 0);
        let left_out: [TableName; 1] = ["d.a".parse().unwrap()];
        let without = of(&[table("d.b", "1")], &left_out, Some(&in_use));
        assert_eq!(without, whole);
        assert_eq!(turn(&without, Some(&in_use), true), Turn::Apply);
        // It comes back with another layout, and its copies from before do not count.
        let back = of(&[table("d.a", "2"), table("d.b", "1")], &[], None);
        let then = begin(&back, Some(&in_use), Some(Version(7)), 0);
        assert_eq!(["d.a", "d.b"].map(|name| since(Some(&then), name)), [Some(Version(8)), None]);
    }

    #[test]
    fn another_spelling_of_the_layout_in_use_is_written_down_and_changes_nothing_else() {
        let before = mine("one", &[("d.a", "1")]);
        let in_use =
            begin(&before, Some(&begin(&mine("zero", &[("d.a", "0")]), None, None, 0)), Some(Version(3)), 0);
        let respelled = Layouts { configured: "other".into(), ..before };
        assert_eq!(turn(&respelled, Some(&in_use), true), Turn::Apply);
        assert_eq!(turn(&respelled, Some(&in_use), false), Turn::Begin);
        let then = begin(&respelled, Some(&in_use), Some(Version(9)), 0);
        assert_eq!(then, MappingInUse { configured: "other".into(), ..in_use });
        assert_eq!(turn(&respelled, Some(&then), false), Turn::Apply);
    }

    fn mine(layout: &str, tables: &[(&str, &str)]) -> Layouts {
        let tables = tables.iter().map(|(table, layout)| ((*table).to_owned(), (*layout).to_owned()));
        Layouts { layout: layout.into(), configured: String::new(), tables: tables.collect() }
    }

    #[test]
    fn a_layout_comes_into_use_once_no_other_one_is_in_the_group() {
        let (old, new) = (mine("old", &[]), mine("new", &[]));
        let in_use = begin(&old, None, None, 0);
        assert_eq!(turn(&new, None, false), Turn::Begin);
        assert_eq!(turn(&new, None, true), Turn::Leave);
        assert_eq!(turn(&new, Some(&in_use), true), Turn::Leave);
        assert_eq!(turn(&new, Some(&in_use), false), Turn::Begin);
        // Those who joined by mistake leave; whose layout is in use stays.
        assert_eq!(turn(&old, Some(&in_use), true), Turn::Apply);
        assert_eq!(turn(&old, Some(&begin(&new, Some(&in_use), None, 0)), true), Turn::Leave);
    }

    #[test]
    fn a_table_is_copied_anew_whenever_its_layout_comes_into_use() {
        let old = mine("old", &[("d.a", "1"), ("d.b", "1")]);
        let new = mine("new", &[("d.a", "2"), ("d.b", "1"), ("d.c", "1")]);
        let hash = |in_use: &MappingInUse, table: &str| {
            let layout = &in_use.tables.iter().find(|known| known.table == table).unwrap().layout;
            copy_hash(layout, since(Some(in_use), table))
        };
        let first = begin(&old, None, Some(Version(5)), 0);
        assert_eq!((since(Some(&first), "d.a"), hash(&first, "d.a").as_str()), (None, "1"));
        let second = begin(&new, Some(&first), Some(Version(10)), 0);
        let versions = ["d.a", "d.b", "d.c"].map(|table| since(Some(&second), table).map(|v| v.0));
        assert_eq!((second.generation, versions), (2, [Some(11), None, None]));
        let third = begin(&old, Some(&second), Some(Version(20)), 0);
        let fourth = begin(&new, Some(&third), Some(Version(30)), 0);
        assert_eq!(fourth.generation, 4);
        for (table, copies) in [("d.a", 4), ("d.b", 1)] {
            let hashes: std::collections::BTreeSet<_> =
                [&first, &second, &third, &fourth].map(|in_use| hash(in_use, table)).into();
            assert_eq!(hashes.len(), copies, "{table}");
        }
    }
}
