//! What a check finds.

use std::fmt;

use serde::Serialize;
use tandem_model::TableName;

/// A problem that a check has found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CheckProblem {
    /// `mysql`, `kafka`, `schema_registry`, `cassandra` or `mapping`.
    pub(crate) part: &'static str,
    /// The setting or the table. Empty if the problem concerns the whole part.
    pub(crate) what: String,
    pub(crate) cause: String,
    /// The statement that fixes it, if the cause does not already say what to do.
    pub(crate) remedy: Option<String>,
    /// Whether it must be fixed before anything starts.
    pub(crate) fatal: bool,
    /// The MySQL table, if the problem concerns no other: the roles start without it once it has halted.
    #[serde(skip)]
    pub(crate) table: Option<TableName>,
}

impl CheckProblem {
    /// A problem that must be fixed first.
    pub(super) fn fatal(part: &'static str, what: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { part, what: what.into(), cause: problem.to_string(), remedy: None, fatal: true, table: None }
    }

    /// A problem of one MySQL table that must be fixed first, or the table halts.
    pub(super) fn of_table(part: &'static str, table: &TableName, problem: impl fmt::Display) -> Self {
        Self { table: Some(table.clone()), ..Self::fatal(part, format!("table {table}"), problem) }
    }
}

impl fmt::Display for CheckProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.part)?;
        if !self.what.is_empty() {
            write!(f, "{}: ", self.what)?;
        }
        f.write_str(&self.cause)?;
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  remedy: {remedy}")?;
        }
        Ok(())
    }
}
