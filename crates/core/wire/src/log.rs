//! The log's records and names, before any Kafka client sees them.

mod change_topic;
mod partition;
mod record;
mod topics;

pub use change_topic::ChangeTopic;
pub use partition::partition_of;
pub use record::{EndOffsets, InRecord, OutRecord, VERSION_HEADER};
pub use topics::Topics;
