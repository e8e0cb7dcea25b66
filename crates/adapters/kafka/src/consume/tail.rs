//! Reads given partitions from given offsets.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::connect::client::{BackgroundClose, LogContext, blocking, created, ping};
use crate::connect::config::KafkaConfig;
use crate::consume::fetch::{self, Shared};
use crate::error::ConsumeError;
use tandem_wire::log::InRecord;

/// Reads the committed records of given partitions from given offsets. Joins no group, but can commit its
/// offsets under a group's name.
pub struct TailReader {
    shared: Arc<Shared>,
    consumer: BackgroundClose<LogContext>,
}

impl TailReader {
    /// Starts at these topics, partitions and offsets. If the log no longer holds an offset, the first batch
    /// returns the error.
    ///
    /// # Errors
    /// [`ConsumeError::Unreachable`] if no broker answers within 8 s; otherwise the configuration is wrong.
    pub async fn start(config: &KafkaConfig, from: Vec<(String, i32, i64)>) -> Result<Self, ConsumeError> {
        Self::start_as(config, &format!("{}.reader", config.prefix), from).await
    }

    /// The same, with the name of the group for which [`Self::commit`] commits. The group must have no
    /// members.
    ///
    /// # Errors
    /// As for [`Self::start`].
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
        let consumer = BackgroundClose::new(consumer);
        let topic = from.first().map(|(topic, ..)| topic.clone());
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
            .spawn(move || fetch::run(&owned, &polled, false, topic.as_deref()))
            .map_err(|e| ConsumeError::Config(format!("no thread could be started: {e}")))?;
        Ok(Self { shared, consumer })
    }

    /// Waits up to `wait` for a first record, then returns the available records, at most `max_records`.
    /// Records of a partition are in log order. Dropping the future loses no record.
    ///
    /// # Errors
    /// [`ConsumeError::OffsetOutOfRange`] if the log no longer holds the next record;
    /// [`ConsumeError::Closed`] after any other error was returned; otherwise reading failed.
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

    /// Returns the offset below which [`Self::next_batch`] has returned every committed record of a
    /// partition. At the end of the log it is the end, transaction markers included. Returns `None` for a
    /// partition that this reader does not read.
    pub fn consumed_to(&self, topic: &str, partition: i32) -> Option<i64> {
        self.shared.lock().progress(topic, partition).map(|p| p.safe())
    }

    /// Commits the offsets of the next records to read, under the group's name. Waits for Kafka's answer.
    ///
    /// # Errors
    /// The commit fails.
    pub async fn commit(&self, next: Vec<(String, i32, i64)>) -> Result<(), ConsumeError> {
        let consumer = self.consumer.get()?;
        blocking(move || {
            consumer
                .commit(&offsets(&next)?, CommitMode::Sync)
                .map_err(|e| ConsumeError::request("committing offsets", &e))
        })
        .await
    }

    /// The last problem with Kafka, until the next success.
    pub fn last_error(&self) -> Option<String> {
        self.shared.health.last()
    }
}

impl Drop for TailReader {
    /// Stops the polling thread without waiting for it.
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
