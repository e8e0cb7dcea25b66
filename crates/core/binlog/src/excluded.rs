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
    pub fn has(&self, table: &TableName, column: &str) -> bool {
        self.0.get(table).is_some_and(|columns| columns.contains(&column.to_lowercase()))
    }

    /// Those of a table's that are not among these columns, by name.
    pub fn beyond<'a>(&self, table: &TableName, columns: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut beyond = self.0.get(table).cloned().unwrap_or_default();
        columns.for_each(|column| {
            beyond.remove(&column.to_lowercase());
        });
        let mut beyond: Vec<String> = beyond.into_iter().collect();
        beyond.sort_unstable();
        beyond
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_column_has() {
        let table = TableName::new("d", "t");
        let names = ["Secret", "secert", "other"].map(|name| (table.clone(), name.to_owned()));
        let excluded: ExcludedColumns = names.into_iter().collect();
        assert_eq!(excluded.beyond(&table, ["id", "SECRET"].into_iter()), ["other", "secert"]);
        assert!(excluded.beyond(&TableName::new("d", "u"), ["id"].into_iter()).is_empty());
    }
}
