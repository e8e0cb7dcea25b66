//! Names and definitions of MySQL tables.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use crate::{ColumnType, Row, Value};

/// `database.table`.
///
/// Two names never have the same text, because control records and the keys of maps use the text. A part that has a
/// dot or a backtick, or is empty, is written in backticks, as MySQL quotes names: `` `a.b`.c ``.
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
        write_part(f, &self.database)?;
        f.write_char('.')?;
        write_part(f, &self.table)
    }
}

fn write_part(f: &mut fmt::Formatter<'_>, part: &str) -> fmt::Result {
    if part.is_empty() || part.contains(['.', '`']) {
        write!(f, "`{}`", part.replace('`', "``"))
    } else {
        f.write_str(part)
    }
}

impl FromStr for TableName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parts = read_part(s).and_then(|(database, rest)| {
            let (table, rest) = read_part(rest.strip_prefix('.')?)?;
            rest.is_empty().then_some(Self { database, table })
        });
        parts.ok_or_else(|| {
            format!(
                "{s:?} is not of the form database.table, where a name with a dot or a backtick stands in backticks, \
                 as in `a.b`.c"
            )
        })
    }
}

/// Reads a database's or a table's name, in backticks or not, and returns it with the rest of the text.
fn read_part(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('`') else {
        let (name, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
        return (!name.is_empty() && !name.contains('`')).then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '`' {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == '`').is_some() {
            name.push('`');
        } else {
            return (!name.is_empty()).then(|| (name, &quoted[at + 1..]));
        }
    }
    None
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_round_trip() {
        for (database, table, text) in [
            ("d", "t", "d.t"),
            ("a.b", "c", "`a.b`.c"),
            ("a", "b.c", "a.`b.c`"),
            ("`", "x``.y", "````.`x````.y`"),
            ("my shop", "a\"b'c\\", "my shop.a\"b'c\\"),
        ] {
            let name = TableName::new(database, table);
            assert_eq!((name.to_string().as_str(), text.parse()), (text, Ok(name)));
        }
        assert_eq!("`d`.`t`".parse(), Ok(TableName::new("d", "t")));
        for bad in ["", "t", ".t", "d.", "d.t.u", "``.t", "`d.t", "`d`t", "`d`.`t`u", "d.t`", "a`b.t"] {
            assert!(bad.parse::<TableName>().unwrap_err().contains("database.table"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn different_names_have_different_texts(
            a in "[a.`\"]{1,4}", b in "[a.`\"]{1,4}", c in "[a.`\"]{1,4}", d in "[a.`\"]{1,4}",
        ) {
            let (x, y) = (TableName::new(a, b), TableName::new(c, d));
            prop_assert_eq!(x == y, x.to_string() == y.to_string());
            prop_assert_eq!(x.to_string().parse(), Ok(x));
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
