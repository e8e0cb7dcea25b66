//! Why a table cannot be migrated.

use tandem_model::{Disposition, TableName};

use crate::error::MysqlError;

/// The definition of a table could not be read, or the table cannot be migrated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The table cannot be migrated. Every reason is listed.
    #[error("table {table} cannot be carried: {}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused {
        /// The table.
        table: TableName,
        /// Every reason.
        problems: Vec<TableProblem>,
    },
    /// The query failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
}

impl TableError {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Refused { .. } => Disposition::Stop,
            Self::Mysql(error) => error.retry(),
        }
    }
}

/// One reason why a table cannot be migrated, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableProblem {
    /// The table does not exist, or the account may not see it.
    #[error("there is no such table, or the account has no privilege on it")]
    NoSuchTable,
    /// The name differs in case from the one under which the binlog has the table's changes.
    #[error("the binlog has its changes under the name {found} only: write source = {found:?}")]
    OtherCase {
        /// That name, as `source` takes it.
        found: String,
    },
    /// It is a view or another object without rows of its own.
    #[error("it is a {0}, not a base table")]
    NotATable(String),
    /// The account may not read it.
    #[error("the account may not read it: GRANT SELECT ON {0} TO the account")]
    NoSelect(String),
    /// Its engine is not InnoDB.
    #[error(
        "its engine is {engine}, only InnoDB's changes are transactional: ALTER TABLE {table} ENGINE=InnoDB"
    )]
    Engine {
        /// The engine.
        engine: String,
        /// The table, quoted.
        table: String,
    },
    /// It has no primary key.
    #[error("it has no primary key: ALTER TABLE {0} ADD PRIMARY KEY (…)")]
    NoPrimaryKey(String),
    /// A key column has a type whose values have no exact identity.
    #[error(
        "its primary key holds column `{column}` of type {ty}, which cannot be a key here: use another type for it"
    )]
    KeyType {
        /// The column.
        column: String,
        /// Its type.
        ty: String,
    },
    /// A key column is excluded.
    #[error("its primary key holds column `{column}`: take that out of `exclude_from_capture`")]
    ExcludedKey {
        /// The column.
        column: String,
    },
    /// A column's type is not supported.
    #[error(
        "column `{column}` has the type {ty}, which is not supported: leave the table out or drop the column"
    )]
    ColumnType {
        /// The column.
        column: String,
        /// Its type.
        ty: String,
    },
    /// A column's character set is not supported.
    #[error(
        "column `{column}` has the character set {charset}, which is not supported: convert it to utf8mb4"
    )]
    Charset {
        /// The column.
        column: String,
        /// Its character set.
        charset: String,
    },
    /// Changes by a foreign key's action do not reach the binlog.
    #[error(
        "rows changed by foreign key `{constraint}` ({action}) never reach the binlog of this server: drop \
         the action, or use MySQL 9.7 or newer with innodb_native_foreign_keys=OFF"
    )]
    NativeCascade {
        /// The constraint.
        constraint: String,
        /// Such as `ON DELETE CASCADE`.
        action: String,
    },
}
