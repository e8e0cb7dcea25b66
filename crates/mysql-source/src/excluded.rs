//! Columns that are not looked at.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tandem_model::TableName;

/// Columns that are left out of a table wherever it is met: of its definition, of reads and of changes. Their
/// values are stepped over in the binlog, and asked for nowhere.
///
/// They go by name, as MySQL compares names of columns: without regard to case. A column that is renamed is
/// another one. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExcludedColumns(Arc<HashMap<TableName, HashSet<String>>>);

impl ExcludedColumns {
    /// Whether the column is left out.
    pub(crate) fn has(&self, table: &TableName, column: &str) -> bool {
        self.0.get(table).is_some_and(|columns| columns.contains(&column.to_lowercase()))
    }
}

impl FromIterator<(TableName, String)> for ExcludedColumns {
    fn from_iter<I: IntoIterator<Item = (TableName, String)>>(columns: I) -> Self {
        let mut by_table = HashMap::<_, HashSet<_>>::new();
        for (table, column) in columns {
            by_table.entry(table).or_default().insert(column.to_lowercase());
        }
        Self(Arc::new(by_table))
    }
}
