//! Creates topics and reads their offsets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tandem_model::Disposition;

use crate::admin::topic_spec::{Cleanup, TopicSpec};
use crate::connect::client::{LogContext, REQUEST, created, partition_count, ping, with_retries};
use crate::connect::config::KafkaConfig;
use crate::connect::config::MAX_BATCH_BYTES;
use crate::connect::requests::RequestClient;
use crate::error::ConsumeError;

/// Limit until all brokers know a new topic.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(15);

/// Up to this many topics, [`Admin::partitions_of`] asks for each by its name.
const ASKED_BY_NAME: usize = 32;

/// A topic that [`Admin::ensure_topics`] found or created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnsuredTopic {
    /// The topic.
    pub name: String,
    /// The actual number of partitions. An existing topic keeps its number.
    pub partitions: i32,
    /// Whether this call created it.
    pub created: bool,
}

/// Creates topics and reads their metadata.
pub struct Admin {
    config: KafkaConfig,
    client: AdminClient<LogContext>,
    requests: RequestClient,
}

impl Admin {
    /// Connects.
    ///
    /// # Errors
    /// [`ConsumeError::Unreachable`] if no broker answers within 8 s; [`ConsumeError::Refused`] or
    /// [`ConsumeError::Config`] if the configuration is wrong.
    pub async fn connect(config: &KafkaConfig) -> Result<Self, ConsumeError> {
        if let Some(problem) = config.security.unreadable() {
            return Err(ConsumeError::Config(problem));
        }
        let context = LogContext::new(config);
        let client = created(config.client(&[]).create_with_context(context.clone()))?;
        let properties = config.client(&[("isolation.level", "read_committed")]);
        let admin =
            Self { config: config.clone(), client, requests: RequestClient::new(properties, config)? };
        admin.ping().await?;
        Ok(admin)
    }

    /// Checks that a broker answers.
    ///
    /// # Errors
    /// As for [`Self::connect`].
    pub async fn ping(&self) -> Result<(), ConsumeError> {
        let config = self.config.clone();
        self.requests.ask(move |consumer| ping(consumer, &config, &consumer.context().health)).await
    }

    /// Creates the missing topics and waits until the brokers know them. Does not change existing topics.
    ///
    /// # Errors
    /// A broker refuses to create a topic, or a request fails.
    pub async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<Vec<EnsuredTopic>, ConsumeError> {
        let settings: Vec<Vec<(&str, String)>> = specs.iter().map(|spec| settings(spec.cleanup)).collect();
        let topics: Vec<NewTopic<'_>> = specs
            .iter()
            .zip(&settings)
            .map(|(spec, settings)| {
                let topic = NewTopic::new(
                    &spec.name,
                    spec.partitions,
                    TopicReplication::Fixed(self.config.replication_factor),
                );
                settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let options = AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST));
        let results = self
            .client
            .create_topics(&topics, &options)
            .await
            .map_err(|e| ConsumeError::request("creating topics", &e))?;
        let mut ensured = Vec::with_capacity(specs.len());
        for (spec, result) in specs.iter().zip(results) {
            let created = match result {
                Ok(_) => true,
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => false,
                Err((topic, code)) => return Err(not_created(&self.config, topic, code)),
            };
            let partitions = self.known(&spec.name).await?;
            if created {
                tracing::info!(topic = spec.name, partitions, "created a topic");
            } else if partitions != spec.partitions {
                tracing::warn!(
                    topic = spec.name,
                    partitions,
                    configured = spec.partitions,
                    "the topic was there with another number of partitions, which is kept"
                );
            }
            ensured.push(EnsuredTopic { name: spec.name.clone(), partitions, created });
        }
        Ok(ensured)
    }

    /// Waits until the brokers know a topic. Returns its number of partitions.
    async fn known(&self, topic: &str) -> Result<i32, ConsumeError> {
        let began = Instant::now();
        loop {
            match self.partitions(topic).await {
                Err(ConsumeError::NoTopic(_) | ConsumeError::Request { retry: Disposition::Retry, .. })
                    if began.elapsed() < PROPAGATION_TIMEOUT =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                answer => return answer,
            }
        }
    }

    /// Returns a topic's number of partitions.
    ///
    /// # Errors
    /// [`ConsumeError::NoTopic`] if the topic does not exist; otherwise the request failed.
    pub async fn partitions(&self, topic: &str) -> Result<i32, ConsumeError> {
        let topic = topic.to_owned();
        self.requests.ask(move |consumer| partition_count(consumer, &topic)).await
    }

    /// Returns the number of partitions of each of these topics; 0 for one that does not exist.
    ///
    /// A cluster may have many more topics than Tandem's, so a few topics are asked for by name. For many, one
    /// list of all topics costs less.
    ///
    /// # Errors
    /// The request fails.
    pub async fn partitions_of(&self, topics: &[String]) -> Result<Vec<i32>, ConsumeError> {
        let topics = topics.to_vec();
        let ask = move |consumer: &Arc<BaseConsumer<LogContext>>| {
            let named = |topic: &String| match partition_count(consumer, topic) {
                Err(ConsumeError::NoTopic(_)) => Ok(0),
                count => count,
            };
            if topics.len() <= ASKED_BY_NAME {
                return topics.iter().map(named).collect();
            }
            let failed = |e| ConsumeError::request("asking for the topics", &e);
            let metadata = with_retries(|| consumer.fetch_metadata(None, REQUEST).map_err(failed))?;
            let sound = metadata.topics().iter().filter(|topic| topic.error().is_none());
            let counts: HashMap<&str, i32> =
                sound.map(|topic| (topic.name(), topic.partitions().len() as i32)).collect();
            let count = |topic: &String| match counts.get(topic.as_str()) {
                Some(count) => Ok(*count),
                // The list leaves out topics that the account may not see. Only a question by name tells them apart from
                // topics that do not exist.
                None => named(topic),
            };
            topics.iter().map(count).collect()
        };
        self.requests.ask(ask).await
    }

