//! Why apply stops.

use std::sync::Arc;

use tandem_cassandra::WriteError;
use tandem_kafka::ConsumeError;
use tandem_mapping::{PlanError, RowError};
use tandem_model::TableName;
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
    /// A record is not a change record.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The table's schema changed in a way that the mapping does not allow.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The mapping cannot carry a row.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A record belongs to a table that is not in the mapping.
    #[error("table {table} is not in tandem.toml")]
    NotMapped {
        /// The table.
        table: TableName,
    },
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
