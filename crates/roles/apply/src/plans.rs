//! The plans for the schemas that records were written with.

use std::collections::HashMap;
use std::sync::Arc;

use tandem_kafka::{KafkaConfig, SchemaStore};
use tandem_mapping::TablePlan;
use tandem_model::{Change, TableName, Version};
use tandem_watermarks::NewestWatermark;

use crate::error::ApplyError;

/// Finds the plan of a change. The plan of a table is compiled from its definition when the process starts. A record
/// written under another definition, for example after an ALTER, gets a plan of its own.
pub struct Plans {
    kafka: KafkaConfig,
    schemas: SchemaStore,
    by_table: HashMap<TableName, Arc<TablePlan>>,
    /// By schema id.
    by_schema: HashMap<u32, Arc<TablePlan>>,
    /// The version of a watermark at which each of these tables is not captured any more.
    retired: HashMap<TableName, Version>,
}

impl Plans {
    /// Creates the set from the plans of all mapped tables.
    pub fn new(
        kafka: KafkaConfig,
        schemas: SchemaStore,
        plans: impl IntoIterator<Item = Arc<TablePlan>>,
    ) -> Self {
        let by_table = plans.into_iter().map(|p| (p.source().name.clone(), p)).collect();
        Self { kafka, schemas, by_table, by_schema: HashMap::new(), retired: HashMap::new() }
    }

    /// Decodes a record of a change topic and finds its plan. Returns `None` for a record of a table that was taken
    /// out of the mapping, because a shared topic keeps such records.
    ///
    /// # Errors
    ///
    /// Fails if the record cannot be decoded, if the mapping does not fit its schema, or if its table is not mapped here
    /// although capture still publishes it. Skipping the record would lose a change then.
    pub async fn decode(
        &mut self,
        value: &[u8],
        version: Option<Version>,
    ) -> Result<Option<(Change, Arc<TablePlan>)>, ApplyError> {
        let id = tandem_wire::schema_id(value)?;
        let schema = self.schemas.get(id).await?;
        let plan = if let Some(plan) = self.by_schema.get(&id) {
            Arc::clone(plan)
        } else {
            let Some(base) = self.by_table.get(&schema.table().name) else {
                return self.skip(&schema.table().name, version).await;
            };
            let table = schema.table();
            let plan = if base.source() == table { Arc::clone(base) } else { Arc::new(base.adapt(table)?) };
            self.by_schema.insert(id, Arc::clone(&plan));
            plan
        };
        Ok(Some((schema.decode(value)?, plan)))
    }

    /// Skips a record that is older than a watermark at which its table is retired.
    ///
    /// A later record may come from a capture that took the table up again. Skipping it would lose a change.
    async fn skip<T>(
        &mut self,
        table: &TableName,
        version: Option<Version>,
    ) -> Result<Option<T>, ApplyError> {
        let skipped = |retired: &HashMap<TableName, Version>| {
            retired.get(table).is_some_and(|at| version.is_some_and(|version| version < *at))
        };
        if skipped(&self.retired) {
            return Ok(None);
        }
        let newest = NewestWatermark::read(&self.kafka).await?;
        if let Some(NewestWatermark { watermark, .. }) = newest
            && watermark.tables.retired.contains(table)
        {
            tracing::warn!(%table, "records of a table that is not captured any more are skipped");
            self.retired.insert(table.clone(), watermark.version);
        }
        if skipped(&self.retired) { Ok(None) } else { Err(ApplyError::NotMapped { table: table.clone() }) }
    }
}