    /// Returns the first ([`Offset::Beginning`]) or last stable offsets of partitions, in their order.
    pub(crate) async fn offsets_of(
        &self,
        partitions: &Arc<Vec<(String, i32)>>,
        which: Offset,
    ) -> Result<Vec<i64>, ConsumeError> {
        let partitions = Arc::clone(partitions);
        self.requests.ask(move |consumer| list_offsets(consumer, &partitions, which)).await
    }

    /// Returns the last stable offset of each partition. Every visible committed record is below it, and
    /// every transaction below it has ended.
    ///
    /// # Errors
    /// The topic does not exist, or the request fails.
    pub async fn end_offsets(&self, topic: &str, partitions: i32) -> Result<Vec<i64>, ConsumeError> {
        self.offsets(topic, partitions, Offset::End).await
    }

    /// Returns the offset of the first record that each partition still holds.
    ///
    /// # Errors
    /// The topic does not exist, or the request fails.
    pub async fn first_offsets(&self, topic: &str, partitions: i32) -> Result<Vec<i64>, ConsumeError> {
        self.offsets(topic, partitions, Offset::Beginning).await
    }

    async fn offsets(&self, topic: &str, partitions: i32, which: Offset) -> Result<Vec<i64>, ConsumeError> {
        self.offsets_of(&Arc::new((0..partitions).map(|p| (topic.to_owned(), p)).collect()), which).await
    }
}

/// The error for a topic that the brokers refuse to create.
pub(crate) fn not_created(config: &KafkaConfig, topic: String, code: RDKafkaErrorCode) -> ConsumeError {
    let hint = match code {
        RDKafkaErrorCode::InvalidReplicationFactor => {
            format!("; kafka.replication_factor is {}: are there as many brokers?", config.replication_factor)
        }
        _ => String::new(),
    };
    ConsumeError::CreateTopic { topic, cause: format!("{code}{hint}") }
}

/// A topic's settings.
fn settings(cleanup: Cleanup) -> Vec<(&'static str, String)> {
    let mut settings = vec![("max.message.bytes", MAX_BATCH_BYTES.to_string())];
    match cleanup {
        Cleanup::KeepAll => {
            settings.push(("cleanup.policy", "delete".into()));
            settings.push(("retention.ms", "-1".into()));
            settings.push(("retention.bytes", "-1".into()));
        }
        Cleanup::DeleteAfter(time) => {
            settings.push(("cleanup.policy", "delete".into()));
            settings.push(("retention.ms", time.as_millis().to_string()));
            settings.push(("retention.bytes", "-1".into()));
        }
        Cleanup::CompactAfter(time) => {
            settings.push(("cleanup.policy", "compact".into()));
            settings.push(("min.compaction.lag.ms", time.as_millis().to_string()));
        }
        // Kafka never compacts the segment that it writes to, so this is a small one.
        Cleanup::NewestOnly => {
            settings.push(("cleanup.policy", "compact".into()));
            settings.push(("segment.ms", "60000".into()));
            settings.push(("segment.bytes", (1 << 20).to_string()));
            settings.push(("min.cleanable.dirty.ratio", "0.1".into()));
            settings.push(("delete.retention.ms", "3600000".into()));
        }
    }
    settings
}

/// Returns the first ([`Offset::Beginning`]) or the last stable ([`Offset::End`]) offset of partitions, in
/// their order.
///
/// librdkafka's `offsets_for_times` accepts these two in place of a time: they are Kafka's special timestamps
/// −2 and −1. It uses the client's isolation level.
pub(crate) fn list_offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[(String, i32)],
    which: Offset,
) -> Result<Vec<i64>, ConsumeError> {
    let failed = |e| ConsumeError::request("asking for the offsets of partitions", &e);
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, which).map_err(failed)?;
    }
    with_retries(|| {
        let answer = consumer.offsets_for_times(list.clone(), REQUEST).map_err(failed)?;
        offsets_in(&answer, partitions)
    })
}

/// Extracts the offsets from an answer, in the order of `partitions`.
fn offsets_in(answer: &TopicPartitionList, partitions: &[(String, i32)]) -> Result<Vec<i64>, ConsumeError> {
    let failed = |e| ConsumeError::request("asking for the offsets of partitions", &e);
    // librdkafka finds a partition by going through the list, which takes too long for many.
    let elements = answer.elements();
    let found: HashMap<(&str, i32), _> =
        elements.iter().map(|element| ((element.topic(), element.partition()), element)).collect();
    partitions
        .iter()
        .map(|(topic, partition)| {
            let found = found.get(&(topic.as_str(), *partition));
            let found = found.ok_or_else(|| ConsumeError::NoTopic(topic.clone()))?;
            found.error().map_err(failed)?;
            match found.offset() {
                Offset::Offset(offset) => Ok(offset),
                other => Err(ConsumeError::Request {
                    doing: format!("asking for the offsets of {topic}[{partition}]"),
                    cause: format!("the broker answered {other:?}"),
                    retry: Disposition::Retry,
                }),
            }
        })
        .collect()
}
