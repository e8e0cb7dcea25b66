//! Columns that are excluded from capture.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tandem_model::TableName;

/// Columns that are excluded from tables: from their definitions, from reads and from changes.
///
/// The decoder skips their values in the binlog, and no query selects them. Columns are matched by name
/// without regard to case, as in MySQL. A renamed column is a different column.
///
/// Cloning is cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExcludedColumns(Arc<HashMap<TableName, HashSet<String>>>);

impl ExcludedColumns {
    /// Whether the column is excluded.
    pub fn has(&self, table: &TableName, column: &str) -> bool {
        self.0.get(table).is_some_and(|columns| columns.contains(&column.to_lowercase()))
    }

    /// The excluded names of a table that are not among `columns`, sorted.
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
    fn beyond_returns_names_that_no_column_has() {
        let table = TableName::new("d", "t");
        let names = ["Secret", "secert", "other"].map(|name| (table.clone(), name.to_owned()));
        let excluded: ExcludedColumns = names.into_iter().collect();
        assert_eq!(excluded.beyond(&table, ["id", "SECRET"].into_iter()), ["other", "secert"]);
        assert!(excluded.beyond(&TableName::new("d", "u"), ["id"].into_iter()).is_empty());
    }
}
