//! The differences between two sets of rows: cells, missing rows, extra rows.

use std::collections::HashMap;
use std::fmt;

/// The cells of a row in their canonical spelling; `None` is null.
pub(crate) type Cells = Vec<Option<String>>;

/// One difference between the stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Difference {
    /// In MySQL, not in Cassandra.
    Missing { key: String },
    /// In Cassandra, not in MySQL.
    Extra { key: String },
    /// Two rows of MySQL with the same target key.
    Collision { key: String },
    /// In both, with different values.
    Cell { key: String, column: String, mysql: Option<String>, cassandra: Option<String> },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |value: &Option<String>| match value {
            None => "null".to_owned(),
            Some(text) if text.chars().count() > 40 => {
                format!("{:?}…", text.chars().take(40).collect::<String>())
            }
            Some(text) => format!("{text:?}"),
        };
        match self {
            Self::Missing { key } => write!(f, "{key}: missing row (in MySQL, not in Cassandra)"),
            Self::Extra { key } => write!(f, "{key}: extra row (in Cassandra, not in MySQL)"),
            Self::Collision { key } => write!(f, "{key}: several rows of MySQL share this key"),
            Self::Cell { key, column, mysql, cassandra } => {
                write!(f, "{key}: {column} is {} in MySQL, {} in Cassandra", short(mysql), short(cassandra))
            }
        }
    }
}

/// Compares one target table. All rows of MySQL are added first, then Cassandra's are compared with them.
#[derive(Debug)]
pub(crate) struct TableDiff {
    key_columns: Vec<String>,
    other_columns: Vec<String>,
    unseen: HashMap<Box<str>, Box<str>>,
    limit: usize,
    /// Rows that differ in any way.
    pub(crate) differing: u64,
    /// The first differences, at most `limit`.
    pub(crate) differences: Vec<Difference>,
    pub(crate) mysql_rows: u64,
    pub(crate) cassandra_rows: u64,
}

impl TableDiff {
    /// `limit` bounds the differences that are kept. All are counted.
    pub(crate) fn new(key_columns: Vec<String>, other_columns: Vec<String>, limit: usize) -> Self {
        Self {
            key_columns,
            other_columns,
            unseen: HashMap::new(),
            limit,
            differing: 0,
            differences: Vec::new(),
            mysql_rows: 0,
            cassandra_rows: 0,
        }
    }

    /// How many columns are not in the key.
    pub(crate) fn other_columns(&self) -> usize {
        self.other_columns.len()
    }

    /// Adds a row of MySQL.
    pub(crate) fn expect(&mut self, key: &Cells, others: &Cells) {
        self.mysql_rows += 1;
        if self.unseen.insert(encode(key).into(), encode(others).into()).is_some() {
            self.differing += 1;
            self.note(vec![Difference::Collision { key: self.name(key) }]);
        }
    }

    /// Compares a row of Cassandra, after all rows of MySQL.
    pub(crate) fn find(&mut self, key: &Cells, others: &Cells) {
        self.cassandra_rows += 1;
        let found = encode(others);
        let Some(expected) = self.unseen.remove(encode(key).as_str()) else {
            self.differing += 1;
            self.note(vec![Difference::Extra { key: self.name(key) }]);
            return;
        };
        if *expected == *found {
            return;
        }
        self.differing += 1;
        let name = self.name(key);
        let cells = decode(&expected)
            .into_iter()
            .zip(others)
            .zip(&self.other_columns)
            .filter(|((mysql, cassandra), _)| mysql != *cassandra)
            .map(|((mysql, cassandra), column)| Difference::Cell {
                key: name.clone(),
                column: column.clone(),
                mysql,
                cassandra: cassandra.clone(),
            })
            .collect();
        self.note(cells);
    }

    /// Reports the rows of MySQL that Cassandra does not have as missing.
    pub(crate) fn finish(&mut self) {
        let mut left: Vec<Cells> = self.unseen.drain().map(|(key, _)| decode(&key)).collect();
        left.sort();
        self.differing += left.len() as u64;
        for key in left {
            self.note(vec![Difference::Missing { key: self.name(&key) }]);
        }
    }

