//! Reading what a topic holds now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::admin::client::list_offsets;
use crate::connect::client::{EndsElsewhere, LogContext, blocking, created, partition_count, ping};
use crate::connect::config::KafkaConfig;
use crate::error::ConsumeError;
use crate::message::from_kafka;
use tandem_wire::log::InRecord;

/// Without any progress for so long, reading is given up.
const STALL: Duration = Duration::from_secs(30);

/// How far from the end the last record is looked for at first. Behind the last record there are
/// markers and aborted records.
const FIRST_STEP: i64 = 16;

/// The last committed record of a partition, if it holds any. Aborted records do not count.
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

/// Every committed record that a topic holds now, in order within each partition. For compacted
/// topics: all of it is in memory.
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
        let owner = EndsElsewhere::new(consumer);
        let consumer = owner.get()?;
        ping(&consumer, &config, &consumer.context().health)?;
        work(&consumer, &topic)
    })
    .await
}

/// Reads `(partition, from, end)` of one topic: every committed record at `from ≤ offset < end`. A
/// partition has been read when a record at or behind its end came, when the client's position says
/// so (it passes the transactions' markers as well), or when the broker said that there is no more
/// (with one topic assigned, the partition's number alone says whose end it is).
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
                if moved.elapsed() > STALL {
                    return Err(ConsumeError::Request {
                        doing: format!("reading `{topic}`"),
                        cause: consumer.context().health.last().unwrap_or_else(|| "no answer".into()),
                        retriable: true,
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
            Some(Err(error)) if crate::error::may_pass(&error) => {}
            Some(Err(error)) => return Err(failed(error)),
        }
    }
    consumer.unassign().map_err(failed)?;
    Ok(records)
}
