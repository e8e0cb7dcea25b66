//! The lag of a consumer group.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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

/// Returns the lag of each partition of a topic, in order. The result is empty if the topic does not exist.
///
/// # Errors
/// A request fails.
pub async fn partition_lags(
    admin: &Admin,
    group: &GroupOffsets,
    topic: &str,
) -> Result<Vec<PartitionLag>, ConsumeError> {
    let count = match admin.partitions(topic).await {
        Ok(count) => count,
        Err(ConsumeError::NoTopic(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    // Committed offsets first. In the other order, a commit between the two requests would exceed the end.
    let committed = group.committed(&[topic.to_owned()]).await?;
    let first = admin.first_offsets(topic, count).await?;
    let end = admin.end_offsets(topic, count).await?;
    Ok((0..count)
        .zip(first.into_iter().zip(end))
        .map(|(number, (first, end))| {
            let committed = committed.get(&(topic.to_owned(), number)).copied().flatten();
            PartitionLag { first, committed, end }
        })
        .collect())
}

/// Returns the timestamp of the oldest record in these ranges of topics and partitions, in milliseconds since
/// the epoch. Returns `None` if the ranges contain only transaction markers.
///
/// # Errors
/// A range cannot be read within 5 s. The call does not return a later record instead, which would understate
/// the lag.
pub async fn oldest_record(
    kafka: &KafkaConfig,
    places: Vec<(String, i32, std::ops::Range<i64>)>,
) -> Result<Option<i64>, ConsumeError> {
    if places.is_empty() {
        return Ok(None);
    }
    let began = Instant::now();
    let mut missing: BTreeMap<(String, i32), i64> =
        places.iter().map(|(t, p, offsets)| ((t.clone(), *p), offsets.end)).collect();
    let starts = places.into_iter().map(|(t, p, offsets)| (t, p, offsets.start)).collect();
    let mut reader = TailReader::start(kafka, starts).await?;
    let mut oldest: Option<i64> = None;
    while !missing.is_empty() {
        if began.elapsed() > OLDEST_TIMEOUT {
            return Err(ConsumeError::Unreachable {
                brokers: kafka.brokers.clone(),
                cause: format!(
                    "the oldest records that are not applied were not read within {OLDEST_TIMEOUT:?}"
                ),
            });
        }
        for record in reader.next_batch(10_000, Duration::from_millis(300)).await? {
            if missing.remove(&(record.topic.to_string(), record.partition)).is_some() {
                oldest = oldest.into_iter().chain(record.timestamp_ms).min();
            }
        }
        // A range that is read to its end without a record contains only markers.
        missing.retain(|(topic, partition), end| {
            reader.consumed_to(topic, *partition).is_none_or(|at| at < *end)
        });
    }
    Ok(oldest)
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
