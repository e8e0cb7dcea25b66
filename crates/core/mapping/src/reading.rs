//! From target rows back to MySQL's: what a reader of Cassandra gets.

use tandem_model::{Row, StoredRow, TargetKey, Value};

use crate::convert::from_cql;
use crate::error::RowError;
use crate::plan::{TablePlan, TargetPlan};

impl TargetPlan {
    /// The source's columns that the target holds, by index into the source's columns.
    pub fn columns(&self) -> impl Iterator<Item = usize> {
        self.key.iter().chain(&self.regular).copied()
    }

    /// Whether a filter keeps rows out of it.
    pub fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    /// For each column of the target's key, the source's column.
    pub fn key_columns(&self) -> &[usize] {
        &self.key
    }
}

impl TablePlan {
    /// The target whose key is the source's primary key, perhaps in another order: the one in which
    /// a row can be found by that key alone. The first, if there are several. Not one with a filter:
    /// what is not there may be a row all the same.
    pub fn target_by_primary_key(&self) -> Option<usize> {
        let key = self.source.primary_key.len();
        self.targets.iter().position(|target| target.key.len() == key && !target.is_filtered())
    }

    /// The key in target number `target` (see [`Self::target_by_primary_key`]) of the row with this
    /// primary key.
    pub fn key_by_primary_key(&self, target: usize, key: &[Value]) -> Result<TargetKey, RowError> {
        let mut row = vec![Value::Null; self.source.columns.len()];
        for (&column, value) in self.source.primary_key.iter().zip(key) {
            row[column] = value.clone();
        }
        self.target_key(self.target(target)?, &row)
    }

    /// A row of target number `target` as MySQL has it. Columns that the target does not hold are
    /// NULL. The inverse of [`TablePlan::expected`].
    pub fn row(&self, target: usize, key: &TargetKey, stored: &StoredRow) -> Result<Row, RowError> {
        let target = self.target(target)?;
        let bad = || RowError::BadKey { target: target.table.name.clone() };
        if key.len() != target.key.len() || stored.cells.len() != target.regular.len() {
            return Err(bad());
        }
        let cells = target.regular.iter().zip(stored.cells.iter().map(Option::as_ref));
        let mut row = vec![Value::Null; self.source.columns.len()];
        for (&column, bytes) in target.key.iter().zip(key.iter().map(Some)).chain(cells) {
            if let Some(bytes) = bytes {
                row[column] = from_cql(&self.source.columns[column].ty, bytes).ok_or_else(bad)?;
            }
        }
        Ok(row)
    }
}
