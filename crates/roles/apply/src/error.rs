//! Why apply stops.

use std::sync::Arc;

use tandem_cassandra::WriteError;
use tandem_kafka::{ConsumeError, PublishError};
use tandem_mapping::{PlanError, RowError};
use tandem_model::{Disposition, Remedy, TableName};
use tandem_protocol::table_state::{Changes, TableFault};
use tandem_table_states::TableStatesError;
use tandem_watermarks::WatermarkReadError;
use tandem_wire::WireError;

/// Why apply stopped.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Reading Kafka failed.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// Writing to Cassandra failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The newest watermark cannot be read.
    #[error(transparent)]
    Watermark(#[from] WatermarkReadError),
    /// A record is not a change record.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The table's schema changed in a way that the mapping does not allow.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The mapping cannot convert a row, and the table does not allow dead letters.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A dead letter could not be published.
    #[error("publishing dead letters: {0}")]
    Publish(#[from] PublishError),
    /// A table has too many bad rows for single mistakes.
    #[error(
        "table {table} would have more than {limit} dead letters in a minute, the last because: {cause}. If the mapping is \
         wrong, correct it; if so many rows are bad, set `zero_dates` of the table or raise \
         apply.max_dead_letters_per_minute. Nothing is lost: the table resumes at the same record"
    )]
    TooManyDeadLetters {
        /// The table.
        table: TableName,
        /// The limit.
        limit: usize,
        /// The cause of the last dead letter.
        cause: String,
    },
    /// A record belongs to a table that capture publishes and that is not in this process's mapping.
    #[error(
        "capture publishes table {table}, which is not in this tandem.toml: start apply again with the file that has it"
    )]
    NotMapped {
        /// The table.
        table: TableName,
    },
    /// A table had halted when this process started, and could not be mapped then.
    #[error(
        "this apply has started without table {table}, which had halted and had problems: start it again once \
         `check` finds none, then resume the table"
    )]
    LeftOut {
        /// The table.
        table: TableName,
    },
    /// One of the errors above, which concerns a whole table. The table halts, and apply goes on with the others.
    #[error("{source}")]
    OfTable {
        /// The table.
        table: TableName,
        /// A short name of the reason.
        reason: &'static str,
        /// The error.
        source: Box<ApplyError>,
    },
    /// The states of tables cannot be read or written.
    #[error(transparent)]
    States(#[from] TableStatesError),
    /// One of the errors above, with the position of its record. The record is not skipped: its offset is not committed.
    #[error("record {topic}[{partition}]@{offset}: {source}")]
    At {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// The error.
        source: Box<ApplyError>,
    },
}

impl ApplyError {
    /// What the caller does next. Apply skips no record, so it ends on one that is refused.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Consume(error) => error.retry(),
            Self::Watermark(error) => error.retry(),
            Self::Write(error) => error.retry(),
            Self::Wire(error) => error.retry(),
            Self::Plan(error) => error.retry(),
            Self::Row(error) => error.retry(),
            Self::Publish(error) => error.retry(),
            Self::NotMapped { .. } | Self::LeftOut { .. } | Self::TooManyDeadLetters { .. } => {
                Disposition::Stop
            }
            Self::States(error) => error.retry(),
            Self::OfTable { source, .. } | Self::At { source, .. } => source.retry(),
        }
    }

    pub(crate) fn of_table(table: &TableName, reason: &'static str, source: Self) -> Self {
        Self::OfTable { table: table.clone(), reason, source: Box::new(source) }
    }

    /// The table that this process has no plan for, if that is the error.
    pub(crate) fn left_out(&self) -> Option<TableName> {
        match self.unplaced() {
            Self::LeftOut { table } => Some(table.clone()),
            _ => None,
        }
    }

    /// The table that halts because of this error, and its fault. `None` if the error does not concern one table.
    pub(crate) fn table_fault(&self) -> Option<(TableName, TableFault)> {
        let fault = |reason: &str| TableFault {
            reason: reason.to_owned(),
            cause: self.to_string(),
            by: "apply".to_owned(),
            changes: Changes::Wait,
        };
        match self.unplaced() {
            Self::OfTable { table, reason, .. } => Some((table.clone(), fault(reason))),
            Self::TooManyDeadLetters { table, .. } => Some((table.clone(), fault("too-many-dead-letters"))),
            _ => None,
        }
    }

    fn unplaced(&self) -> &Self {
        match self {
            Self::At { source, .. } => source.unplaced(),
            other => other,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Consume(error) => error.remedy(),
            Self::Watermark(error) => error.remedy(),
            Self::States(error) => error.remedy(),
            Self::OfTable { source, .. } | Self::At { source, .. } => source.remedy(),
            Self::Write(_)
            | Self::Wire(_)
            | Self::Plan(_)
            | Self::Row(_)
            | Self::Publish(_)
            | Self::TooManyDeadLetters { .. }
            | Self::LeftOut { .. }
            | Self::NotMapped { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_with_its_position_says_the_same_as_without() {
        let at =
            |source| ApplyError::At { topic: "t".into(), partition: 0, offset: 1, source: Box::new(source) };
        let cases: [(ApplyError, Disposition); 3] = [
            (ConsumeError::Closed.into(), Disposition::Retry),
            (ApplyError::NotMapped { table: TableName::new("shop", "orders") }, Disposition::Stop),
            (RowError::BadKey { target: "t".into() }.into(), Disposition::Refuse),
        ];
        for (error, expected) in cases {
            assert_eq!(error.retry(), expected, "{error:?}");
            assert_eq!(at(error).retry(), expected);
        }
    }
}
