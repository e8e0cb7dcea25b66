//! Builds the records of row changes.

use std::sync::Arc;

use tandem_model::Change;

use crate::envelope::EncodedChange;
use crate::error::WireError;
use crate::log::partition::partition_of;
use crate::log::record::OutRecord;
use crate::schema::TableSchema;

/// The size of a frame in bytes: a zero byte and the schema id.
const FRAME: usize = 5;

/// The approximate size of an envelope without its images, in bytes.
const ENVELOPE: usize = 320;

/// Builds the records of one table definition for one topic.
#[derive(Debug, Clone)]
pub struct ChangeTopic {
    topic: Arc<str>,
    partitions: i32,
    schema: Arc<TableSchema>,
}

impl ChangeTopic {
    /// Creates a builder for `topic`, which has `partitions` partitions, at least one.
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

    /// The record of a change whose rows are values.
    ///
    /// # Errors
    ///
    /// A value does not fit its column, or the change lacks an image that its operation needs.
    pub fn record(&self, change: &Change) -> Result<OutRecord, WireError> {
        let images = self.schema.images(change)?;
        self.encoded(&EncodedChange::of(change, &images))
    }

    /// The record of a change.
    ///
    /// A key stays in its partition when the table definition changes. The partition depends only on the
    /// values of the primary key and on the table's identifier in a shared topic. It does not depend on the schema id
    /// before them, which changes with the definition.
    ///
    /// # Errors
    ///
    /// The change lacks an image that its operation needs.
    pub fn encoded(&self, change: &EncodedChange<'_>) -> Result<OutRecord, WireError> {
        let image = change.image()?;
        let images = [change.before, change.after].into_iter().flatten().map(|i| i.row.len());
        let mut key = Vec::with_capacity(FRAME + image.key.len());
        self.schema.put_key(image, &mut key);
        let partition = partition_of(&key[FRAME..], self.partitions);
        let mut value = Vec::with_capacity(images.sum::<usize>() + ENVELOPE);
        self.schema.put_value(change, &mut value)?;
        Ok(OutRecord {
            topic: Arc::clone(&self.topic),
            partition,
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
