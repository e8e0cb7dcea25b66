//! Filters: their language, the writes of filtered targets, and their totality.

#![allow(clippy::unwrap_used)] // the helpers of a test fail it by panicking

mod changes;
mod language;
mod total;

use std::sync::Arc;

use tandem_mapping::{PlanError, RowError, TablePlan, TargetConfig, same_shape};
use tandem_model::{ColumnDef, Decimal, Row, TableDef, TableName, Value};

/// The columns of `d.t`. A `?` after the type means that the column may be NULL.
pub(crate) const COLUMNS: [(&str, &str); 12] = [
    ("id", "bigint"),
    ("n", "tinyint?"),
    ("u", "bigint unsigned?"),
    ("s", "varchar(9)?"),
    ("e", "enum('new','paid')"),
    ("r", "float?"),
    ("b", "blob?"),
    ("at", "datetime(6)?"),
    ("seen", "timestamp"),
    ("day", "date?"),
    ("amount", "decimal(10,2)"),
    ("took", "time"),
];

pub(crate) fn table() -> TableDef {
    let columns = COLUMNS.map(|(name, ty)| ColumnDef {
        name: name.into(),
        ty: ty.trim_end_matches('?').parse().unwrap(),
        nullable: ty.ends_with('?'),
    });
    TableDef { name: TableName::new("d", "t"), columns: columns.into(), primary_key: vec![0] }
}

pub(crate) fn row() -> Row {
    vec![
        Value::Int(1),
        Value::Int(-5),
        Value::UInt(u64::MAX),
        Value::Text("Paid".into()),
        Value::Text("new".into()),
        Value::Float(0.5),
        Value::Bytes(vec![1, 0xff]),
        Value::DateTime(1_700_000_000_000_001),
        Value::Timestamp(0),
        Value::Date(19_000),
        Value::Decimal(Decimal::parse("1.50", 2).unwrap()),
        Value::Time(1),
    ]
}

pub(crate) fn nulls() -> Row {
    let nullable = COLUMNS.map(|(_, ty)| ty.ends_with('?'));
    row().into_iter().zip(nullable).map(|(v, nullable)| if nullable { Value::Null } else { v }).collect()
}

/// `row()` or `nulls()` with one column set.
pub(crate) fn set(mut row: Row, column: &str, value: Value) -> Row {
    row[COLUMNS.iter().position(|(name, _)| *name == column).unwrap()] = value;
    row
}

/// One target `x` by `id` that holds only `n`, for the rows that the filter admits.
pub(crate) fn compile(filter: &str, table: TableDef) -> Result<TablePlan, PlanError> {
    let mut config = same_shape(&table);
    let others = COLUMNS.iter().map(|(name, _)| (*name).to_owned()).filter(|n| n != "id" && n != "n");
    config.target[0] = TargetConfig {
        table: "x".into(),
        r#where: Some(filter.into()),
        exclude_from_target: others.collect(),
        ..config.target[0].clone()
    };
    TablePlan::compile(&config, &Arc::new(table))
}

pub(crate) fn plan(filter: &str) -> TablePlan {
    compile(filter, table()).unwrap()
}

pub(crate) fn admits(plan: &TablePlan, row: &Row) -> Result<bool, RowError> {
    plan.expected(row).map(|rows| !rows.is_empty())
}
