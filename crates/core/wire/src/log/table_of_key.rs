//! Finds the table of a record by its topic and key.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tandem_model::TableName;

use crate::log::topics::Topics;
use crate::primitive::put_bytes;

/// Finds the table of a change record or backfill record without decoding it.
///
/// A table with topics of its own is known by the topic. In a shared topic, a key ends with the table's identifier.
#[derive(Debug, Clone)]
pub struct TableOfKey {
    own: HashMap<String, Arc<TableName>>,
    /// By encoded identifier.
    shared: HashMap<Vec<u8>, Arc<TableName>>,
    /// The lengths of the encoded identifiers.
    lengths: BTreeSet<usize>,
}

impl TableOfKey {
    /// For these tables.
    pub fn new(topics: &Topics, tables: &[TableName]) -> Self {
        let (mut own, mut shared) = (HashMap::new(), HashMap::new());
        for table in tables {
            let name = Arc::new(table.clone());
            if topics.has_own(table) {
                own.insert(topics.changes(table), Arc::clone(&name));
                own.insert(topics.backfill(table), name);
            } else {
                let mut encoded = Vec::new();
                put_bytes(&mut encoded, topics.identifier(table).as_bytes());
                shared.insert(encoded, name);
            }
        }
        let lengths = shared.keys().map(Vec::len).collect();
        Self { own, shared, lengths }
    }

    /// The table of a record, if it is one of the tables.
    pub fn table(&self, topic: &str, key: &[u8]) -> Option<&Arc<TableName>> {
        self.own.get(topic).or_else(|| {
            let end = |length: &usize| key.get(key.len().checked_sub(*length)?..);
            self.lengths.iter().filter_map(end).find_map(|end| self.shared.get(end))
        })
    }
}

#[cfg(test)]
mod tests {
    use tandem_model::{ColumnDef, TableDef, Value};

    use super::*;

    #[test]
    fn tables_are_found_by_real_keys() {
        let names = ["a", "ab", "b-ü", "own"].map(|name| TableName::new("d", name));
        let topics = Topics::with_own("p", Arc::new([names[3].clone()].into()));
        let tables = TableOfKey::new(&topics, &names);
        for name in &names {
            let column = ColumnDef { name: "id".into(), ty: "varchar(20)".parse().unwrap(), nullable: false };
            let table = TableDef { name: name.clone(), columns: vec![column], primary_key: vec![0] };
            let schema = topics.schema(Arc::new(table));
            for text in ["", "p.d.a", "p.d.own"] {
                let mut key = Vec::new();
                schema.encode_key_values(&[Value::Text(text.into())], &mut key).unwrap();
                for topic in [topics.changes(name), topics.backfill(name)] {
                    assert_eq!(tables.table(&topic, &key).map(|found| &**found), Some(name));
                }
            }
        }
        assert_eq!(tables.table("p.changes", b"a"), None);
        assert_eq!(tables.table("p.changes", b""), None);
    }
}
