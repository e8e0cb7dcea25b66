//! The plans for the schemas that records were written with.

use std::collections::HashMap;
use std::sync::Arc;

use tandem_kafka::{KafkaConfig, SchemaStore, read_last};
use tandem_mapping::TablePlan;
use tandem_model::{Change, TableDef, TableName};
use tandem_wire::control::decode_watermark;

use crate::error::ApplyError;

/// Finds the plan of a change. The plan of a table is compiled from its definition when the process starts. A record
/// written under another definition, for example after an ALTER, gets a plan of its own.
pub struct Plans {
    kafka: KafkaConfig,
    schemas: SchemaStore,
    by_table: HashMap<TableName, Arc<TablePlan>>,
    /// By schema id. `None`: the table is not captured any more.
    by_schema: HashMap<u32, Option<Arc<TablePlan>>>,
}

impl Plans {
    /// Creates the set from the plans of all mapped tables.
    pub fn new(
        kafka: KafkaConfig,
        schemas: SchemaStore,
        plans: impl IntoIterator<Item = Arc<TablePlan>>,
    ) -> Self {
        let by_table = plans.into_iter().map(|p| (p.source().name.clone(), p)).collect();
        Self { kafka, schemas, by_table, by_schema: HashMap::new() }
    }

    /// Decodes a record of a change topic and finds its plan. Returns `None` for a record of a table that was taken
    /// out of the mapping, because a shared topic keeps such records.
    ///
    /// # Errors
    ///
    /// Fails if the record cannot be decoded, if the mapping does not fit its schema, or if its table is not mapped here
    /// although capture still publishes it. Skipping the record would lose a change then.
    pub async fn decode(&mut self, value: &[u8]) -> Result<Option<(Change, Arc<TablePlan>)>, ApplyError> {
        let id = tandem_wire::schema_id(value)?;
        let schema = self.schemas.get(id).await?;
        let plan = if let Some(plan) = self.by_schema.get(&id) {
            plan.clone()
        } else {
            let plan = self.plan(schema.table()).await?;
            self.by_schema.insert(id, plan.clone());
            plan
        };
        plan.map(|plan| Ok((schema.decode(value)?, plan))).transpose()
    }

    async fn plan(&self, table: &Arc<TableDef>) -> Result<Option<Arc<TablePlan>>, ApplyError> {
        let Some(base) = self.by_table.get(&table.name) else {
            if !self.is_retired(&table.name).await? {
                return Err(ApplyError::NotMapped { table: table.name.clone() });
            }
            tracing::warn!(table = %table.name, "records of a table that is not captured any more are skipped");
            return Ok(None);
        };
        Ok(Some(if base.source() == table { Arc::clone(base) } else { Arc::new(base.adapt(table)?) }))
    }

    /// Whether the newest watermark says that the table is not captured any more.
    async fn is_retired(&self, table: &TableName) -> Result<bool, ApplyError> {
        let last = read_last(&self.kafka, &self.kafka.topics().watermarks(), 0).await?;
        let Some(value) = last.and_then(|record| record.value) else { return Ok(false) };
        Ok(decode_watermark(&value)?.tables.retired.contains(table))
    }
}
