//! The names of topics, consumer groups and transactional ids.
//!
//! By default all tables share one change topic and one backfill topic, so the number of partitions does not grow
//! with the number of tables. A table can have topics of its own instead.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use tandem_model::{TableDef, TableName};

use crate::schema::{TableSchema, value_subject};

/// Kafka's limit for the length of a topic name.
const MAX_NAME: usize = 249;

/// The names with one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
    own: Arc<BTreeSet<TableName>>,
}

impl Topics {
    /// Creates the names with `prefix`. All tables share topics.
    pub fn new(prefix: &str) -> Self {
        Self::with_own(prefix, Arc::default())
    }

    /// Creates the names with `prefix`. The tables in `own` have topics of their own.
    pub fn with_own(prefix: &str, own: Arc<BTreeSet<TableName>>) -> Self {
        Self { prefix: prefix.to_owned(), own }
    }

    /// The prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The topic of a table's changes: `<prefix>.changes`, or `<prefix>.<database>.<table>` if it is the table's own.
    pub fn changes(&self, table: &TableName) -> String {
        if self.own.contains(table) { self.of_table("", table) } else { self.named("changes") }
    }

    /// The topic of a table's copy: `<prefix>.backfill`, or `<prefix>.backfill.<database>.<table>` if it is the
    /// table's own.
    pub fn backfill(&self, table: &TableName) -> String {
        if self.own.contains(table) { self.of_table("backfill.", table) } else { self.named("backfill") }
    }

    /// Whether the table has topics of its own.
    pub fn has_own(&self, table: &TableName) -> bool {
        self.own.contains(table)
    }

    /// The identifier of a table in the keys of a shared topic: the name that a topic of its own would have, as
    /// Debezium's topic router writes it.
    pub fn identifier(&self, table: &TableName) -> String {
        self.of_table("", table)
    }

