//! Records of row changes.

use std::sync::Arc;

use tandem_model::Change;
use tandem_wire::{TableSchema, WireError};

use crate::{OutRecord, partition_of};

/// Makes the records of one table definition for one topic.
#[derive(Debug, Clone)]
pub struct ChangeTopic {
    topic: Arc<str>,
    partitions: i32,
    schema: Arc<TableSchema>,
}

impl ChangeTopic {
    /// `topic` has `partitions` partitions, at least one.
    pub fn new(topic: impl Into<Arc<str>>, partitions: i32, schema: Arc<TableSchema>) -> Self {
        Self { topic: topic.into(), partitions, schema }
    }

    /// The topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The schema of its records.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// The record of a change. Its partition follows from the primary key's values alone, not from
    /// the schema's id before them: a key stays in its partition when the table's definition (and
    /// with it the id) changes.
    pub fn record(&self, change: &Change) -> Result<OutRecord, WireError> {
        let image = change.after.as_ref().or(change.before.as_ref());
        let image = image.ok_or(WireError::MissingImage { op: change.op.letter(), image: "after" })?;
        let mut key = Vec::with_capacity(32);
        self.schema.encode_key(image, &mut key)?;
        let mut value = Vec::with_capacity(512);
        self.schema.encode_value(change, &mut value)?;
        Ok(OutRecord {
            topic: Arc::clone(&self.topic),
            partition: partition_of(&key[5..], self.partitions),
            key,
            value: Some(value),
            version: Some(change.version),
            timestamp_ms: Some(change.source.ts_us.div_euclid(1000)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::{ColumnDef, Op, SourceInfo, TableDef, TableName, Value, Version};

    #[test]
    fn a_key_keeps_its_partition_when_the_table_changes() {
        let column =
            |name: &str, ty: &str| ColumnDef { name: name.into(), ty: ty.parse().unwrap(), nullable: false };
        let table = |columns: Vec<ColumnDef>| {
            Arc::new(TableDef { name: TableName::new("d", "t"), columns, primary_key: vec![0] })
        };
        let before = table(vec![column("id", "bigint")]);
        let after = table(vec![column("id", "bigint"), column("more", "text")]);
        let other_key = table(vec![column("id2", "bigint")]);
        let topic =
            |t: &Arc<TableDef>| ChangeTopic::new("d.t", 7, Arc::new(TableSchema::new(Arc::clone(t), "p")));
        for id in 0..50 {
            let change = |table: &Arc<TableDef>, row: Vec<Value>| Change {
                table: Arc::clone(table),
                op: Op::Create,
                before: None,
                after: Some(row),
                version: Version(1),
                source: SourceInfo::default(),
            };
            let a = topic(&before).record(&change(&before, vec![Value::Int(id)])).unwrap();
            let row = vec![Value::Int(id), Value::Text("x".into())];
            let b = topic(&after).record(&change(&after, row)).unwrap();
            let c = topic(&other_key).record(&change(&other_key, vec![Value::Int(id)])).unwrap();
            assert_eq!((a.partition, b.partition), (b.partition, c.partition));
            assert_ne!(a.key, c.key);
        }
    }
}
