//! Names and definitions of MySQL tables.

use std::fmt;
use std::str::FromStr;

use crate::{ColumnType, Row, Value};

/// `database.table`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The MySQL schema.
    pub database: String,
    /// The table in it.
    pub table: String,
}

impl TableName {
    /// Joins the two parts.
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

/// One column of a MySQL table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDef {
    /// Its name as MySQL spells it.
    pub name: String,
    /// Its type.
    pub ty: ColumnType,
    /// Whether it may hold NULL.
    pub nullable: bool,
}

/// What a table looked like when a row image of it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDef {
    /// Its name.
    pub name: TableName,
    /// Its columns in ordinal order.
    pub columns: Vec<ColumnDef>,
    /// The primary key: indexes into `columns`, in the key's own order. Empty: no primary key.
    pub primary_key: Vec<usize>,
}

impl TableDef {
    /// The index of the column of that name. Names compare exactly.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// The primary key's values in a row of this table, in the key's order.
    pub fn key_of(&self, row: &Row) -> Vec<Value> {
        self.primary_key.iter().map(|&i| row[i].clone()).collect()
    }

    /// Whether two rows of this table have the same primary key, byte for byte (a collation may
    /// call two keys equal that Cassandra would keep apart).
    pub fn same_key(&self, a: &Row, b: &Row) -> bool {
        self.primary_key.iter().all(|&i| a[i] == b[i])
    }
}
