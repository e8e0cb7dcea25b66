//! Table definitions, read from `information_schema`.

use std::collections::HashMap;

use tandem_binlog::{ExcludedColumns, is_supported_charset};
use tandem_model::{ColumnDef, ColumnType, TableDef, TableName};

use crate::error::MysqlError;
use crate::mysql::Mysql;
use crate::read::query::quoted_table;
use crate::schema::table_error::{TableError, TableProblem};

/// A table as `information_schema` describes it.
#[derive(Debug, Clone)]
struct Description {
    /// The table's name in the binlog.
    name: TableName,
    /// `BASE TABLE` or another kind.
    kind: String,
    engine: String,
    /// Name, type, `YES` or `NO` for nullable, character set.
    columns: Vec<(String, String, String, Option<String>)>,
    /// The key's columns in key order. A key on a column prefix counts as a key on the whole column, because
    /// a unique prefix implies a unique column.
    key: Vec<String>,
    /// Foreign keys of this table: name, action on delete, action on update.
    foreign_keys: Vec<(String, String, String)>,
    /// Whether changes by foreign key actions reach the binlog.
    cascades_logged: bool,
    readable: bool,
}

impl Mysql {
    /// Lists the base tables of a database, sorted by name, under their names in the binlog.
    ///
    /// # Errors
    /// The server cannot be reached or the query fails.
    pub async fn list_tables(&self, database: &str) -> Result<Vec<TableName>, MysqlError> {
        let case = self.name_case().await?;
        let names: Vec<(String, String)> = self
            .rows(
                &format!("listing the tables of {database}"),
                "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
                 WHERE TABLE_SCHEMA = ? AND TABLE_TYPE = 'BASE TABLE' ORDER BY TABLE_NAME",
                (database,),
            )
            .await?;
        Ok(names
            .into_iter()
            .map(|(database, name)| case.fold_table(TableName::new(database, name)))
            .collect())
    }

    /// Reads the definition of a table.
    ///
    /// # Errors
    /// [`TableError::Refused`] lists every reason why the table cannot be migrated. [`TableError::Mysql`]
    /// means that the query failed.
    pub async fn table_def(&self, table: &TableName) -> Result<TableDef, TableError> {
        let refused = |problems| TableError::Refused { table: table.clone(), problems };
        let Some(description) = self.describe(table).await? else {
            let found = self.in_another_case(table).await?;
            return Err(refused(vec![found.map_or(TableProblem::NoSuchTable, |found| other_case(&found))]));
        };
        definition(table, &description, &self.excluded).map_err(refused)
    }

    /// Returns the excluded columns that the table does not have.
    ///
    /// # Errors
    /// The server cannot be reached or the query fails.
    pub async fn missing_excluded(&self, table: &TableName) -> Result<Vec<String>, MysqlError> {
        let columns: Vec<String> = self
            .rows(
                &format!("reading the columns of {table}"),
                "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
                (&table.database, &table.table),
            )
            .await?;
        Ok(self.excluded.beyond(table, columns.iter().map(String::as_str)))
    }

    async fn describe(&self, table: &TableName) -> Result<Option<Description>, MysqlError> {
        let doing = format!("reading the definition of {table}");
        let name = || (table.database.clone(), table.table.clone());
        let kinds: Vec<(String, String, String, Option<String>)> = self
            .rows(
                &doing,
                "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND \
                 TABLE_NAME = ?",
                name(),
            )
            .await?;
        let Some((database, table_name, kind, engine)) = kinds.into_iter().next() else {
            return Ok(None);
        };
        let columns = self
            .rows(
                &doing,
                "SELECT COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME FROM \
                 information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
                name(),
            )
            .await?;
        let key = self
            .rows(
                &doing,
                "SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = ? AND \
                 TABLE_NAME = ? AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX",
                name(),
            )
            .await?;
        let foreign_keys = self
            .rows(
                &doing,
                "SELECT CONSTRAINT_NAME, DELETE_RULE, UPDATE_RULE FROM \
                 information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = ? AND TABLE_NAME = ? \
                 ORDER BY CONSTRAINT_NAME",
                name(),
            )
            .await?;
        // Older servers do not have this variable. They have only InnoDB's own foreign keys.
        let native: Vec<(String, String)> =
            self.rows(&doing, "SHOW GLOBAL VARIABLES LIKE 'innodb_native_foreign_keys'", ()).await?;
        let probe = format!("SELECT 1 FROM {} LIMIT 0", quoted_table(table));
        let readable = match self.rows::<u64>(&doing, &probe, ()).await {
            Ok(_) => true,
            Err(MysqlError::MissingPrivilege { .. }) => false,
            Err(error) => return Err(error),
        };
        let case = self.name_case().await?;
        Ok(Some(Description {
            name: case.fold_table(TableName::new(database, table_name)),
            kind,
            engine: engine.unwrap_or_default(),
            columns,
            key,
            foreign_keys,
            cascades_logged: native.first().is_some_and(|(_, value)| value == "OFF"),
            readable,
        }))
    }
}

