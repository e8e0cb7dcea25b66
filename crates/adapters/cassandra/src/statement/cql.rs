//! Builds the text of every statement.

use tandem_model::{ClusteringOrder, CqlColumn, TargetTable};

/// Quotes an identifier, so that CQL keeps its case. Doubles the quotes within it.
pub(crate) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A string literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `"keyspace"."table"`.
pub(crate) fn qualified(keyspace: &str, table: &str) -> String {
    format!("{}.{}", quote(keyspace), quote(table))
}

fn names<'a>(columns: impl Iterator<Item = &'a CqlColumn>) -> String {
    columns.map(|c| quote(&c.name)).collect::<Vec<_>>().join(", ")
}

fn key_equals(table: &TargetTable) -> String {
    table.key_columns().map(|c| format!("{} = ?", quote(&c.name))).collect::<Vec<_>>().join(" AND ")
}

/// Binds the key, the regular columns and the timestamp.
pub(crate) fn insert(keyspace: &str, table: &TargetTable) -> String {
    let columns = names(table.key_columns().chain(&table.regular));
    let markers = vec!["?"; table.key_len() + table.regular.len()].join(", ");
    format!(
        "INSERT INTO {} ({columns}) VALUES ({markers}) USING TIMESTAMP ?",
        qualified(keyspace, &table.name)
    )
}

/// Binds the timestamp and the key.
pub(crate) fn delete(keyspace: &str, table: &TargetTable) -> String {
    format!("DELETE FROM {} USING TIMESTAMP ? WHERE {}", qualified(keyspace, &table.name), key_equals(table))
}

/// Binds the key. Returns the regular columns and then their write times. For a table without regular columns
/// it returns the first key column, so that an existing row returns a row.
pub(crate) fn select(keyspace: &str, table: &TargetTable) -> String {
    let columns = if table.regular.is_empty() {
        names(table.key_columns().take(1))
    } else {
        let writetimes = table.regular.iter().map(|c| format!("WRITETIME({})", quote(&c.name)));
        table.regular.iter().map(|c| quote(&c.name)).chain(writetimes).collect::<Vec<_>>().join(", ")
    };
    format!("SELECT {columns} FROM {} WHERE {}", qualified(keyspace, &table.name), key_equals(table))
}

/// Binds the first `equal` key columns, the bounds of the next one and the limit. Returns the key and the
/// regular columns. `lower` and `upper` say whether the bound is inclusive; `None` means no bound.
pub(crate) fn slice(
    keyspace: &str,
    table: &TargetTable,
    equal: usize,
    lower: Option<bool>,
    upper: Option<bool>,
) -> String {
    let columns: Vec<String> = table.key_columns().map(|c| quote(&c.name)).collect();
    let mut terms: Vec<String> = columns.iter().take(equal).map(|name| format!("{name} = ?")).collect();
    for (bound, operator) in [(lower, '>'), (upper, '<')] {
        if let (Some(inclusive), Some(name)) = (bound, columns.get(equal)) {
            terms.push(format!("{name} {operator}{} ?", if inclusive { "=" } else { "" }));
        }
    }
    format!(
        "SELECT {} FROM {} WHERE {} LIMIT ?",
        names(table.key_columns().chain(&table.regular)),
        qualified(keyspace, &table.name),
        terms.join(" AND ")
    )
}

/// Binds the first and the last token. Returns the key.
pub(crate) fn scan(keyspace: &str, table: &TargetTable) -> String {
    let token = format!("TOKEN({})", names(table.partition_key.iter()));
    format!(
        "SELECT {} FROM {} WHERE {token} >= ? AND {token} <= ?",
        names(table.key_columns()),
        qualified(keyspace, &table.name)
    )
}

/// Binds the key. Returns the regular columns, without write times.
pub(crate) fn select_cells(keyspace: &str, table: &TargetTable) -> String {
    let columns = names(table.regular.iter());
    format!("SELECT {columns} FROM {} WHERE {}", qualified(keyspace, &table.name), key_equals(table))
}

/// Binds the first and the last token. Returns the key and the regular columns.
pub(crate) fn scan_rows(keyspace: &str, table: &TargetTable) -> String {
    let token = format!("TOKEN({})", names(table.partition_key.iter()));
    format!(
        "SELECT {} FROM {} WHERE {token} >= ? AND {token} <= ?",
        names(table.key_columns().chain(&table.regular)),
        qualified(keyspace, &table.name)
    )
}

