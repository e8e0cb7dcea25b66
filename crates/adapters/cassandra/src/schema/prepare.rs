//! Prepares the statements of the target tables.

use std::sync::Arc;

use tandem_model::TargetTable;

use crate::connect::target::Target;
use crate::error::SchemaError;
use crate::retry;
use crate::statement::prepared::PreparedTable;

impl Target {
    /// Prepares the statements of these tables. Call it again after a schema change to prepare them again.
    /// Retries for five times the request timeout.
    ///
    /// # Errors
    /// A table does not exist, Cassandra does not answer, or it refuses a statement.
    pub async fn prepare(&self, tables: &[TargetTable]) -> Result<(), SchemaError> {
        for table in tables {
            let prepared = retry::bounded(self.retry_timeout(), || {
                PreparedTable::new(self.session(), self.keyspace(), table)
            })
            .await
            .map_err(|failure| SchemaError::new(&format!("prepare table `{}`", table.name), failure))?;
            self.tables().insert(Arc::from(table.name.as_str()), Arc::new(prepared));
        }
        Ok(())
    }
}
