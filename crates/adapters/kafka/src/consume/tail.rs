//! Reading chosen partitions from chosen offsets on.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::connect::client::{EndsElsewhere, LogContext, blocking, created, ping};
use crate::connect::config::KafkaConfig;
use crate::consume::fetch::{self, Shared};
use crate::error::ConsumeError;
use tandem_wire::log::InRecord;

/// Reads partitions that the caller chose, from offsets that it chose, committed records only.
/// Belongs to no group; it can keep its place under a group's name, though.
pub struct TailReader {
    shared: Arc<Shared>,
    consumer: EndsElsewhere<LogContext>,
}

impl TailReader {
    /// Starts at these topics, partitions and offsets. An offset that the log no longer holds is an
    /// error of the first batch. No broker's answer within some seconds is
    /// [`ConsumeError::Unreachable`].
    pub async fn start(config: &KafkaConfig, from: Vec<(String, i32, i64)>) -> Result<Self, ConsumeError> {
        Self::start_as(config, &format!("{}.reader", config.prefix), from).await
    }

    /// The same, with the name of a group under which [`Self::commit`] keeps its place. The group
    /// must have no members.
    pub async fn start_as(
        config: &KafkaConfig,
        group: &str,
        from: Vec<(String, i32, i64)>,
    ) -> Result<Self, ConsumeError> {
        let context = LogContext::new(config);
        let health = Arc::clone(&context.health);
        let shared = Shared::new(Arc::clone(&health));
        let consumer: BaseConsumer<LogContext> =
            created(config.consumer(group, &[]).create_with_context(context))?;
        let consumer = EndsElsewhere::new(consumer);
        let (config, assigned, state) = (config.clone(), consumer.get()?, Arc::clone(&shared));
        blocking(move || {
            ping(&assigned, &config, &health)?;
            let list = offsets(&from)?;
            let mut state = state.lock();
            for (topic, partition, offset) in &from {
                state.assign(topic, *partition, *offset, Some(*offset));
            }
            assigned.assign(&list).map_err(|e| ConsumeError::request("assigning partitions", &e))
        })
        .await?;
        let (polled, owned) = (Arc::clone(&shared), consumer.get()?);
        std::thread::Builder::new()
            .name("kafka-tail".into())
            .spawn(move || fetch::run(&owned, &polled, false))
            .map_err(|e| ConsumeError::Config(format!("no thread could be started: {e}")))?;
        Ok(Self { shared, consumer })
    }

    /// Waits up to `wait` for a record, then takes what is there, at most `max_records`, without
    /// waiting further. Within a partition records come in the order of the log. Dropping the future
    /// loses nothing.
    pub async fn next_batch(
        &mut self,
        max_records: usize,
        wait: Duration,
    ) -> Result<Vec<InRecord>, ConsumeError> {
        let records = self.shared.next_batch(max_records, wait).await?;
        let mut state = self.shared.lock();
        for record in &records {
            if let Some(progress) = state.progress(&record.topic, record.partition) {
                progress.done(record.offset);
            }
        }
        Ok(records)
    }

    /// The offset below which [`Self::next_batch`] has handed out every committed record of a
    /// partition. At the end of the log it is the end, the transactions' markers included. None for
    /// a partition that is not read.
    pub fn consumed_to(&self, topic: &str, partition: i32) -> Option<i64> {
        self.shared.lock().progress(topic, partition).map(|p| p.safe())
    }

    /// Commits offsets (of the next record to read) under the group's name, and waits for Kafka's
    /// answer.
    pub async fn commit(&self, next: Vec<(String, i32, i64)>) -> Result<(), ConsumeError> {
        let consumer = self.consumer.get()?;
        blocking(move || {
            consumer
                .commit(&offsets(&next)?, CommitMode::Sync)
                .map_err(|e| ConsumeError::request("committing offsets", &e))
        })
        .await
    }

    /// The last thing that went wrong with Kafka, until something goes right.
    pub fn last_error(&self) -> Option<String> {
        self.shared.health.last()
    }
}

impl Drop for TailReader {
    /// The polling thread ends by itself.
    fn drop(&mut self) {
        self.shared.stop();
    }
}

fn offsets(of: &[(String, i32, i64)]) -> Result<TopicPartitionList, ConsumeError> {
    let mut list = TopicPartitionList::with_capacity(of.len());
    for (topic, partition, offset) in of {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .map_err(|e| ConsumeError::request("naming partitions", &e))?;
    }
    Ok(list)
}
