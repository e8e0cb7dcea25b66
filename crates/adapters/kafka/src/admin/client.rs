//! Topics and their ends.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::admin::topic_spec::{Cleanup, TopicSpec};
use crate::connect::client::{
    EndsElsewhere, LogContext, REQUEST, blocking, created, partition_count, patiently, ping,
};
use crate::connect::config::KafkaConfig;
use crate::connect::config::MAX_BATCH_BYTES;
use crate::error::ConsumeError;

/// How long a new topic may take until the brokers know it.
const PROPAGATION: Duration = Duration::from_secs(15);

/// What [`Admin::ensure_topics`] found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnsuredTopic {
    /// The topic.
    pub name: String,
    /// How many partitions it has: not what was asked for where it was there before with others.
    pub partitions: i32,
    /// Whether it was created now.
    pub created: bool,
}

/// Creates topics and asks about them.
pub struct Admin {
    config: KafkaConfig,
    client: AdminClient<LogContext>,
    consumer: EndsElsewhere<LogContext>,
}

impl Admin {
    /// Connects; without any broker's answer within some seconds this is
    /// [`ConsumeError::Unreachable`].
    pub async fn connect(config: &KafkaConfig) -> Result<Self, ConsumeError> {
        if let Some(problem) = config.security.unreadable() {
            return Err(ConsumeError::Config(problem));
        }
        let context = LogContext::new(config);
        let client = created(config.client(&[]).create_with_context(context.clone()))?;
        let properties = config.client(&[("isolation.level", "read_committed")]);
        let consumer: BaseConsumer<LogContext> = created(properties.create_with_context(context.clone()))?;
        let admin = Self { config: config.clone(), client, consumer: EndsElsewhere::new(consumer) };
        admin.ping().await?;
        Ok(admin)
    }

    /// Whether a broker answers.
    pub async fn ping(&self) -> Result<(), ConsumeError> {
        let (consumer, config) = (self.consumer.get()?, self.config.clone());
        blocking(move || ping(&consumer, &config, &consumer.context().health)).await
    }

    /// Creates the topics that are not there, and waits until the brokers know them. A topic that
    /// is there is left as it is.
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

    /// Waits until the brokers know a topic.
    async fn known(&self, topic: &str) -> Result<i32, ConsumeError> {
        let began = Instant::now();
        loop {
            match self.partitions(topic).await {
                Err(ConsumeError::NoTopic(_) | ConsumeError::Request { retriable: true, .. })
                    if began.elapsed() < PROPAGATION =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                answer => return answer,
            }
        }
    }

    /// How many partitions a topic has.
    pub async fn partitions(&self, topic: &str) -> Result<i32, ConsumeError> {
        let (consumer, topic) = (self.consumer.get()?, topic.to_owned());
        blocking(move || partition_count(&consumer, &topic)).await
    }

    /// For each of a topic's partitions the offset up to which everything is decided (the last
    /// stable offset): every committed record now visible lies below it.
    pub async fn end_offsets(&self, topic: &str, partitions: i32) -> Result<Vec<i64>, ConsumeError> {
        self.offsets(topic, partitions, Offset::End).await
    }

    /// For each of a topic's partitions the offset of the first record that it still holds.
    pub async fn first_offsets(&self, topic: &str, partitions: i32) -> Result<Vec<i64>, ConsumeError> {
        self.offsets(topic, partitions, Offset::Beginning).await
    }

    async fn offsets(&self, topic: &str, partitions: i32, which: Offset) -> Result<Vec<i64>, ConsumeError> {
        let (consumer, topic) = (self.consumer.get()?, topic.to_owned());
        blocking(move || {
            let all: Vec<(String, i32)> = (0..partitions).map(|p| (topic.clone(), p)).collect();
            list_offsets(&consumer, &all, which)
        })
        .await
    }
}

/// The error of a topic that the brokers do not create.
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
    }
    settings
}

/// The first ([`Offset::Beginning`]) or the last stable ([`Offset::End`]) offset of partitions, in
/// their order. librdkafka takes Kafka's special timestamps −2 and −1, which those two stand for,
/// where it takes times, and asks with the client's isolation level.
pub(crate) fn list_offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[(String, i32)],
    which: Offset,
) -> Result<Vec<i64>, ConsumeError> {
    let failed = |e| ConsumeError::request("asking for the ends of partitions", &e);
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, which).map_err(failed)?;
    }
    patiently(|| {
        let answer = consumer.offsets_for_times(list.clone(), REQUEST).map_err(failed)?;
        offsets_in(&answer, partitions)
    })
}

/// The offsets of an answer, in the order of `partitions`.
fn offsets_in(answer: &TopicPartitionList, partitions: &[(String, i32)]) -> Result<Vec<i64>, ConsumeError> {
    let failed = |e| ConsumeError::request("asking for the ends of partitions", &e);
    partitions
        .iter()
        .map(|(topic, partition)| {
            let found = answer.find_partition(topic, *partition);
            let found = found.ok_or_else(|| ConsumeError::NoTopic(topic.clone()))?;
            found.error().map_err(failed)?;
            match found.offset() {
                Offset::Offset(offset) => Ok(offset),
                other => Err(ConsumeError::Request {
                    doing: format!("asking for the ends of {topic}[{partition}]"),
                    cause: format!("the broker answered {other:?}"),
                    retriable: true,
                }),
            }
        })
        .collect()
}
