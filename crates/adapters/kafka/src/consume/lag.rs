//! The lag of a consumer group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use tandem_wire::log::InRecord;

use crate::admin::client::Admin;
use crate::connect::config::KafkaConfig;
use crate::consume::group_offsets::GroupOffsets;
use crate::consume::tail::TailReader;
use crate::error::ConsumeError;

/// Limit for reading the oldest unapplied records.
const OLDEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A partition's first offset, its committed offset and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLag {
    /// The first offset that the log still holds.
    pub first: i64,
    /// The offset that the group has committed; `None` if it has committed none.
    pub committed: Option<i64>,
    /// The offset after the last record.
    pub end: i64,
}

impl PartitionLag {
    /// The offset below which every record is applied.
    pub fn applied(&self) -> i64 {
        self.committed.unwrap_or(self.first).max(self.first)
    }

    /// The number of unapplied offsets, transaction markers included.
    pub fn records(&self) -> i64 {
        (self.end - self.applied()).max(0)
    }
}

/// Returns the lags of each topic's partitions, in order. There are none for a topic that does not exist. It takes four
/// requests, however many topics there are.
///
/// # Errors
/// A request fails.
pub async fn partition_lags(
    admin: &Admin,
    group: &GroupOffsets,
    topics: &[String],
) -> Result<Vec<Vec<PartitionLag>>, ConsumeError> {
    let counts = admin.partitions_of(topics).await?;
    let there: Vec<(String, i32)> =
        topics.iter().cloned().zip(counts.iter().copied()).filter(|(_, count)| *count > 0).collect();
    // Committed offsets first. In the other order, a commit between the two requests would exceed the end.
    let committed = group.committed_in(&there).await?;
    let partitions: Arc<Vec<(String, i32)>> = Arc::new(
        there
            .iter()
            .flat_map(|(topic, count)| (0..*count).map(|partition| (topic.clone(), partition)))
            .collect(),
    );
    let first = admin.offsets_of(&partitions, Offset::Beginning).await?;
    let end = admin.offsets_of(&partitions, Offset::End).await?;
    let mut lags = partitions.iter().zip(first.into_iter().zip(end)).map(|(partition, (first, end))| {
        PartitionLag { first, committed: committed.get(partition).copied().flatten(), end }
    });
    Ok(counts.iter().map(|&count| lags.by_ref().take(count as usize).collect()).collect())
}

/// What [`read_unapplied`] has seen of the ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unapplied {
    /// The timestamp of the oldest record, in milliseconds since the epoch. `None` if the ranges contain only
    /// transaction markers.
    pub oldest_ms: Option<i64>,
    /// Whether every record of the ranges was seen.
    pub complete: bool,
}

/// Reads these ranges of topics and partitions: at least until the first record of each is known, and then for
/// `budget` at most, from the beginning of the call. `see` gets each record.
///
/// # Errors
/// The first record of a range cannot be read within 5 s. The call does not return a later record instead, which would
/// understate the lag.
pub async fn read_unapplied(
    kafka: &KafkaConfig,
    places: Vec<(String, i32, std::ops::Range<i64>)>,
    budget: Duration,
    mut see: impl FnMut(&InRecord),
) -> Result<Unapplied, ConsumeError> {
    if places.is_empty() {
        return Ok(Unapplied { oldest_ms: None, complete: true });
    }
    let began = Instant::now();
    // The ranges that are not read to their ends, and those of them without a record so far.
    let mut left: BTreeMap<(String, i32), i64> =
        places.iter().map(|(t, p, offsets)| ((t.clone(), *p), offsets.end)).collect();
    let mut unseen: BTreeSet<(String, i32)> = left.keys().cloned().collect();
    let starts = places.into_iter().map(|(t, p, offsets)| (t, p, offsets.start)).collect();
    let mut reader = TailReader::start(kafka, starts).await?;
    let mut oldest_ms: Option<i64> = None;
    while !unseen.is_empty() || !left.is_empty() && began.elapsed() < budget {
        if !unseen.is_empty() && began.elapsed() > OLDEST_TIMEOUT {
            return Err(ConsumeError::Unreachable {
                brokers: kafka.brokers.clone(),
                cause: format!(
                    "the oldest records that are not applied were not read within {OLDEST_TIMEOUT:?}"
                ),
            });
        }
        for record in reader.next_batch(10_000, Duration::from_millis(300)).await? {
            let place = (record.topic.to_string(), record.partition);
            if unseen.remove(&place) {
                oldest_ms = oldest_ms.into_iter().chain(record.timestamp_ms).min();
            }
            if left.get(&place).is_some_and(|end| record.offset < *end) {
                see(&record);
            }
        }
        // The position passes transaction markers too.
        left.retain(|(topic, partition), end| {
            reader.consumed_to(topic, *partition).is_none_or(|at| at < *end)
        });
        unseen.retain(|place| left.contains_key(place));
    }
    Ok(Unapplied { oldest_ms, complete: left.is_empty() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unapplied_partition_lags_by_all_it_holds() {
        let at = |first, committed, end| PartitionLag { first, committed, end }.records();
        assert_eq!(at(0, None, 7), 7);
        assert_eq!(at(5, None, 7), 2);
        assert_eq!(at(0, Some(4), 7), 3);
        assert_eq!(at(5, Some(4), 7), 2);
        assert_eq!(at(0, Some(9), 7), 0);
    }
}
