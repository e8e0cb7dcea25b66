//! The CQL that creates a target table.

use std::fmt::Write as _;

use tandem_model::{ClusteringOrder, CqlColumn, TargetTable};

/// `CREATE TABLE IF NOT EXISTS` for a target table, names quoted so that their case is kept.
///
/// `gc_grace_seconds` must outlive every older write that may still arrive: the retention of the
/// change topics and the oldest chunk or dead letter.
pub fn create_table(keyspace: &str, table: &TargetTable, gc_grace_seconds: u32) -> String {
    let list = |columns: &[CqlColumn]| columns.iter().map(|c| quoted(&c.name)).collect::<Vec<_>>().join(", ");
    let mut cql = format!("CREATE TABLE IF NOT EXISTS {}.{} (\n", quoted(keyspace), quoted(&table.name));
    for column in table.key_columns().chain(&table.regular) {
        // Writing to a String cannot fail.
        let _ = writeln!(cql, "    {} {},", quoted(&column.name), column.ty);
    }
    let _ = write!(cql, "    PRIMARY KEY (({})", list(&table.partition_key));
    for (column, _) in &table.clustering {
        let _ = write!(cql, ", {}", quoted(&column.name));
    }
    cql.push_str(")\n) WITH ");
    if !table.clustering.is_empty() {
        let orders = table.clustering.iter().map(|(column, order)| {
            let order = match order {
                ClusteringOrder::Ascending => "ASC",
                ClusteringOrder::Descending => "DESC",
            };
            format!("{} {order}", quoted(&column.name))
        });
        let _ = write!(cql, "CLUSTERING ORDER BY ({})\n  AND ", orders.collect::<Vec<_>>().join(", "));
    }
    let _ = write!(cql, "gc_grace_seconds = {gc_grace_seconds};");
    cql
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
