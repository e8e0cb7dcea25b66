//! Converts rows of target tables back to MySQL rows, for readers of Cassandra.

use tandem_model::{Row, StoredRow, TargetKey, Value};

use crate::convert::from_cql;
use crate::error::RowError;
use crate::plan::{TablePlan, TargetPlan};

impl TargetPlan {
    /// The columns that the target holds, as indexes into the source's columns.
    pub fn columns(&self) -> impl Iterator<Item = usize> {
        self.key.iter().chain(&self.regular).copied()
    }

    /// Whether the target has a filter.
    pub fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    /// The key columns of the target, as indexes into the source's columns.
    pub fn key_columns(&self) -> &[usize] {
        &self.key
    }
}

impl TablePlan {
    /// The first target in which a row can be found by its primary key alone.
    ///
    /// Its key consists of the source's primary key, possibly in another order. A target with a filter does
    /// not qualify: a row that is missing there may exist in MySQL.
    pub fn target_by_primary_key(&self) -> Option<usize> {
        let key = self.source.primary_key.len();
        self.targets.iter().position(|target| target.key.len() == key && !target.is_filtered())
    }

    /// The first target that holds every row whole: keyed by the primary key alone, without a filter, and with every
    /// column.
    pub fn base_target(&self) -> Option<usize> {
        let key = self.source.primary_key.len();
        let holds = |target: &TargetPlan, column| target.columns().any(|held| held == column);
        self.targets.iter().position(|target| {
            target.key.len() == key
                && !target.is_filtered()
                && (0..self.source.columns.len()).all(|column| holds(target, column))
        })
    }

    /// The key of a row in target `target`, given its primary key. See [`Self::target_by_primary_key`].
    ///
    /// # Errors
    ///
    /// There is no such target, or the values cannot be a key there.
    pub fn key_by_primary_key(&self, target: usize, key: &[Value]) -> Result<TargetKey, RowError> {
        let mut row = vec![Value::Null; self.source.columns.len()];
        for (&column, value) in self.source.primary_key.iter().zip(key) {
            row[column] = value.clone();
        }
        self.target_key(self.target(target)?, &row)
    }

    /// Converts a row of target `target` to a MySQL row. This is the inverse of [`TablePlan::expected`].
    ///
    /// Columns that the target does not hold are NULL.
    ///
    /// # Errors
    ///
    /// There is no such target, or the stored bytes do not match its columns.
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
