//! Which tables Cassandra may serve.
//!
//! A table that is not live may not be served. A table that was added to the mapping has no state yet when a gateway starts
//! before capture. Capture writes the state before the first watermark that has the table. So a gateway waits for such a
//! watermark, and reads the states after it.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tandem_model::TableName;
use tandem_table_states::{TableStates, TableStatesError};
use tandem_watermarks::Watermarks;

/// How often the newest watermark is asked for a table that it did not have.
const LOOK: Duration = Duration::from_millis(100);

/// Knows which tables are live. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Live {
    states: TableStates,
    watermarks: Watermarks,
    /// The tables whose states were read after a watermark that has them.
    captured: Arc<RwLock<HashSet<TableName>>>,
}

impl Live {
    /// # Errors
    /// The states of tables can no longer be followed.
    pub(crate) async fn start(
        states: TableStates,
        watermarks: Watermarks,
        tables: &[TableName],
    ) -> Result<Self, TableStatesError> {
        let live = Self { states, watermarks, captured: Arc::default() };
        live.look(tables).await?;
        Ok(live)
    }

    /// Whether Cassandra may serve the table's rows. While the states of tables are unknown, it may not.
    pub(crate) fn is_live(&self, table: &TableName) -> bool {
        self.captured.read().unwrap_or_else(PoisonError::into_inner).contains(table)
            && self.states.now().is_ok_and(|states| states.is_live(table))
    }

    /// Waits until a watermark has each of the tables.
    ///
    /// # Errors
    /// The states of tables can no longer be followed.
    pub(crate) async fn until_captured(&self, tables: &[TableName]) -> Result<(), TableStatesError> {
        while !self.look(tables).await? {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Takes in the tables that the newest watermark has. Returns whether it has them all.
    async fn look(&self, tables: &[TableName]) -> Result<bool, TableStatesError> {
        let known = |table: &&TableName| {
            self.captured.read().unwrap_or_else(PoisonError::into_inner).contains(*table)
        };
        let left: Vec<&TableName> = tables.iter().filter(|table| !known(table)).collect();
        let Some(newest) = self.watermarks.newest().filter(|_| !left.is_empty()) else {
            return Ok(left.is_empty());
        };
        let captured: Vec<&TableName> =
            left.iter().copied().filter(|table| newest.tables.captured.contains_key(*table)).collect();
        if !captured.is_empty() {
            self.states.up_to_now().await?;
            let mut known = self.captured.write().unwrap_or_else(PoisonError::into_inner);
            known.extend(captured.iter().copied().cloned());
        }
        Ok(captured.len() == left.len())
    }
}
