//! Reads a consumer group's committed offsets without joining it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::connect::client::{LogContext, REQUEST, partition_count, with_retries};
use crate::connect::config::KafkaConfig;
use crate::connect::requests::RequestClient;
use crate::error::ConsumeError;

/// Reads the committed offsets of a group without joining it.
pub struct GroupOffsets {
    requests: RequestClient,
    /// The number of partitions of each topic. Read once.
    partitions: Arc<Mutex<HashMap<String, i32>>>,
}

impl GroupOffsets {
    /// Reads the offsets of `group`. Connects at the first request.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub fn new(config: &KafkaConfig, group: &str) -> Result<Self, ConsumeError> {
        let requests = RequestClient::new(config.consumer(group, &[]), config)?;
        Ok(Self { requests, partitions: Arc::default() })
    }

    /// Returns the group's committed offset for every partition of these topics; `None` where there is none.
    /// The offsets are the broker's current ones. If an open transaction is committing an offset, the call
    /// waits for the transaction's end.
    ///
    /// # Errors
    /// A topic does not exist, or the request fails.
    pub async fn committed(
        &self,
        topics: &[String],
    ) -> Result<HashMap<(String, i32), Option<i64>>, ConsumeError> {
        let (topics, partitions) = (topics.to_vec(), Arc::clone(&self.partitions));
        let count = move |consumer: &Arc<BaseConsumer<LogContext>>| {
            topics
                .into_iter()
                .map(|topic| {
                    let known = lock(&partitions).get(&topic).copied();
                    let count = if let Some(count) = known {
                        count
                    } else {
                        let count = partition_count(consumer, &topic)?;
                        lock(&partitions).insert(topic.clone(), count);
                        count
                    };
                    Ok((topic, count))
                })
                .collect::<Result<Vec<_>, ConsumeError>>()
        };
        let counted = self.requests.ask(count).await?;
        self.committed_in(&counted).await
    }

    /// The same, for topics with these numbers of partitions.
    pub(crate) async fn committed_in(
        &self,
        topics: &[(String, i32)],
    ) -> Result<HashMap<(String, i32), Option<i64>>, ConsumeError> {
        let topics = topics.to_vec();
        let ask = move |consumer: &Arc<BaseConsumer<LogContext>>| {
            let failed = |e| ConsumeError::request("asking for a group's committed offsets", &e);
            // Serves the client's log. Returns no record, because no partition is assigned.
            let _ = consumer.poll(Duration::ZERO);
            let mut list = TopicPartitionList::new();
            for (topic, count) in &topics {
                for partition in 0..*count {
                    list.add_partition(topic, partition);
                }
            }
            if list.count() == 0 {
                return Ok(HashMap::new());
            }
            with_retries(|| {
                let answer = consumer.committed_offsets(list.clone(), REQUEST).map_err(failed)?;
                let mut committed = HashMap::with_capacity(answer.count());
                for element in answer.elements() {
                    element.error().map_err(failed)?;
                    let offset = match element.offset() {
                        Offset::Offset(offset) => Some(offset),
                        _ => None,
                    };
                    committed.insert((element.topic().to_owned(), element.partition()), offset);
                }
                Ok(committed)
            })
        };
        self.requests.ask(ask).await
    }
}

fn lock(partitions: &Mutex<HashMap<String, i32>>) -> MutexGuard<'_, HashMap<String, i32>> {
    partitions.lock().unwrap_or_else(PoisonError::into_inner)
}
