//! The plans for the schemas that records were written with.

use std::collections::HashMap;
use std::sync::Arc;

use tandem_kafka::SchemaStore;
use tandem_mapping::TablePlan;
use tandem_model::{Change, TableName};

use crate::error::ApplyError;

/// Finds the plan of a change. The plan of a table is compiled from its definition when the process starts. A record
/// written under another definition, for example after an ALTER, gets a plan of its own.
pub struct Plans {
    schemas: SchemaStore,
    by_table: HashMap<TableName, Arc<TablePlan>>,
    by_schema: HashMap<u32, Arc<TablePlan>>,
}

impl Plans {
    /// Creates the set from the plans of all mapped tables.
    pub fn new(schemas: SchemaStore, plans: impl IntoIterator<Item = Arc<TablePlan>>) -> Self {
        let by_table = plans.into_iter().map(|p| (p.source().name.clone(), p)).collect();
        Self { schemas, by_table, by_schema: HashMap::new() }
    }

    /// Decodes a record of a change topic and finds its plan.
    ///
    /// # Errors
    ///
    /// Fails if the record cannot be decoded, if its table is not mapped, or if the mapping does not fit its schema.
    pub async fn decode(&mut self, value: &[u8]) -> Result<(Change, Arc<TablePlan>), ApplyError> {
        let id = tandem_wire::schema_id(value)?;
        let schema = self.schemas.get(id).await?;
        let change = schema.decode(value)?;
        if let Some(plan) = self.by_schema.get(&id) {
            return Ok((change, Arc::clone(plan)));
        }
        let table = schema.table();
        let base = self
            .by_table
            .get(&table.name)
            .ok_or_else(|| ApplyError::NotMapped { table: table.name.clone() })?;
        let plan = if base.source() == table { Arc::clone(base) } else { Arc::new(base.adapt(table)?) };
        self.by_schema.insert(id, Arc::clone(&plan));
        Ok((change, plan))
    }
}
