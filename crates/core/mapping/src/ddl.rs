//! The CQL statement that creates a target table.

use std::fmt::Write as _;

use tandem_model::{ClusteringOrder, CqlColumn, TargetTable};

/// The `CREATE TABLE IF NOT EXISTS` statement of a target table. Names are quoted to keep their case.
///
/// `gc_grace_seconds` must be longer than any older write can still arrive. That is at least the retention of
/// the change topics, and the age of the oldest chunk or dead letter.
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

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::CqlType;

    fn column(name: &str, ty: CqlType) -> CqlColumn {
        CqlColumn { name: name.into(), ty }
    }

    #[test]
    fn every_part_of_a_table_is_in_the_statement() {
        let mut table = TargetTable {
            name: "Invoices_by_account".into(),
            partition_key: vec![column("account", CqlType::Varint), column("Month", CqlType::Int)],
            clustering: vec![
                (column("issued", CqlType::Timestamp), ClusteringOrder::Descending),
                (column("id", CqlType::Bigint), ClusteringOrder::Ascending),
            ],
            regular: vec![column("say \"what\"", CqlType::Text)],
        };
        assert_eq!(
            create_table("Billing", &table, 864_000),
            r#"CREATE TABLE IF NOT EXISTS "Billing"."Invoices_by_account" (
    "account" varint,
    "Month" int,
    "issued" timestamp,
    "id" bigint,
    "say ""what""" text,
    PRIMARY KEY (("account", "Month"), "issued", "id")
) WITH CLUSTERING ORDER BY ("issued" DESC, "id" ASC)
  AND gc_grace_seconds = 864000;"#
        );
        table.clustering.clear();
        table.regular.clear();
        table.partition_key.truncate(1);
        assert_eq!(
            create_table("Billing", &table, 0),
            r#"CREATE TABLE IF NOT EXISTS "Billing"."Invoices_by_account" (
    "account" varint,
    PRIMARY KEY (("account"))
) WITH gc_grace_seconds = 0;"#
        );
    }
}
