//! Reads the log, with or without a consumer group, and measures the groups' lag.

mod admission;
mod fetch;
mod group;
pub(crate) mod group_offsets;
mod lag;
mod progress;
pub(crate) mod read;
pub(crate) mod tail;

pub use admission::{Admission, Admitted, Decide, GroupMember, GroupMembers};
pub use group::{GroupConsumer, StartOffsets};
pub use group_offsets::GroupOffsets;
pub use lag::{PartitionLag, Unapplied, partition_lags, read_unapplied};
pub use read::{read_all, read_at, read_last};
pub use tail::TailReader;
