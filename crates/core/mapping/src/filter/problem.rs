//! The problems that the check of a filter finds.

use tandem_model::ColumnType;

use crate::print::quoted_names;

/// A problem with a filter. CEL's grammar and types are in its language definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterProblem {
    /// The text is not a CEL expression.
    #[error("this is not a CEL expression: {message}")]
    Syntax {
        /// The parser's message.
        message: String,
    },
    /// A name that is not one of the MySQL table's columns.
    #[error("MySQL's table has no column `{column}`; it has {}", quoted_names(.columns))]
    UnknownColumn {
        /// The name.
        column: String,
        /// The existing columns.
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
    /// An operand of a type that its operator does not accept.
    #[error("`{operator}` must be given {wanted}, and this is {found}")]
    WrongType {
        /// The operator or function.
        operator: String,
        /// The types that it accepts.
        wanted: String,
        /// The operand and its type.
        found: String,
    },
    /// Two operands of different types.
    #[error("`{operator}` has operands of two types, {left} and {right}; use one type for both")]
    Mixed {
        /// The operator.
        operator: String,
        /// The left operand and its type.
        left: String,
        /// The right operand and its type.
        right: String,
    },
    /// An operand that may be NULL, of an operator that is not defined for NULL.
    #[error(
        "`{operator}` is not defined for NULL, and this is {found}, which may be NULL; guard it with `… != null && …` or `… == null || …`"
    )]
    MayBeNull {
        /// The operator or function.
        operator: String,
        /// The operand and its type.
        found: String,
    },
    /// A text that is not a time.
    #[error("this is not a time; write it as in RFC 3339, such as timestamp('2024-05-31T00:00:00Z')")]
    BadTimestamp,
    /// A feature of CEL that filters do not support.
    #[error(
        "filters do not support {what}; they support && || ! ? : == != < <= > >= in, `%` by a number, startsWith, endsWith, contains, size and timestamp"
    )]
    Unsupported {
        /// The feature.
        what: String,
    },
}
