//! Reads the current contents of a topic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::admin::client::list_offsets;
use crate::connect::client::{BackgroundClose, LogContext, blocking, created, partition_count, ping};
use crate::connect::config::KafkaConfig;
use crate::error::{ConsumeError, disposition};
use crate::message::from_kafka;
use tandem_model::Disposition;
use tandem_wire::log::InRecord;

/// Limit without progress.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The size of the first range, counted back from the end, that is searched for the last record. Transaction
/// markers and aborted records may follow that record.
const FIRST_STEP: i64 = 16;

/// Reads the last committed record of a partition, if there is one. Ignores aborted records.
///
/// # Errors
/// Kafka cannot be reached, the topic does not exist, or reading makes no progress for 30 s.
pub async fn read_last(
    config: &KafkaConfig,
    topic: &str,
    partition: i32,
) -> Result<Option<InRecord>, ConsumeError> {
    with_consumer(config, topic, move |consumer, topic| {
        let of = [(topic.to_string(), partition)];
        let low = list_offsets(consumer, &of, Offset::Beginning)?[0];
        let end = list_offsets(consumer, &of, Offset::End)?[0];
        let mut step = FIRST_STEP;
        loop {
            let from = (end - step).max(low);
            let mut records = read_range(consumer, topic, &[(partition, from, end)])?;
            if let Some(last) = records.pop() {
                return Ok(Some(last));
            }
            if from == low {
                return Ok(None);
            }
            step = step.saturating_mul(8);
        }
    })
    .await
}

/// Reads the committed record at an offset of a partition. Returns `None` if there is none, for example because
/// compaction has removed it.
///
/// # Errors
/// As for [`read_last`].
pub async fn read_at(
    config: &KafkaConfig,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<Option<InRecord>, ConsumeError> {
    with_consumer(config, topic, move |consumer, topic| {
        let low = list_offsets(consumer, &[(topic.to_string(), partition)], Offset::Beginning)?[0];
        if offset < low {
            return Ok(None);
        }
        Ok(read_range(consumer, topic, &[(partition, offset, offset + 1)])?.pop())
    })
    .await
}

/// Reads every committed record that a topic holds now, in order within each partition. The result is in
/// memory, so this is meant for compacted topics.
///
/// # Errors
/// As for [`read_last`].
pub async fn read_all(config: &KafkaConfig, topic: &str) -> Result<Vec<InRecord>, ConsumeError> {
    with_consumer(config, topic, |consumer, topic| {
        let count = partition_count(consumer, topic)?;
        let of: Vec<(String, i32)> = (0..count).map(|p| (topic.to_string(), p)).collect();
        let lows = list_offsets(consumer, &of, Offset::Beginning)?;
        let ends = list_offsets(consumer, &of, Offset::End)?;
        let ranges: Vec<(i32, i64, i64)> =
            (0..count).zip(lows).zip(ends).map(|((p, low), end)| (p, low, end)).collect();
        read_range(consumer, topic, &ranges)
    })
    .await
}

async fn with_consumer<T: Send + 'static>(
    config: &KafkaConfig,
    topic: &str,
    work: impl FnOnce(&Arc<BaseConsumer<LogContext>>, &Arc<str>) -> Result<T, ConsumeError> + Send + 'static,
) -> Result<T, ConsumeError> {
    let properties =
        config.consumer(&format!("{}.reader", config.prefix), &[("enable.partition.eof", "true")]);
    let (config, topic) = (config.clone(), Arc::from(topic));
    blocking(move || {
        let consumer: BaseConsumer<LogContext> =
            created(properties.create_with_context(LogContext::new(&config)))?;
        let owner = BackgroundClose::new(consumer);
        let consumer = owner.get()?;
        ping(&consumer, &config, &consumer.context().health)?;
        work(&consumer, &topic)
    })
    .await
}

/// Reads ranges `(partition, from, end)` of one topic: every committed record at `from ≤ offset < end`.
///
/// A partition is complete on the first of three events:
///
/// - A record at or beyond its end arrives.
/// - The client's position reaches the end. The position also passes transaction markers.
/// - The broker reports the end of the partition. Only one topic is assigned, so the partition number alone
///   identifies it.
fn read_range(
    consumer: &BaseConsumer<LogContext>,
    topic: &Arc<str>,
    ranges: &[(i32, i64, i64)],
) -> Result<Vec<InRecord>, ConsumeError> {
    let mut left: Vec<(i32, i64, i64)> = ranges.iter().filter(|r| r.1 < r.2).copied().collect();
    let mut records = Vec::new();
    if left.is_empty() {
        return Ok(records);
    }
    let failed = |e: KafkaError| ConsumeError::request(format!("reading `{topic}`"), &e);
    let mut list = TopicPartitionList::new();
    for (partition, from, _) in &left {
        list.add_partition_offset(topic, *partition, Offset::Offset(*from)).map_err(failed)?;
    }
    consumer.assign(&list).map_err(failed)?;
    let mut moved = Instant::now();
    while !left.is_empty() {
        match consumer.poll(Duration::from_millis(10)) {
            None => {
                let positions = consumer.position().map_err(failed)?;
                left.retain(|(partition, _, end)| {
                    let at = positions.find_partition(topic, *partition).map(|e| e.offset());
                    !matches!(at, Some(Offset::Offset(at)) if at >= *end)
                });
                if moved.elapsed() > STALL_TIMEOUT {
                    return Err(ConsumeError::Request {
                        doing: format!("reading `{topic}`"),
                        cause: consumer.context().health.last().unwrap_or_else(|| "no answer".into()),
                        retry: Disposition::Retry,
                    });
                }
            }
            Some(Ok(message)) => {
                moved = Instant::now();
                let (partition, offset) = (message.partition(), message.offset());
                let end = ranges.iter().find(|r| r.0 == partition).map_or(i64::MIN, |r| r.2);
                if offset < end {
                    records.push(from_kafka(&message, Arc::clone(topic))?);
                }
                if offset + 1 >= end {
                    left.retain(|r| r.0 != partition);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => left.retain(|r| r.0 != partition),
            Some(Err(error)) => match disposition(&error) {
                Disposition::Retry => {}
                Disposition::Stop | Disposition::Refuse => return Err(failed(error)),
            },
        }
    }
    consumer.unassign().map_err(failed)?;
    Ok(records)
}
