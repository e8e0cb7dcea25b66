//! What can be wrong with a filter.

use tandem_model::ColumnType;

use crate::print::quoted_names;

/// What is wrong with a filter. CEL's own grammar and types: its language definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterProblem {
    /// It is no expression.
    #[error("this is no CEL expression: {message}")]
    Syntax {
        /// What the parser says.
        message: String,
    },
    /// A name that is not one of the MySQL table's columns.
    #[error("MySQL's table has no column `{column}`; it has {}", quoted_names(.columns))]
    UnknownColumn {
        /// The name.
        column: String,
        /// The columns that there are.
        columns: Vec<String>,
    },
    /// A column whose values have no exact form in CEL.
    #[error("column `{column}` is {ty}, which has no exact form in CEL; filter by other columns")]
    NoForm {
        /// The column.
        column: String,
        /// Its type.
        ty: ColumnType,
    },
    /// An operand of a type that its operator does not take.
    #[error("`{operator}` must be given {wanted}, and this is {found}")]
    WrongType {
        /// The operator or function.
        operator: String,
        /// The types that it takes.
        wanted: String,
        /// What was found, and its type.
        found: String,
    },
    /// Two operands of different types.
    #[error("`{operator}` meets {left} and {right}; write both in one type")]
    Mixed {
        /// The operator.
        operator: String,
        /// What is left of it, and its type.
        left: String,
        /// What is right of it, and its type.
        right: String,
    },
    /// An operand that may be NULL where its operator has no answer to that.
    #[error(
        "`{operator}` has no answer for NULL, and this is {found}, which may be NULL; guard it with `… != null && …` or `… == null || …`"
    )]
    MayBeNull {
        /// The operator or function.
        operator: String,
        /// What was found, and its type.
        found: String,
    },
    /// A text that is no time.
    #[error("this is no time; write it as RFC 3339 does, such as timestamp('2024-05-31T00:00:00Z')")]
    BadTimestamp,
    /// Something of CEL that filters do not have.
    #[error(
        "{what} is not for filters, which have && || ! ? : == != < <= > >= in, `%` by a number, startsWith, endsWith, contains, size and timestamp"
    )]
    Unsupported {
        /// What it is.
        what: String,
    },
}
