//! The errors of plans and rows. Messages name the table, the column and the remedy. They never contain a
//! value.

use std::fmt;

use tandem_model::{ColumnType, Disposition, TableName};

use crate::filter::FilterProblem;
use crate::print::quoted_names;

/// A configuration that cannot become a plan, with all its problems.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PlanError {
    /// The problems, at least one, in the order of the configuration.
    pub problems: Vec<PlanProblem>,
}

impl PlanError {
    /// Every problem needs another configuration or another table.
    pub fn retry(&self) -> Disposition {
        Disposition::Stop
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// A problem and its location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanProblem {
    /// The MySQL table, as the configuration names it.
    pub table: String,
    /// The target table, if the problem concerns one target.
    pub target: Option<String>,
    /// The kind of problem.
    pub kind: PlanProblemKind,
}

impl fmt::Display for PlanProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table `{}`", self.table)?;
        if let Some(target) = &self.target {
            write!(f, ", target `{target}`")?;
        }
        write!(f, ": {}", self.kind)
    }
}

/// A problem with the configuration of a table, or with a table for its plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanProblemKind {
    /// `source` is not a table name.
    #[error("`source` is not of the form database.table; correct it")]
    BadSource,
    /// MySQL has no such table.
    #[error(
        "MySQL has no such table, or Tandem's user may not see it; correct `source` or grant SELECT on it"
    )]
    NoSuchTable,
    /// The definition is that of another table than the plan's.
    #[error("the definition given is that of `{found}`; after a RENAME, correct `source` and restart")]
    OtherTable {
        /// The table of the definition.
        found: TableName,
    },
    /// Two `[[table]]` sections for one table.
    #[error("it is configured twice; put all its targets under one [[table]]")]
    SourceTwice,
    /// No `[[table.target]]`.
    #[error("it has no target; add a [[table.target]]")]
    NoTarget,
    /// The MySQL table has no primary key.
    #[error("it has no primary key, so its rows cannot be told apart; add one in MySQL")]
    NoPrimaryKey,
    /// Cassandra does not allow a table with this name.
    #[error("Cassandra allows no table of that name; use 1 to 48 of A-Z, a-z, 0-9 and _")]
    TableName,
    /// Two targets with the same table.
    #[error("that table is already filled from `{other}`; give every target a table of its own")]
    TargetTwice {
        /// The MySQL table of the other target.
        other: String,
    },
    /// A name that is not a column of the MySQL table.
    #[error(
        "`{option}` names `{column}`, which MySQL's table does not have; name columns as MySQL does, before any rename"
    )]
    UnknownColumn {
        /// The option that names it.
        option: &'static str,
        /// The name.
        column: String,
    },
    /// A key column is excluded.
    #[error("`{column}` is in the key and in `exclude_from_target`; take it out of one of them")]
    OmittedKey {
        /// The column.
        column: String,
    },
    /// A column is both renamed and excluded.
    #[error("`{column}` is in `rename` and in `exclude_from_target`; take it out of one of them")]
    RenamedAndOmitted {
        /// The column.
        column: String,
    },
    /// Two columns would have the same name in Cassandra.
    #[error("`{first}` and `{second}` would both be called `{name}`; rename one of them differently")]
    SameName {
        /// The name in Cassandra.
        name: String,
        /// A MySQL column.
        first: String,
        /// Another MySQL column.
        second: String,
    },
    /// A column is renamed to the empty name.
    #[error("`rename` gives `{column}` an empty name; name it or use `exclude_from_target`")]
    EmptyName {
        /// The MySQL column.
        column: String,
    },
    /// The partition key is empty.
    #[error("`partition_key` is empty; name at least one column")]
    EmptyPartitionKey,
    /// A column is in the key twice.
    #[error("`{column}` is in the key twice; name it once")]
    KeyTwice {
        /// The column.
        column: String,
    },
    /// A clustering entry that is not `column`, `column asc` or `column desc`.
    #[error("`clustering_key` has `{entry}`; write a column's name, then nothing, `asc` or `desc`")]
    BadOrder {
        /// The entry.
        entry: String,
    },
    /// The target's key lacks columns of MySQL's primary key.
    #[error(
        "the key lacks {} of MySQL's primary key, so two rows could have the same key; add to `clustering_key`",
        quoted_names(.missing)
    )]
    KeyLacksSourceKey {
        /// The missing columns.
        missing: Vec<String>,
    },
    /// A key column may be NULL.
    #[error(
        "key column `{column}` may be NULL, which Cassandra cannot store in a key; declare it NOT NULL or use another"
    )]
    NullableKey {
        /// The column.
        column: String,
    },
    /// A FLOAT or DOUBLE in the key.
    #[error("key column `{column}` is a floating point number, which is not a reliable key; use another")]
    FloatKey {
        /// The column.
        column: String,
    },
    /// A mapped column no longer exists.
    #[error(
        "MySQL's table no longer has the mapped column `{column}`; map the table without it and copy it again if it was renamed"
    )]
    Vanished {
        /// The column.
        column: String,
    },
    /// The type of a mapped column is now stored in another form.
    #[error(
        "column `{column}` was {was} and is {now}, which Cassandra stores differently; change the target table and copy it again"
    )]
    Changed {
        /// The column.
        column: String,
        /// Its type when the plan was compiled.
        was: ColumnType,
        /// Its type now.
        now: ColumnType,
    },
    /// A filter has a problem.
    #[error("`where = {expression:?}`, at {at}: {problem}")]
    Filter {
        /// The expression.
        expression: String,
        /// The position in it as `line:column`, both from 1.
        at: String,
        /// The problem of the filter.
        problem: FilterProblem,
    },
    /// The values of a filter's column now mean something else.
    #[error(
        "column `{column}`, which `where` uses, was {was} and is {now}, so its values mean something else; check that `where` still selects the right rows and restart"
    )]
    FilterColumnChanged {
        /// The column.
        column: String,
        /// Its type when the plan was compiled.
        was: ColumnType,
        /// Its type now.
        now: ColumnType,
    },
    /// The table has a column that the plan does not know.
    #[error(
        "MySQL's table has a new column `{column}`; add it to the target tables and restart, or name it in `exclude_from_target`, or set `on_new_column = \"ignore\"`"
    )]
    NewColumn {
        /// The column.
        column: String,
    },
}

