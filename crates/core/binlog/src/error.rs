//! Why an event of the binlog cannot be decoded.

use tandem_model::TableName;

/// An event that cannot be decoded or carried. Reading the same event again gives the same error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// An event whose bytes make no sense.
    #[error("the binlog event {event} that ends at {at} cannot be read: {problem}")]
    Malformed {
        /// The event's type.
        event: String,
        /// `file:position`.
        at: String,
        /// What is wrong.
        problem: String,
    },
    /// An event that is understood but cannot be carried, or is not known.
    #[error("the binlog event {event} that ends at {at} cannot be carried: {problem}; {remedy}")]
    Unsupported {
        /// The event's type.
        event: String,
        /// `file:position`.
        at: String,
        /// Why.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A table's rows cannot be carried.
    #[error(
        "rows of table {table} in the binlog event that ends at {at} cannot be carried: {problem}; {remedy}"
    )]
    Table {
        /// The table.
        table: TableName,
        /// `file:position`.
        at: String,
        /// Why, naming the column where there is one.
        problem: String,
        /// What to do.
        remedy: String,
    },
}
