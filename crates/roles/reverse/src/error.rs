//! Why reverse ends.

use tandem_dead_letters::DeadLettersError;
use tandem_kafka::{ConsumeError, PublishError};
use tandem_model::{Disposition, Remedy};
use tandem_mysql::MysqlError;
use tandem_wire::WireError;

/// Why reverse ends. It can be started again: it continues where MySQL is.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each variant without a text of its own is the error of the part it names
pub enum ReverseError {
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    #[error(transparent)]
    Letters(#[from] DeadLettersError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A record cannot be read.
    #[error("record {topic}[{partition}]@{offset} cannot be read: {source}")]
    Record {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// Why.
        source: WireError,
    },
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl ReverseError {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Mysql(error) => error.retry(),
            Self::Consume(error) => error.retry(),
            Self::Letters(error) => error.retry(),
            Self::Publish(error) => error.retry(),
            Self::Record { .. } | Self::Wire(_) => Disposition::Stop,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Consume(error) => error.remedy(),
            Self::Letters(error) => error.remedy(),
            Self::Mysql(_) | Self::Publish(_) | Self::Record { .. } | Self::Wire(_) => None,
        }
    }
}
