//! How far a consumer group is behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::admin::client::Admin;
use crate::connect::config::KafkaConfig;
use crate::consume::group_offsets::GroupOffsets;
use crate::consume::tail::TailReader;
use crate::error::ConsumeError;

/// How long the oldest record that is not applied is looked for.
const OLDEST: Duration = Duration::from_secs(5);

/// One partition: where it begins, what the group has committed, where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLag {
    /// The first offset that the log still holds.
    pub first: i64,
    /// The offset of the next record that the group will read; none before the group has come by.
    pub committed: Option<i64>,
    /// The offset after the last record.
    pub end: i64,
}

impl PartitionLag {
    /// The offset up to which everything is done.
    pub fn applied(&self) -> i64 {
        self.committed.unwrap_or(self.first).max(self.first)
    }

    /// Records that are not done, markers of transactions included.
    pub fn records(&self) -> i64 {
        (self.end - self.applied()).max(0)
    }
}

/// The partitions of a topic, in their order. None for a topic that is not there.
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
    // Committed before the ends: in the other order, what is applied in between would look like less
    // than nothing to do.
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

/// The earliest time, in milliseconds since the epoch, of the first records at these topics and
/// partitions, each from an offset up to an end. None where there are markers only.
///
/// What is not read in time is an error: a later record would look like less lag than there is.
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
        if began.elapsed() > OLDEST {
            return Err(ConsumeError::Unreachable {
                brokers: kafka.brokers.clone(),
                cause: format!("the oldest records that are not applied were not read within {OLDEST:?}"),
            });
        }
        for record in reader.next_batch(10_000, Duration::from_millis(300)).await? {
            if missing.remove(&(record.topic.to_string(), record.partition)).is_some() {
                oldest = oldest.into_iter().chain(record.timestamp_ms).min();
            }
        }
        // What is read to its end without any record is markers only.
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
    fn a_partition_that_nobody_applied_lags_by_all_it_holds() {
        let at = |first, committed, end| PartitionLag { first, committed, end }.records();
        assert_eq!(at(0, None, 7), 7);
        assert_eq!(at(5, None, 7), 2);
        assert_eq!(at(0, Some(4), 7), 3);
        assert_eq!(at(5, Some(4), 7), 2);
        assert_eq!(at(0, Some(9), 7), 0);
    }
}