/// Returns the definition, or every problem.
fn definition(
    table: &TableName,
    found: &Description,
    excluded: &ExcludedColumns,
) -> Result<TableDef, Vec<TableProblem>> {
    if found.name != *table {
        return Err(vec![other_case(&found.name)]);
    }
    if found.kind != "BASE TABLE" {
        return Err(vec![TableProblem::NotATable(found.kind.to_lowercase())]);
    }
    let mut problems = Vec::new();
    if !found.readable {
        problems.push(TableProblem::NoSelect(quoted_table(table)));
    }
    if found.engine != "InnoDB" {
        problems.push(TableProblem::Engine { engine: found.engine.clone(), table: quoted_table(table) });
    }
    let mut columns = Vec::with_capacity(found.columns.len());
    for (name, ty, nullable, charset) in &found.columns {
        match ty.parse::<ColumnType>() {
            Ok(_) if excluded.has(table, name) => {}
            Ok(ty) => columns.push(ColumnDef { name: name.clone(), ty, nullable: nullable == "YES" }),
            Err(_) => problems.push(TableProblem::ColumnType { column: name.clone(), ty: kind_of(ty) }),
        }
        if let Some(charset) = charset.as_ref().filter(|c| !is_supported_charset(c)) {
            problems.push(TableProblem::Charset { column: name.clone(), charset: charset.clone() });
        }
    }
    if found.key.is_empty() {
        problems.push(TableProblem::NoPrimaryKey(quoted_table(table)));
    }
    let places: HashMap<&str, usize> =
        columns.iter().enumerate().map(|(i, c)| (c.name.as_str(), i)).collect();
    let mut primary_key = Vec::with_capacity(found.key.len());
    for name in &found.key {
        if excluded.has(table, name) {
            problems.push(TableProblem::ExcludedKey { column: name.clone() });
        }
        // A column that is missing here was refused above.
        let Some(&place) = places.get(name.as_str()) else {
            continue;
        };
        let ty = &columns[place].ty;
        if matches!(ty, ColumnType::Float | ColumnType::Double | ColumnType::Enum(_) | ColumnType::Set(_)) {
            problems.push(TableProblem::KeyType { column: name.clone(), ty: kind_of(&ty.to_string()) });
        }
        primary_key.push(place);
    }
    if !found.cascades_logged {
        for (constraint, on_delete, on_update) in &found.foreign_keys {
            for (event, action) in [("DELETE", on_delete), ("UPDATE", on_update)] {
                if matches!(action.as_str(), "CASCADE" | "SET NULL" | "SET DEFAULT") {
                    let (constraint, action) = (constraint.clone(), format!("ON {event} {action}"));
                    problems.push(TableProblem::NativeCascade { constraint, action });
                }
            }
        }
    }
    if problems.is_empty() {
        Ok(TableDef { name: table.clone(), columns, primary_key })
    } else {
        Err(problems)
    }
}

fn other_case(found: &TableName) -> TableProblem {
    TableProblem::OtherCase { found: found.to_string() }
}