/// Binds the regular columns, the key, and what the first regular column is compared with. A comparison with null holds
/// where there is no row.
pub(crate) fn swap(keyspace: &str, table: &TargetTable) -> String {
    let set: Vec<_> = table.regular.iter().map(|c| format!("{} = ?", quote(&c.name))).collect();
    format!(
        "UPDATE {} SET {} WHERE {} IF {}",
        qualified(keyspace, &table.name),
        set.join(", "),
        key_equals(table),
        compared(table)
    )
}

/// Binds the key and what the first regular column is compared with.
pub(crate) fn remove(keyspace: &str, table: &TargetTable) -> String {
    let table_name = qualified(keyspace, &table.name);
    format!("DELETE FROM {table_name} WHERE {} IF {}", key_equals(table), compared(table))
}

fn compared(table: &TargetTable) -> String {
    let first: Vec<_> = table.regular.iter().take(1).map(|c| format!("{} = ?", quote(&c.name))).collect();
    first.concat()
}

pub(crate) fn create_keyspace(keyspace: &str, datacenter: &str, replication_factor: u32) -> String {
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = \
         {{'class': 'NetworkTopologyStrategy', {}: {replication_factor}}}",
        quote(keyspace),
        literal(datacenter)
    )
}

pub(crate) fn create_table(keyspace: &str, table: &TargetTable) -> String {
    let columns: Vec<_> = table
        .key_columns()
        .chain(&table.regular)
        .map(|c| format!("{} {}", quote(&c.name), c.ty.name()))
        .collect();
    let mut key = vec![format!("({})", names(table.partition_key.iter()))];
    key.extend(table.clustering.iter().map(|(c, _)| quote(&c.name)));
    let order: Vec<_> = table
        .clustering
        .iter()
        .map(|(c, order)| {
            let order = if *order == ClusteringOrder::Descending { "DESC" } else { "ASC" };
            format!("{} {order}", quote(&c.name))
        })
        .collect();
    let with = if order.is_empty() {
        String::new()
    } else {
        format!(" WITH CLUSTERING ORDER BY ({})", order.join(", "))
    };
    format!(
        "CREATE TABLE IF NOT EXISTS {} ({}, PRIMARY KEY ({})){with}",
        qualified(keyspace, &table.name),
        columns.join(", "),
        key.join(", ")
    )
}

pub(crate) fn add_column(keyspace: &str, table: &str, column: &CqlColumn) -> String {
    format!("ALTER TABLE {} ADD {} {}", qualified(keyspace, table), quote(&column.name), column.ty.name())
}

pub(crate) fn no_default_ttl(keyspace: &str, table: &str) -> String {
    format!("ALTER TABLE {} WITH default_time_to_live = 0", qualified(keyspace, table))
}

/// The table that says which migration owns each target table.
pub(crate) const OWNERS: &str = "tandem_targets";

pub(crate) fn create_owners(keyspace: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (table_name text PRIMARY KEY, migration text, table_id text, held_rows boolean)",
        qualified(keyspace, OWNERS)
    )
}

/// Returns the table's name, its id, its owner, and whether it held rows.
pub(crate) fn select_owners(keyspace: &str) -> String {
    format!("SELECT table_name, table_id, migration, held_rows FROM {}", qualified(keyspace, OWNERS))
}

/// Like [`select_owners`]. Binds the table's name.
pub(crate) fn select_owner(keyspace: &str) -> String {
    format!("{} WHERE table_name = ?", select_owners(keyspace))
}

/// Binds the table's name, its id, its owner, and whether it held rows.
pub(crate) fn insert_owner(keyspace: &str) -> String {
    format!(
        "INSERT INTO {} (table_name, table_id, migration, held_rows) VALUES (?, ?, ?, ?) IF NOT EXISTS",
        qualified(keyspace, OWNERS)
    )
}

/// Binds the table's id, its owner, whether it held rows, its name, and the id and the owner so far.
pub(crate) fn update_owner(keyspace: &str) -> String {
    format!(
        "UPDATE {} SET table_id = ?, migration = ?, held_rows = ? WHERE table_name = ? IF table_id = ? AND migration = ?",
        qualified(keyspace, OWNERS)
    )
}

