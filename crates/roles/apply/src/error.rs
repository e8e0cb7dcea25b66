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
    /// Reading Kafka.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// Writing Cassandra.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A record is no change record.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The table's schema changed in a way that the mapping does not allow.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A row that the mapping cannot carry.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A record of a table that is not in the mapping.
    #[error("table {table} is not in tandem.toml")]
    NotMapped {
        /// The table.
        table: TableName,
    },
    /// Where one of the above happened. The record was not skipped: its offset is not committed.
    #[error("record {topic}[{partition}]@{offset}: {source}")]
    At {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// What is wrong with it.
        source: Box<ApplyError>,
    },
}
