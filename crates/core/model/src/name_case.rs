//! How a MySQL server compares the names of databases and tables.

use crate::TableName;

/// Whether two names that differ only in case are one name, by `@@lower_case_table_names`.
///
/// The binlog has a table's rows under the name that the server stores, and statements as they were typed. So the
/// names of a statement are folded before they are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameCase {
    /// 0: `Orders` and `orders` are two tables.
    #[default]
    Sensitive,
    /// 1 and 2: they are one table, whose name in the binlog is in lower case.
    Insensitive,
}

impl NameCase {
    /// The comparison of a server with this `@@lower_case_table_names`.
    pub fn of(lower_case_table_names: u64) -> Self {
        if lower_case_table_names == 0 { Self::Sensitive } else { Self::Insensitive }
    }

    /// The form of a name in which this server's names are compared.
    ///
    /// Each character is folded by itself, as MySQL does it: a final sigma is not a special case.
    pub fn fold(self, name: String) -> String {
        match self {
            Self::Sensitive => name,
            // Only `İ` has a lower case of two characters, and MySQL's for it is the first of them.
            Self::Insensitive => name.chars().filter_map(|c| c.to_lowercase().next()).collect(),
        }
    }

    /// [`Self::fold`] for both parts of a table's name.
    pub fn fold_table(self, name: TableName) -> TableName {
        TableName { database: self.fold(name.database), table: self.fold(name.table) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_the_server_does() {
        let typed = || TableName::new("Shop", "ΟΡΟΣ-İ");
        assert_eq!(NameCase::of(0).fold_table(typed()), typed());
        for folding in [1, 2] {
            assert_eq!(NameCase::of(folding).fold_table(typed()), TableName::new("shop", "οροσ-i"));
        }
    }
}
