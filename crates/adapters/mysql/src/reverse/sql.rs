//! Builds the SQL of writes of several rows.

use tandem_model::TableDef;

use crate::read::query::{key_terms, quoted, quoted_table};

/// Inserts `n` rows with these columns. A row whose key or unique value is there already is an error.
pub(super) fn insert(table: &TableDef, columns: &[usize], n: usize) -> String {
    let names: Vec<String> = columns.iter().map(|&i| quoted(&table.columns[i].name)).collect();
    let row = format!("({})", vec!["?"; names.len()].join(", "));
    format!(
        "INSERT INTO {} ({}) VALUES {}",
        quoted_table(&table.name),
        names.join(", "),
        vec![row; n].join(", ")
    )
}

/// Sets these columns of `n` rows whose keys are there. The others stay as they are.
///
/// MySQL looks for a conflict in the primary key first. So the row that is changed is the one with this key.
pub(super) fn overwrite(table: &TableDef, columns: &[usize], n: usize) -> String {
    let set: Vec<String> = columns
        .iter()
        .filter(|column| !table.primary_key.contains(column))
        .map(|&column| {
            let name = quoted(&table.columns[column].name);
            format!("{name} = `tandem_new`.{name}")
        })
        .collect();
    // A table of nothing but its key has nothing to set.
    let set = if set.is_empty() {
        let name = quoted(&table.columns[table.primary_key[0]].name);
        format!("{name} = `tandem_new`.{name}")
    } else {
        set.join(", ")
    };
    format!("{} AS `tandem_new` ON DUPLICATE KEY UPDATE {set}", insert(table, columns, n))
}

/// Sets these columns of the row of a key.
pub(super) fn update(table: &TableDef, columns: &[usize]) -> String {
    let set: Vec<String> =
        columns.iter().map(|&i| format!("{} = ?", quoted(&table.columns[i].name))).collect();
    format!("UPDATE {} SET {} WHERE {}", quoted_table(&table.name), set.join(", "), key_terms(table, 1))
}

/// Deletes the rows of `n` keys.
pub(super) fn delete(table: &TableDef, n: usize) -> String {
    format!("DELETE FROM {} WHERE {}", quoted_table(&table.name), key_terms(table, n))
}

/// Locks the rows of `n` keys and selects their keys.
pub(super) fn lock(table: &TableDef, n: usize) -> String {
    let key: Vec<String> = table.primary_key.iter().map(|&i| quoted(&table.columns[i].name)).collect();
    let terms = key_terms(table, n);
    format!("SELECT {} FROM {} WHERE {terms} FOR UPDATE", key.join(", "), quoted_table(&table.name))
}

/// Splits `len` rows of `columns` parameters into few sizes, so that few statements are prepared: powers of two, and at most
/// `limit` parameters in each.
pub(super) fn sizes(len: usize, columns: usize, limit: usize) -> Vec<usize> {
    let most = (limit / columns.max(1)).max(1);
    let most = 1 << most.ilog2();
    let mut sizes = vec![most; len / most];
    let rest = len % most;
    sizes.extend((0..usize::BITS).rev().map(|bit| 1 << bit).filter(|size| rest & size != 0));
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::{ColumnDef, TableName};

    fn table(columns: &[&str], primary_key: Vec<usize>) -> TableDef {
        let column =
            |name: &&str| ColumnDef { name: (*name).into(), ty: "int".parse().unwrap(), nullable: false };
        let columns = columns.iter().map(column).collect();
        TableDef { name: TableName::new("d", "t"), columns, primary_key }
    }

    #[test]
    fn statements() {
        let t = table(&["a", "b", "c"], vec![1, 0]);
        assert_eq!(
            insert(&t, &[0, 1, 2], 2),
            "INSERT INTO `d`.`t` (`a`, `b`, `c`) VALUES (?, ?, ?), (?, ?, ?)"
        );
        assert!(
            overwrite(&t, &[0, 1, 2], 1)
                .ends_with("VALUES (?, ?, ?) AS `tandem_new` ON DUPLICATE KEY UPDATE `c` = `tandem_new`.`c`")
        );
        assert!(overwrite(&table(&["a"], vec![0]), &[0], 1).ends_with("UPDATE `a` = `tandem_new`.`a`"));
        assert_eq!(update(&t, &[2]), "UPDATE `d`.`t` SET `c` = ? WHERE (`b` = ? AND `a` = ?)");
        assert_eq!(delete(&t, 2), "DELETE FROM `d`.`t` WHERE (`b` = ? AND `a` = ?) OR (`b` = ? AND `a` = ?)");
        assert_eq!(
            lock(&table(&["a"], vec![0]), 2),
            "SELECT `a` FROM `d`.`t` WHERE `a` IN (?, ?) FOR UPDATE"
        );
    }

    #[test]
    fn rows_are_split_into_few_sizes() {
        assert_eq!(sizes(0, 3, 100), Vec::<usize>::new());
        assert_eq!(sizes(7, 3, 100), [4, 2, 1]);
        assert_eq!(sizes(70, 3, 100), [32, 32, 4, 2]);
        assert_eq!(sizes(2, 300, 100), [1, 1]);
    }
}