/// A type without its arguments, because an ENUM may have thousands of members.
fn kind_of(ty: &str) -> String {
    ty.split('(').next().unwrap_or(ty).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(columns: &[(&str, &str, Option<&str>)], key: &[&str]) -> Description {
        Description {
            name: TableName::new("d", "t"),
            kind: "BASE TABLE".into(),
            engine: "InnoDB".into(),
            columns: columns
                .iter()
                .map(|(n, t, c)| ((*n).into(), (*t).into(), "NO".into(), c.map(Into::into)))
                .collect(),
            key: key.iter().map(|n| (*n).into()).collect(),
            foreign_keys: Vec::new(),
            cascades_logged: true,
            readable: true,
        }
    }

    #[test]
    fn key_columns_keep_the_key_order() {
        let (name, none) = (TableName::new("d", "t"), ExcludedColumns::default());
        let found = described(
            &[("a", "int", None), ("b", "varchar(9)", Some("latin1")), ("c", "binary(3)", None)],
            &["c", "a"],
        );
        let def = definition(&name, &found, &none).unwrap();
        assert_eq!(def.primary_key, [2, 0]);
        assert_eq!(def.columns[2].ty, ColumnType::Bytes { fixed: Some(3) });
    }

    #[test]
    fn excluded_columns_are_left_out() {
        let name = TableName::new("d", "t");
        let found = described(
            &[("a", "int", None), ("Secret", "text", Some("utf8mb4")), ("c", "int", None)],
            &["c", "a"],
        );
        let excluding =
            |column: &str| [(name.clone(), column.to_owned())].into_iter().collect::<ExcludedColumns>();
        let def = definition(&name, &found, &excluding("secret")).unwrap();
        assert_eq!(def.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(def.primary_key, [1, 0]);
        let problems = definition(&name, &found, &excluding("a")).unwrap_err();
        assert_eq!(problems, [TableProblem::ExcludedKey { column: "a".into() }]);
        let elsewhere = [(TableName::new("d", "other"), "a".to_owned())].into_iter().collect();
        assert_eq!(definition(&name, &found, &elsewhere).unwrap().columns.len(), 3);
    }

    #[test]
    fn every_problem_is_listed() {
        let (name, none) = (TableName::new("d", "t"), ExcludedColumns::default());
        let mut found = described(
            &[
                ("j", "curve", None),
                ("s", "varchar(9)", Some("martian")),
                ("e", "enum('a','b')", Some("utf8mb4")),
                ("p", "varchar(300)", Some("utf8mb4")),
            ],
            &["e", "p"],
        );
        found.engine = "MyISAM".into();
        found.readable = false;
        found.foreign_keys = vec![("fk".into(), "CASCADE".into(), "SET NULL".into())];
        found.cascades_logged = false;
        let problems = definition(&name, &found, &none).unwrap_err();
        assert_eq!(
            problems,
            [
                TableProblem::NoSelect("`d`.`t`".into()),
                TableProblem::Engine { engine: "MyISAM".into(), table: "`d`.`t`".into() },
                TableProblem::ColumnType { column: "j".into(), ty: "curve".into() },
                TableProblem::Charset { column: "s".into(), charset: "martian".into() },
                TableProblem::KeyType { column: "e".into(), ty: "enum".into() },
                TableProblem::NativeCascade { constraint: "fk".into(), action: "ON DELETE CASCADE".into() },
                TableProblem::NativeCascade { constraint: "fk".into(), action: "ON UPDATE SET NULL".into() },
            ]
        );
        let message = TableError::Refused { table: name.clone(), problems }.to_string();
        assert!(
            message.contains("curve") && message.contains("martian") && message.contains("ENGINE=InnoDB")
        );

        found.cascades_logged = true;
        found.key.clear();
        let problems = definition(&name, &found, &none).unwrap_err();
        assert!(problems.contains(&TableProblem::NoPrimaryKey("`d`.`t`".into())));
        assert!(!problems.iter().any(|r| matches!(r, TableProblem::NativeCascade { .. })));

        let typed = TableName::new("D", "t");
        assert_eq!(definition(&typed, &found, &none), Err(vec![other_case(&name)]));
        found.kind = "VIEW".into();
        assert_eq!(definition(&name, &found, &none), Err(vec![TableProblem::NotATable("view".into())]));
    }
}
