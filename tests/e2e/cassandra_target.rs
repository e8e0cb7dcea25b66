//! Cassandra's rules of cells, on which the version protocol relies, and the crate that writes by them,
//! against a real server (`TANDEM_CASSANDRA_NODES`).

mod cells;
mod rows;
mod schema;

use tandem_cassandra::{CassandraConfig, Target};
use tandem_model::{Cell, CqlColumn, CqlType, Mutation, StoredRow, TargetKey, TargetTable, Version, Write};

use crate::support::{nodes, unique_id};

/// The configuration of a keyspace for this run.
fn config(test: &str) -> CassandraConfig {
    let mut config = CassandraConfig::new(nodes(), format!("Target_{test}_{}", unique_id()));
    config.replication_factor = Some(1);
    config
}

fn column(name: &str, ty: CqlType) -> CqlColumn {
    CqlColumn { name: name.into(), ty }
}

/// `id bigint` and two text cells.
fn plain(name: &str) -> TargetTable {
    TargetTable {
        name: name.into(),
        partition_key: vec![column("id", CqlType::Bigint)],
        clustering: vec![],
        regular: vec![column("a", CqlType::Text), column("b", CqlType::Text)],
    }
}

/// Connects, creates the keyspace and the tables (with the remedies of the schema check), and prepares them.
async fn target(config: &CassandraConfig, tables: &[TargetTable]) -> anyhow::Result<Target> {
    let target = Target::connect(config).await?;
    target.create_keyspace().await?;
    for finding in target.check_schema(tables).await? {
        target.execute_ddl(&finding.remedy.expect("a missing table can be created")).await?;
    }
    target.prepare(tables).await?;
    Ok(target)
}

async fn drop_keyspace(target: &Target) -> anyhow::Result<()> {
    Ok(target.execute_ddl(&format!("DROP KEYSPACE \"{}\"", target.keyspace())).await?)
}

fn key(id: i64) -> TargetKey {
    vec![id.to_be_bytes().to_vec()]
}

fn text(value: &str) -> Cell {
    Cell::Value(value.as_bytes().to_vec())
}

fn upsert(table: &str, id: i64, version: i64, cells: Vec<Cell>) -> Mutation {
    Mutation { target: table.into(), key: key(id), version: Version(version), write: Write::Upsert(cells) }
}

fn delete(table: &str, id: i64, version: i64) -> Mutation {
    Mutation { target: table.into(), key: key(id), version: Version(version), write: Write::DeleteRow }
}

/// `name@writetime` of each cell.
fn shown(row: Option<&StoredRow>) -> String {
    let Some(row) = row else { return "no row".into() };
    let cells = row.cells.iter().zip(&row.writetimes).map(|(cell, at)| match (cell, at) {
        (Some(cell), Some(at)) => format!("{}@{at}", String::from_utf8_lossy(cell)),
        (None, None) => "-".into(),
        odd => format!("{odd:?}"),
    });
    cells.collect::<Vec<_>>().join(" ")
}
