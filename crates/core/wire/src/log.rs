//! The log's records and the names of its topics, independent of any Kafka client.

mod change_topic;
mod partition;
mod record;
mod table_of_key;
mod topics;

pub use change_topic::ChangeTopic;
pub use partition::partition_of;
pub use record::{EndOffsets, InRecord, OutRecord, VERSION_HEADER};
pub use table_of_key::TableOfKey;
pub use topics::Topics;
