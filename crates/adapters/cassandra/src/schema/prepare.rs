//! Preparing the statements of target tables.

use std::sync::Arc;

use tandem_model::TargetTable;

use crate::connect::target::Target;
use crate::error::SchemaError;
use crate::retry;
use crate::statement::prepared::PreparedTable;

impl Target {
    /// Prepares the statements of these tables, anew where they were prepared before (after a
    /// schema change). Tables must exist. Retries for five times the request timeout.
    pub async fn prepare(&self, tables: &[TargetTable]) -> Result<(), SchemaError> {
        for table in tables {
            let prepared = retry::bounded(self.patience(), || {
                PreparedTable::new(self.session(), self.keyspace(), table)
            })
            .await
            .map_err(|failure| SchemaError::new(&format!("prepare table `{}`", table.name), failure))?;
            self.tables().insert(Arc::from(table.name.as_str()), Arc::new(prepared));
        }
        Ok(())
    }
}
