//! Reads the rows of one partition of a target table from MySQL, in the target's order.

use std::fmt::Write as _;

use mysql_async::Value as Raw;
use tandem_model::{ColumnType, TableDef, Value};

use crate::error::MysqlError;
use crate::read::query::{quoted, select_all};
use crate::read::select::column_parameter;

/// A bound of a range.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// The value itself.
    pub value: Value,
    /// Whether the range includes it.
    pub inclusive: bool,
}

/// A read of one partition. A column is an index into the table's columns.
///
/// The read returns the rows that match `equal` and `range`, ordered by `order`, after the row `after`. Text
/// is compared byte by byte, as Cassandra does it, not by collation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PartitionRead {
    /// Columns and their required values.
    pub equal: Vec<(usize, Value)>,
    /// A column with a lower and an upper bound.
    pub range: Option<(usize, Option<Bound>, Option<Bound>)>,
    /// The columns to sort by, and whether each is descending.
    pub order: Vec<(usize, bool)>,
    /// The last row of the previous page: its values of the `order` columns.
    pub after: Option<Vec<Value>>,
    /// The most rows to return.
    pub limit: usize,
}

/// The expression that compares a column, and its parameter.
fn compared(table: &TableDef, column: usize) -> (String, String) {
    let def = &table.columns[column];
    let name = quoted(&def.name);
    match def.ty {
        ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) => {
            (format!("CONVERT({name} USING utf8mb4) COLLATE utf8mb4_0900_bin"), "?".into())
        }
        ColumnType::Decimal { precision, scale } => {
            (name, format!("CAST(? AS DECIMAL({precision},{scale}))"))
        }
        ColumnType::Date => (name, "CAST(? AS DATE)".into()),
        _ => (name, "?".into()),
    }
}

/// Builds the statement and its parameters.
pub(crate) fn statement(table: &TableDef, query: &PartitionRead) -> Result<(String, Vec<Raw>), MysqlError> {
    let (mut terms, mut params) = (Vec::new(), Vec::new());
    for (column, value) in &query.equal {
        let (name, parameter) = compared(table, *column);
        let plain = quoted(&table.columns[*column].name);
        if plain != name {
            // Lets MySQL use an index with the column's own collation.
            terms.push(format!("{plain} = ?"));
            params.push(column_parameter(table, *column, value)?);
        }
        terms.push(format!("{name} = {parameter}"));
        params.push(column_parameter(table, *column, value)?);
    }
    if let Some((column, lower, upper)) = &query.range {
        let (name, parameter) = compared(table, *column);
        for (bound, operator) in [(lower, '>'), (upper, '<')] {
            if let Some(Bound { value, inclusive }) = bound {
                terms.push(format!("{name} {operator}{} {parameter}", if *inclusive { "=" } else { "" }));
                params.push(column_parameter(table, *column, value)?);
            }
        }
    }
    if let Some(after) = &query.after {
        let mut levels = Vec::new();
        for level in 0..query.order.len() {
            let mut level_terms = Vec::new();
            for (place, (column, descends)) in query.order[..=level].iter().enumerate() {
                let (name, parameter) = compared(table, *column);
                let operator = match (place == level, descends) {
                    (false, _) => "=",
                    (true, false) => ">",
                    (true, true) => "<",
                };
                level_terms.push(format!("{name} {operator} {parameter}"));
                params.push(column_parameter(table, *column, &after[place])?);
            }
            levels.push(format!("({})", level_terms.join(" AND ")));
        }
        // Without order columns the partition has one row, and nothing follows it.
        terms.push(if levels.is_empty() { "FALSE".into() } else { format!("({})", levels.join(" OR ")) });
    }
    let mut sql = format!("{} WHERE {}", select_all(table), terms.join(" AND "));
    let order: Vec<String> = query
        .order
        .iter()
        .map(|(column, descends)| compared(table, *column).0 + if *descends { " DESC" } else { "" })
        .collect();
    if !order.is_empty() {
        let _ = write!(sql, " ORDER BY {}", order.join(", "));
    }
    let _ = write!(sql, " LIMIT {}", query.limit);
    Ok((sql, params))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::{ColumnDef, TableName};

    #[test]
    fn a_page_of_a_partition() {
        let column =
            |name: &str, ty: &str| ColumnDef { name: name.into(), ty: ty.parse().unwrap(), nullable: false };
        let table = TableDef {
            name: TableName::new("d", "t"),
            columns: vec![column("a", "text"), column("b", "date"), column("c", "int")],
            primary_key: vec![2],
        };
        let query = PartitionRead {
            equal: vec![(0, Value::Text("x".into()))],
            range: Some((1, Some(Bound { value: Value::Date(0), inclusive: true }), None)),
            order: vec![(1, true), (2, false)],
            after: Some(vec![Value::Date(9), Value::Int(7)]),
            limit: 5,
        };
        let (sql, params) = statement(&table, &query).unwrap();
        assert_eq!(
            sql,
            "SELECT `a`, `b`, `c` FROM `d`.`t` WHERE `a` = ? AND CONVERT(`a` USING utf8mb4) COLLATE \
             utf8mb4_0900_bin = ? AND `b` >= CAST(? AS DATE) AND ((`b` < CAST(? AS DATE)) OR (`b` = CAST(? AS \
             DATE) AND `c` > ?)) ORDER BY `b` DESC, `c` LIMIT 5"
        );
        assert_eq!(params.len(), 6);
    }
}
