//! Runs a SELECT on a table, and converts keys to its parameters.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Column, Conn, Error, Value as Raw};
use tandem_model::{ColumnDef, Row, TableDef, TableName, Value};

use crate::connect::Server;
use crate::error::MysqlError;
use crate::read::values::{from_result, is_of_type, parameter};

/// Runs a query that selects these columns and returns its rows.
pub(crate) async fn select_rows(
    conn: &mut Conn,
    server: &Server,
    limit: Duration,
    table: &TableName,
    columns: &[&ColumnDef],
    sql: &str,
    params: Vec<Raw>,
) -> Result<Vec<Row>, MysqlError> {
    let question = async {
        // Uses the binary protocol even without parameters, because the text protocol rounds FLOATs.
        let mut result = conn.exec_iter(sql, params).await?;
        let found: Vec<Column> = result.columns_ref().to_vec();
        let rows: Vec<mysql_async::Row> = result.collect().await?;
        Ok::<_, Error>((found, rows))
    };
    let changed = |problem: String| MysqlError::TableChanged { table: table.clone(), problem };
    let (found, rows) = match server.answer(limit, &format!("reading rows of {table}"), question).await {
        Err(MysqlError::Server { code: 1054, .. }) => {
            return Err(changed("a column is gone or has another name".into()));
        }
        Err(MysqlError::Server { code: 1146 | 1049, .. }) => {
            return Err(changed("it is gone".into()));
        }
        answer => answer?,
    };
    if let Some((_, column)) = found.iter().zip(columns).find(|(f, c)| !is_of_type(f, &c.ty)) {
        return Err(changed(format!("column `{}` has another type", column.name)));
    }
    rows.into_iter()
        .map(|row| {
            row.unwrap()
                .into_iter()
                .zip(columns)
                .map(|(raw, column)| {
                    from_result(raw, &column.ty).map_err(|problem| MysqlError::BadValue {
                        table: table.clone(),
                        column: column.name.clone(),
                        problem,
                    })
                })
                .collect()
        })
        .collect()
}

/// Converts a key's values to parameters.
pub(crate) fn key_parameters(table: &TableDef, key: &[Value]) -> Result<Vec<Raw>, MysqlError> {
    if key.len() != table.primary_key.len() {
        return Err(bad_value(
            table,
            "(primary key)",
            "a key has another number of columns than the primary key",
        ));
    }
    key.iter().zip(&table.primary_key).map(|(value, &i)| column_parameter(table, i, value)).collect()
}

/// Converts a column's value to a parameter.
pub(crate) fn column_parameter(table: &TableDef, column: usize, value: &Value) -> Result<Raw, MysqlError> {
    let cannot = || bad_value(table, &table.columns[column].name, "MySQL cannot hold the value");
    parameter(value).ok_or_else(cannot)
}

fn bad_value(table: &TableDef, column: &str, problem: &str) -> MysqlError {
    MysqlError::BadValue { table: table.name.clone(), column: column.to_owned(), problem: problem.to_owned() }
}
