//! Why an event of the binlog cannot be decoded.

use tandem_model::{Disposition, Remedy, TableName};

/// An event that cannot be decoded or is not supported. Reading the same event again yields the same error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// An event with invalid bytes.
    #[error("the binlog event {event} that ends at {at} cannot be read: {problem}")]
    Malformed {
        /// The event's type.
        event: String,
        /// `file:position`.
        at: String,
        /// What is invalid.
        problem: String,
    },
    /// An event that is unknown, or known but not supported.
    #[error("the binlog event {event} that ends at {at} cannot be carried: {problem}")]
    Unsupported {
        /// The event's type.
        event: String,
        /// `file:position`.
        at: String,
        /// The reason.
        problem: String,
        /// The remedy.
        remedy: Remedy,
    },
    /// The rows of a table cannot be decoded, or are not supported.
    #[error("rows of table {table} in the binlog event that ends at {at} cannot be carried: {problem}")]
    Table {
        /// The table.
        table: TableName,
        /// `file:position`.
        at: String,
        /// The reason. It names the column, if there is one.
        problem: String,
        /// The remedy.
        remedy: Remedy,
    },
}

impl DecodeError {
    /// What the caller does next. No event may be skipped, so each of these stops the reader.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Malformed { .. } | Self::Unsupported { .. } | Self::Table { .. } => Disposition::Stop,
        }
    }

    /// What an operator does about it.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Malformed { .. } => None,
            Self::Unsupported { remedy, .. } | Self::Table { remedy, .. } => Some(remedy.clone()),
        }
    }
}
