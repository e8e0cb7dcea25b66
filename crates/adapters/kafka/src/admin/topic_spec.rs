//! The required topics of a log and their settings.

use std::time::Duration;

use tandem_model::TableName;
use tandem_wire::log::Topics;

use crate::connect::KafkaConfig;

/// A topic's cleanup policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// Keeps all records.
    KeepAll,
    /// Deletes records after this time.
    DeleteAfter(Duration),
    /// Keeps the newest record of each key, and all records younger than this time.
    CompactAfter(Duration),
    /// Keeps the newest record of each key, and little else: for keys that are written each second.
    NewestOnly,
}

/// A required topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// The number of partitions.
    pub partitions: i32,
    /// Its cleanup policy.
    pub cleanup: Cleanup,
}

/// Returns every topic of a log with these tables.
pub fn topic_specs(config: &KafkaConfig, tables: &[TableName]) -> Vec<TopicSpec> {
    let topics = &config.topics();
    let spec = |name, partitions, cleanup| TopicSpec { name, partitions, cleanup };
    let changes = Cleanup::DeleteAfter(config.retention);
    let mut all = vec![
        spec(topics.watermarks(), 1, Cleanup::CompactAfter(config.retention)),
        spec(topics.ddl(), 1, Cleanup::KeepAll),
        spec(topics.mismatches(), 1, Cleanup::KeepAll),
        // Retention must not delete a record before reconcile has read it: the group refuses to skip records.
        spec(topics.dual_write_failures(), 1, Cleanup::KeepAll),
        spec(topics.dead_letters(), 1, Cleanup::CompactAfter(config.retention)),
        spec(topics.reverse_dead_letters(), 1, Cleanup::CompactAfter(config.retention)),
        spec(topics.announcements(), 1, Cleanup::NewestOnly),
        spec(topics.control(), 1, Cleanup::CompactAfter(Duration::ZERO)),
        spec(topics.audit(), 1, Cleanup::KeepAll),
    ];
    if config.registry.is_none() {
        all.push(schemas_spec(topics));
    }
    all.extend(topics.of_tables(tables).into_iter().map(|name| spec(name, config.partitions, changes)));
    all
}

/// The topic of schemas.
pub(crate) fn schemas_spec(topics: &Topics) -> TopicSpec {
    TopicSpec { name: topics.schemas(), partitions: 1, cleanup: Cleanup::CompactAfter(Duration::ZERO) }
}
