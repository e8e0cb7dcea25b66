//! Names and definitions of MySQL tables.

use std::fmt;
use std::str::FromStr;

use crate::{ColumnType, Row, Value};

/// `database.table`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The database (MySQL's schema).
    pub database: String,
    /// The table in the database.
    pub table: String,
}

impl TableName {
    /// Creates a name from its two parts.
    pub fn new(database: impl Into<String>, table: impl Into<String>) -> Self {
        Self { database: database.into(), table: table.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

impl FromStr for TableName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once('.') {
            Some((d, t)) if !d.is_empty() && !t.is_empty() && !t.contains('.') => Ok(Self::new(d, t)),
            _ => Err(format!("`{s}` is not of the form database.table")),
        }
    }
}

/// A column of a MySQL table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDef {
    /// The name as MySQL spells it.
    pub name: String,
    /// The type.
    pub ty: ColumnType,
    /// Whether the column may hold NULL.
    pub nullable: bool,
}

/// The definition of a table at the time of a row image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDef {
    /// The table's name.
    pub name: TableName,
    /// The columns in ordinal order.
    pub columns: Vec<ColumnDef>,
    /// The primary key as indexes into `columns`, in the key's order. Empty if there is no primary key.
    pub primary_key: Vec<usize>,
}

impl TableDef {
    /// The index of the column with this name. Names are compared exactly.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// The primary key's values in a row of this table, in the key's order.
    pub fn key_of(&self, row: &Row) -> Vec<Value> {
        self.primary_key.iter().map(|&i| row[i].clone()).collect()
    }

    /// Whether two rows of this table have the same primary key, byte for byte. MySQL's collation may treat
    /// two keys as equal that are different keys in Cassandra.
    pub fn same_key(&self, a: &Row, b: &Row) -> bool {
        self.primary_key.iter().all(|&i| a[i] == b[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let name = TableName::new("d", "t");
        assert_eq!((name.to_string().as_str(), "d.t".parse()), ("d.t", Ok(name)));
        for bad in ["", "t", ".t", "d.", "d.t.u"] {
            assert!(bad.parse::<TableName>().unwrap_err().contains("database.table"), "{bad}");
        }
    }

    #[test]
    fn columns_and_keys() {
        let column = |name: &str| ColumnDef { name: name.into(), ty: ColumnType::Double, nullable: true };
        let table = TableDef {
            name: TableName::new("d", "t"),
            columns: vec![column("a"), column("b"), column("c")],
            primary_key: vec![2, 0],
        };
        assert_eq!((table.column("a"), table.column("c"), table.column("A")), (Some(0), Some(2), None));
        let row = |values: [i64; 3]| values.map(Value::Int).to_vec();
        assert_eq!(table.key_of(&row([1, 2, 3])), [Value::Int(3), Value::Int(1)]);
        assert!(table.same_key(&row([1, 2, 3]), &row([1, 9, 3])));
        assert!(!table.same_key(&row([1, 2, 3]), &row([1, 2, 4])));
        assert!(!table.same_key(&row([1, 2, 3]), &row([4, 2, 3])));
    }
}