    /// The change topics and backfill topics of these tables, each once.
    pub fn of_tables<'a>(&self, tables: impl IntoIterator<Item = &'a TableName>) -> Vec<String> {
        let names = tables.into_iter().flat_map(|table| [self.changes(table), self.backfill(table)]);
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The schemas of a table's records. In a shared topic, the record key also names the table.
    pub fn schema(&self, table: Arc<TableDef>) -> TableSchema {
        if self.own.contains(&table.name) {
            TableSchema::new(table, &self.prefix)
        } else {
            let identifier = self.identifier(&table.name);
            TableSchema::in_shared_topic(table, &self.prefix, &identifier)
        }
    }

    /// The registry's subjects for the envelopes of a table: on its change topic and on its backfill topic.
    pub fn value_subjects(&self, table: &TableName) -> [String; 2] {
        let shared = !self.own.contains(table);
        [self.changes(table), self.backfill(table)]
            .map(|topic| value_subject(table, &self.prefix, &topic, shared))
    }

    /// The topic of watermarks. It has one partition.
    pub fn watermarks(&self) -> String {
        self.named("watermarks")
    }

    /// The topic of DDL statements. It has one partition.
    pub fn ddl(&self) -> String {
        self.named("ddl")
    }

    /// The topic of schemas. It has one partition.
    pub fn schemas(&self) -> String {
        self.named("schemas")
    }

    /// The topic of mismatches. It has one partition.
    pub fn mismatches(&self) -> String {
        self.named("mismatches")
    }

    /// The topic of dual writes that failed in Cassandra. It has one partition.
    pub fn dual_write_failures(&self) -> String {
        self.named("dual-write-failures")
    }

    /// The topic of dead letters: changes that could not be applied. It has one partition.
    pub fn dead_letters(&self) -> String {
        self.named("dead-letters")
    }

    /// The topic of native writes that MySQL refused. It has one partition.
    pub fn reverse_dead_letters(&self) -> String {
        self.named("reverse-dead-letters")
    }

    /// The topic of announcements: which roles run, and what they have counted. It has one partition.
    pub fn announcements(&self) -> String {
        self.named("announcements")
    }

    /// The control topic: phases, throttles and progress. It has one partition.
    pub fn control(&self) -> String {
        self.named("control")
    }

    /// The audit topic: who changed the phase, when and why. It has one partition.
    ///
    /// It is separate from the control topic because every entry is kept forever, and every gateway reads the
    /// control topic from its beginning.
    pub fn audit(&self) -> String {
        self.named("audit")
    }

    /// The consumer group of `apply`.
    pub fn apply_group(&self) -> String {
        self.named("apply")
    }

    /// The consumer group of `reverse`.
    pub fn reverse_group(&self) -> String {
        self.named("reverse")
    }

    /// The consumer group of `reconcile`.
    pub fn reconcile_group(&self) -> String {
        self.named("reconcile")
    }

    /// The transactional id of `capture`.
    pub fn capture_transactional_id(&self) -> String {
        self.named("capture")
    }

    /// The transactional id under which the states of tables are written, by one writer at a time.
    pub fn tables_transactional_id(&self) -> String {
        self.named("tables")
    }

    /// The consumer group that decides which controller is the active one.
    pub fn controller_group(&self) -> String {
        self.named("controller")
    }

    /// The transactional id of the active controller.
    pub fn controller_transactional_id(&self) -> String {
        self.named("controller")
    }

    fn named(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn of_table(&self, kind: &str, table: &TableName) -> String {
        let mut name = format!("{}.{kind}", self.prefix);
        escape(&mut name, &table.database);
        name.push('.');
        escape(&mut name, &table.table);
        if name.len() > MAX_NAME {
            let hash = crate::schema_id::id_of(&name);
            let _ = write!(name, "-{hash:08x}");
            let excess = name.len() - MAX_NAME;
            let tail = name.split_off(name.len() - 9);
            name.truncate(name.len() - excess);
            name.push_str(&tail);
        }
        name
    }
}

/// Escapes a name for use in a topic name. Different names have different escaped forms.
///
/// Kafka allows ASCII letters, digits, `.`, `_` and `-`. Letters, digits and `_` stay. Every other byte,
/// including `.` and `-`, becomes `-` and two hexadecimal digits. For example, `a-b.c` becomes `a-2db-2ec`.
fn escape(out: &mut String, name: &str) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "-{byte:02x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own(prefix: &str, tables: impl IntoIterator<Item = TableName>) -> Topics {
        Topics::with_own(prefix, Arc::new(tables.into_iter().collect()))
    }

    #[test]
    fn tables_share_topics_unless_they_have_their_own() {
        let (shared, alone) = (TableName::new("shop", "items"), TableName::new("shop", "orders"));
        let topics = own("tandem", [alone.clone()]);
        assert_eq!(topics.changes(&shared), "tandem.changes");
        assert_eq!(topics.backfill(&shared), "tandem.backfill");
        assert_eq!(topics.changes(&alone), "tandem.shop.orders");
        assert_eq!(topics.backfill(&alone), "tandem.backfill.shop.orders");
    }

    #[test]
    fn names_are_escaped() {
        let odd = TableName::new("shop", "a-b.c");
        let accent = TableName::new("s", "é");
        let topics = own("tandem", [odd.clone(), accent.clone()]);
        assert_eq!(topics.backfill(&odd), "tandem.backfill.shop.a-2db-2ec");
        assert_eq!(topics.watermarks(), "tandem.watermarks");
        assert_eq!(topics.changes(&accent), "tandem.s.-c3-a9");
    }

    proptest! {
        #[test]
        fn topic_names_are_legal_and_distinct(
            a in "[a-c.é-]{1,64}", b in "[a-c.é-]{1,64}", c in "[a-c.é-]{1,64}", d in "[a-c.é-]{1,64}",
        ) {
            let (x, y) = (TableName::new(a, b), TableName::new(c, d));
            let topics = own("p", [x.clone(), y.clone()]);
            let name = topics.backfill(&x);
            prop_assert!(name.len() <= MAX_NAME);
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)));
            prop_assert_eq!(x == y, topics.changes(&x) == topics.changes(&y));
        }
    }
}