/// A row or key that cannot be converted for Cassandra or from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// A zero or partial date.
    #[error(
        "`{table}`.`{column}` holds a zero or partial date, which Cassandra cannot store; correct the row in MySQL, set `zero_dates` of the table, or name the column in `exclude_from_target`"
    )]
    InvalidDate {
        /// The MySQL table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// A value whose kind does not match its column's type.
    #[error(
        "`{table}`.`{column}` is {ty} but the row has a {found}; the row was decoded with another schema"
    )]
    Kind {
        /// The MySQL table.
        table: TableName,
        /// The column.
        column: String,
        /// Its type.
        ty: ColumnType,
        /// The kind of value that the row has.
        found: &'static str,
    },
    /// A value outside the range of its column's type.
    #[error("`{table}`.`{column}` holds a value outside {ty}; the row was decoded with another schema")]
    Range {
        /// The MySQL table.
        table: TableName,
        /// The column.
        column: String,
        /// Its type.
        ty: ColumnType,
    },
    /// A row for which a filter cannot be evaluated.
    #[error(
        "`where = {expression:?}` of target `{target}` cannot be decided for a row of `{table}`: {reason}; correct the row in MySQL or change `where`"
    )]
    Filter {
        /// The MySQL table.
        table: TableName,
        /// The target table.
        target: String,
        /// The expression.
        expression: String,
        /// The reason.
        reason: String,
    },
    /// An empty text or blob as the whole partition key.
    #[error(
        "`{table}`.`{column}` is empty, which Cassandra refuses as the whole partition key; partition `{target}` by a second column as well"
    )]
    EmptyPartitionKey {
        /// The MySQL table.
        table: TableName,
        /// The column.
        column: String,
        /// The target table.
        target: String,
    },
    /// A key longer than Cassandra allows.
    #[error(
        "the {part} key for `{target}` has {bytes} bytes and Cassandra allows 65535; take long columns out of the key"
    )]
    KeyTooLong {
        /// The target table.
        target: String,
        /// `partition` or `clustering`.
        part: &'static str,
        /// The length of the serialised key.
        bytes: usize,
    },
    /// An update whose images have different primary keys.
    #[error("an update of `{table}` changes the primary key; it must come as a delete and a create")]
    PrimaryKeyChanged {
        /// The MySQL table.
        table: TableName,
    },
    /// A change without an image that its operation needs.
    #[error("a change of `{table}` lacks its {image} image; set binlog_row_image = FULL")]
    MissingImage {
        /// The MySQL table.
        table: TableName,
        /// `before` or `after`.
        image: &'static str,
    },
    /// A change or row of another table definition than the plan's.
    #[error("a row of `{table}` has another schema than the plan; adapt the plan to it first")]
    OtherSchema {
        /// The MySQL table.
        table: TableName,
    },
    /// Bytes that are not a key of the target.
    #[error("the bytes given are not a key of `{target}`; the table in Cassandra differs from the plan")]
    BadKey {
        /// The target table.
        target: String,
    },
    /// A target index that the plan does not have.
    #[error("`{table}` has no target number {target}; the plan has changed since the key was recorded")]
    NoSuchTarget {
        /// The MySQL table.
        table: TableName,
        /// The index.
        target: usize,
    },
}

impl RowError {
    /// A short name of the reason, for metrics and dead letters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidDate { .. } => "invalid-date",
            Self::Kind { .. } => "wrong-kind",
            Self::Range { .. } => "out-of-range",
            Self::Filter { .. } => "filter",
            Self::EmptyPartitionKey { .. } => "empty-partition-key",
            Self::KeyTooLong { .. } => "key-too-long",
            Self::PrimaryKeyChanged { .. } => "primary-key-changed",
            Self::MissingImage { .. } => "missing-image",
            Self::OtherSchema { .. } => "other-schema",
            Self::BadKey { .. } => "bad-key",
            Self::NoSuchTarget { .. } => "no-such-target",
        }
    }

    /// What the caller does next. The row is bad for its plan, and stays so.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::InvalidDate { .. }
            | Self::Kind { .. }
            | Self::Range { .. }
            | Self::Filter { .. }
            | Self::EmptyPartitionKey { .. }
            | Self::KeyTooLong { .. }
            | Self::PrimaryKeyChanged { .. }
            | Self::MissingImage { .. }
            | Self::OtherSchema { .. }
            | Self::BadKey { .. }
            | Self::NoSuchTarget { .. } => Disposition::Refuse,
        }
    }
}