/// Returns a row if there is one.
pub(crate) fn any_row(keyspace: &str, table: &str, key_column: &str) -> String {
    format!("SELECT {} FROM {} LIMIT 1", quote(key_column), qualified(keyspace, table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::CqlType;

    fn column(name: &str, ty: CqlType) -> CqlColumn {
        CqlColumn { name: name.into(), ty }
    }

    fn table() -> TargetTable {
        TargetTable {
            name: "Invoice\"s".into(),
            partition_key: vec![column("Account", CqlType::Bigint), column("month", CqlType::Int)],
            clustering: vec![
                (column("at", CqlType::Timestamp), ClusteringOrder::Descending),
                (column("id", CqlType::Bigint), ClusteringOrder::Ascending),
            ],
            regular: vec![column("amount", CqlType::Decimal)],
        }
    }

    #[test]
    fn statements() {
        let t = table();
        assert_eq!(
            insert("Ks", &t),
            r#"INSERT INTO "Ks"."Invoice""s" ("Account", "month", "at", "id", "amount") VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"#
        );
        assert_eq!(
            delete("Ks", &t),
            r#"DELETE FROM "Ks"."Invoice""s" USING TIMESTAMP ? WHERE "Account" = ? AND "month" = ? AND "at" = ? AND "id" = ?"#
        );
        assert_eq!(
            select("Ks", &t),
            r#"SELECT "amount", WRITETIME("amount") FROM "Ks"."Invoice""s" WHERE "Account" = ? AND "month" = ? AND "at" = ? AND "id" = ?"#
        );
        assert_eq!(
            scan("Ks", &t),
            r#"SELECT "Account", "month", "at", "id" FROM "Ks"."Invoice""s" WHERE TOKEN("Account", "month") >= ? AND TOKEN("Account", "month") <= ?"#
        );
        assert_eq!(
            slice("Ks", &t, 2, Some(true), Some(false)),
            r#"SELECT "Account", "month", "at", "id", "amount" FROM "Ks"."Invoice""s" WHERE "Account" = ? AND "month" = ? AND "at" >= ? AND "at" < ? LIMIT ?"#
        );
        assert_eq!(
            create_table("Ks", &t),
            r#"CREATE TABLE IF NOT EXISTS "Ks"."Invoice""s" ("Account" bigint, "month" int, "at" timestamp, "id" bigint, "amount" decimal, PRIMARY KEY (("Account", "month"), "at", "id")) WITH CLUSTERING ORDER BY ("at" DESC, "id" ASC)"#
        );
    }

    #[test]
    fn a_compare_and_set_compares_the_first_regular_column() {
        let more = vec![column("Nonce", CqlType::Blob), column("v", CqlType::Bigint)];
        let t = TargetTable { regular: more, clustering: vec![], ..table() };
        assert_eq!(
            swap("Ks", &t),
            r#"UPDATE "Ks"."Invoice""s" SET "Nonce" = ?, "v" = ? WHERE "Account" = ? AND "month" = ? IF "Nonce" = ?"#
        );
        assert_eq!(
            remove("Ks", &t),
            r#"DELETE FROM "Ks"."Invoice""s" WHERE "Account" = ? AND "month" = ? IF "Nonce" = ?"#
        );
        assert_eq!(
            select_cells("Ks", &t),
            r#"SELECT "Nonce", "v" FROM "Ks"."Invoice""s" WHERE "Account" = ? AND "month" = ?"#
        );
        assert_eq!(
            scan_rows("Ks", &t),
            r#"SELECT "Account", "month", "Nonce", "v" FROM "Ks"."Invoice""s" WHERE TOKEN("Account", "month") >= ? AND TOKEN("Account", "month") <= ?"#
        );
    }

    #[test]
    fn a_table_without_regular_columns() {
        let t = TargetTable { regular: vec![], clustering: vec![], ..table() };
        assert_eq!(
            select("k", &t),
            r#"SELECT "Account" FROM "k"."Invoice""s" WHERE "Account" = ? AND "month" = ?"#
        );
        assert_eq!(
            create_table("k", &t),
            r#"CREATE TABLE IF NOT EXISTS "k"."Invoice""s" ("Account" bigint, "month" int, PRIMARY KEY (("Account", "month")))"#
        );
    }
}