    fn note(&mut self, differences: Vec<Difference>) {
        let room = self.limit.saturating_sub(self.differences.len());
        self.differences.extend(differences.into_iter().take(room));
    }

    fn name(&self, key: &Cells) -> String {
        let parts = self.key_columns.iter().zip(key);
        let parts: Vec<String> =
            parts.map(|(column, cell)| format!("{column}={}", cell.as_deref().unwrap_or("null"))).collect();
        parts.join(" ")
    }
}

/// One text for a row, which keeps a table small in memory. Different rows have different texts.
fn encode(cells: &Cells) -> String {
    let mut out = String::new();
    for cell in cells {
        match cell {
            None => out.push('-'),
            Some(text) => {
                out.push_str(&text.len().to_string());
                out.push(':');
                out.push_str(text);
            }
        }
    }
    out
}

/// The inverse of [`encode`]. Stops at text that `encode` does not produce.
fn decode(mut text: &str) -> Cells {
    let mut cells = Vec::new();
    while !text.is_empty() {
        if let Some(rest) = text.strip_prefix('-') {
            cells.push(None);
            text = rest;
        } else if let Some((length, rest)) = text.split_once(':')
            && let Some((cell, rest)) = length.parse().ok().and_then(|n| rest.split_at_checked(n))
        {
            cells.push(Some(cell.to_owned()));
            text = rest;
        } else {
            break;
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(texts: &[&str]) -> Cells {
        texts.iter().map(|t| (*t != "NULL").then(|| (*t).to_owned())).collect()
    }

    fn diff(mysql: &[(&str, &[&str])], cassandra: &[(&str, &[&str])]) -> TableDiff {
        let mut diff = TableDiff::new(vec!["id".into()], vec!["a".into(), "b".into()], 100);
        for (key, others) in mysql {
            diff.expect(&cells(&[key]), &cells(others));
        }
        for (key, others) in cassandra {
            diff.find(&cells(&[key]), &cells(others));
        }
        diff.finish();
        diff
    }

    #[test]
    fn rows_survive_their_encoding() {
        for row in [&["", "NULL", "1:-"][..], &[], &["NULL"], &["日本", "-", "12:"]] {
            assert_eq!(decode(&encode(&cells(row))), cells(row));
        }
        assert_ne!(encode(&cells(&["ab", ""])), encode(&cells(&["a", "b"])));
        assert_ne!(encode(&cells(&["NULL"])), encode(&cells(&[""])));
    }

    #[test]
    fn equal_tables_in_any_order() {
        let diff =
            diff(&[("1", &["x", "NULL"]), ("2", &["y", ""])], &[("2", &["y", ""]), ("1", &["x", "NULL"])]);
        assert_eq!((diff.differing, diff.mysql_rows, diff.cassandra_rows), (0, 2, 2));
        assert!(diff.differences.is_empty());
    }

    #[test]
    fn a_cell_a_missing_row_and_an_extra_row_are_named() {
        let diff = diff(
            &[("1", &["x", "1"]), ("2", &["y", "2"]), ("3", &["z", "3"])],
            &[("1", &["x", "NULL"]), ("3", &["z", "3"]), ("4", &["w", "4"])],
        );
        assert_eq!(diff.differing, 3);
        let named: Vec<String> = diff.differences.iter().map(ToString::to_string).collect();
        assert_eq!(
            named,
            [
                "id=1: b is \"1\" in MySQL, null in Cassandra",
                "id=4: extra row (in Cassandra, not in MySQL)",
                "id=2: missing row (in MySQL, not in Cassandra)",
            ]
        );
    }

    #[test]
    fn rows_of_mysql_with_one_target_key_are_reported() {
        let diff = diff(&[("1", &["x", "1"]), ("1", &["x", "1"])], &[("1", &["x", "1"])]);
        assert_eq!(diff.differences, [Difference::Collision { key: "id=1".into() }]);
    }

    #[test]
    fn differences_are_capped_and_all_counted() {
        let mut diff = TableDiff::new(vec!["id".into()], vec![], 2);
        for n in 0..10 {
            diff.find(&cells(&[&n.to_string()]), &cells(&[]));
        }
        diff.finish();
        assert_eq!((diff.differing, diff.differences.len()), (10, 2));
    }
}
