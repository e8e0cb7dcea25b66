//! Builds the SQL of reads from a table's definition: keyset pagination and point reads.

use tandem_model::{ColumnType, TableDef, TableName};

/// An identifier in MySQL's quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A table's full name in MySQL's quotes.
pub(crate) fn quoted_table(name: &TableName) -> String {
    format!("{}.{}", quoted(&name.database), quoted(&name.table))
}

fn list(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// A key column, by its position in the key, and its parameter. The casts keep the comparison exact: the
/// driver sends DECIMALs as text, which MySQL would compare as floating-point numbers, and dates as
/// date-times.
fn key_column(table: &TableDef, place: usize) -> (String, String) {
    let column = &table.columns[table.primary_key[place]];
    let parameter = match column.ty {
        ColumnType::Decimal { precision, scale } => format!("CAST(? AS DECIMAL({precision},{scale}))"),
        ColumnType::Date => "CAST(? AS DATE)".to_owned(),
        _ => "?".to_owned(),
    };
    (quoted(&column.name), parameter)
}

/// Compares a composite key with a bound, column by column. For the key `(a, b)`: `(a > ?) OR (a = ? AND
/// b > ?)`. The last column is compared by `last`, the others by `strict`. [`range_parameters`] returns the
/// parameters.
fn range(table: &TableDef, strict: &str, last: &str) -> String {
    let n = table.primary_key.len();
    let terms = (0..n).map(|i| {
        let equal = (0..i).map(|j| {
            let (name, parameter) = key_column(table, j);
            format!("{name} = {parameter}")
        });
        let (name, parameter) = key_column(table, i);
        let beyond = format!("{name} {} {parameter}", if i + 1 == n { last } else { strict });
        format!("({})", equal.chain([beyond]).collect::<Vec<_>>().join(" AND "))
    });
    format!("({})", terms.collect::<Vec<_>>().join(" OR "))
}

/// Returns a key's values in the order of a range's parameters.
pub(crate) fn range_parameters<T: Clone>(key: &[T]) -> impl Iterator<Item = T> {
    (0..key.len()).flat_map(|i| key[..=i].iter().cloned())
}

fn key_names(table: &TableDef, suffix: &str) -> String {
    list(table.primary_key.iter().map(|&i| quoted(&table.columns[i].name) + suffix))
}

pub(crate) fn select_all(table: &TableDef) -> String {
    let columns = list(table.columns.iter().map(|c| quoted(&c.name)));
    format!("SELECT {columns} FROM {}", quoted_table(&table.name))
}

/// Selects the greatest key.
pub(crate) fn max_key(table: &TableDef) -> String {
    let (columns, order) = (key_names(table, ""), key_names(table, " DESC"));
    format!("SELECT {columns} FROM {} ORDER BY {order} LIMIT 1", quoted_table(&table.name))
}

/// Selects a chunk in key order. The parameters are those of the lower bound, if any, then the upper bound's.
pub(crate) fn chunk(table: &TableDef, has_lower_bound: bool, limit: usize) -> String {
    let lower = if has_lower_bound { range(table, ">", ">") + " AND " } else { String::new() };
    let upper = range(table, "<", "<=");
    format!("{} WHERE {lower}{upper} ORDER BY {} LIMIT {limit}", select_all(table), key_names(table, ""))
}

/// Selects the rows of `n` keys, in any order.
pub(crate) fn keys(table: &TableDef, n: usize) -> String {
    format!("{} WHERE {}", select_all(table), key_terms(table, n))
}

/// The condition of `n` keys.
pub(crate) fn key_terms(table: &TableDef, n: usize) -> String {
    if table.primary_key.len() == 1 {
        let (name, parameter) = key_column(table, 0);
        format!("{name} IN ({})", vec![parameter; n].join(", "))
    } else {
        let one = (0..table.primary_key.len()).map(|i| {
            let (name, parameter) = key_column(table, i);
            format!("{name} = {parameter}")
        });
        vec![format!("({})", one.collect::<Vec<_>>().join(" AND ")); n].join(" OR ")
    }
}

/// The `WHERE` clause of one key.
pub(crate) fn point(table: &TableDef) -> String {
    let terms = (0..table.primary_key.len()).map(|i| {
        let (name, parameter) = key_column(table, i);
        format!("{name} = {parameter}")
    });
    format!("WHERE {}", terms.collect::<Vec<_>>().join(" AND "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::ColumnDef;

    fn table() -> TableDef {
        let column =
            |name: &str, ty: &str| ColumnDef { name: name.into(), ty: ty.parse().unwrap(), nullable: false };
        TableDef {
            name: TableName::new("d", "t`x"),
            columns: vec![column("a", "int"), column("b", "decimal(5,2)"), column("c", "text")],
            primary_key: vec![2, 1],
        }
    }

    #[test]
    fn statements() {
        let t = table();
        assert_eq!(max_key(&t), "SELECT `c`, `b` FROM `d`.`t``x` ORDER BY `c` DESC, `b` DESC LIMIT 1");
        assert_eq!(
            chunk(&t, true, 9),
            "SELECT `a`, `b`, `c` FROM `d`.`t``x` WHERE \
             ((`c` > ?) OR (`c` = ? AND `b` > CAST(? AS DECIMAL(5,2)))) AND \
             ((`c` < ?) OR (`c` = ? AND `b` <= CAST(? AS DECIMAL(5,2)))) ORDER BY `c`, `b` LIMIT 9"
        );
        assert_eq!(
            keys(&t, 2),
            "SELECT `a`, `b`, `c` FROM `d`.`t``x` WHERE (`c` = ? AND `b` = CAST(? AS DECIMAL(5,2))) OR \
             (`c` = ? AND `b` = CAST(? AS DECIMAL(5,2)))"
        );
        assert_eq!(point(&t), "WHERE `c` = ? AND `b` = CAST(? AS DECIMAL(5,2))");
        assert!(keys(&TableDef { primary_key: vec![0], ..t }, 3).ends_with("WHERE `a` IN (?, ?, ?)"));
        assert_eq!(range_parameters(&[1, 2, 3]).collect::<Vec<_>>(), [1, 1, 2, 1, 2, 3]);
    }
}
