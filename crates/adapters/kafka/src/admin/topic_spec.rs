//! The topics of a log as they should be.

use std::time::Duration;

use tandem_model::TableName;
use tandem_wire::log::Topics;

use crate::connect::KafkaConfig;

/// What a topic does with old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// Keeps them all.
    KeepAll,
    /// Deletes them after that time.
    DeleteAfter(Duration),
    /// Keeps the newest of each key, and all those younger than that time.
    CompactAfter(Duration),
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// Its clean-up.
    pub cleanup: Cleanup,
}

/// Every topic of a log that carries these tables.
pub fn topic_specs(config: &KafkaConfig, tables: &[TableName]) -> Vec<TopicSpec> {
    let topics = &Topics::new(&config.prefix);
    let spec = |name, partitions, cleanup| TopicSpec { name, partitions, cleanup };
    let changes = Cleanup::DeleteAfter(config.retention);
    let mut all = vec![
        spec(topics.watermarks(), 1, Cleanup::CompactAfter(config.retention)),
        spec(topics.ddl(), 1, Cleanup::KeepAll),
        spec(topics.mismatches(), 1, Cleanup::KeepAll),
        // One that reconcile has not come to must not go: the group refuses to skip it.
        spec(topics.dual_write_failures(), 1, Cleanup::KeepAll),
        spec(topics.dead_letters(), config.partitions, Cleanup::KeepAll),
        spec(topics.control(), 1, Cleanup::CompactAfter(Duration::ZERO)),
        spec(topics.audit(), 1, Cleanup::KeepAll),
    ];
    if config.registry.is_none() {
        all.push(schemas_spec(topics));
    }
    for table in tables {
        all.push(spec(topics.changes(table), config.partitions, changes));
        all.push(spec(topics.backfill(table), config.partitions, changes));
    }
    all
}

/// The topic of schemas.
pub(crate) fn schemas_spec(topics: &Topics) -> TopicSpec {
    TopicSpec { name: topics.schemas(), partitions: 1, cleanup: Cleanup::CompactAfter(Duration::ZERO) }
}
