//! What all clients share: librdkafka's log, its errors, its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;

use crate::connect::config::KafkaConfig;
use crate::connect::health::Health;
use crate::error::ConsumeError;

/// How long a start waits for a broker's first answer.
pub(crate) const PING: Duration = Duration::from_secs(8);

/// How often it is looked meanwhile whether the brokers refuse to answer.
const SLICE: Duration = Duration::from_secs(1);

/// How long a request may take before it is given up; the caller decides whether to try again.
pub(crate) const REQUEST: Duration = Duration::from_secs(10);

/// The context of clients that need no more than a log.
#[derive(Debug, Clone)]
pub(crate) struct LogContext {
    pub(crate) health: Arc<Health>,
}

impl LogContext {
    pub(crate) fn new(config: &KafkaConfig) -> Self {
        Self { health: Health::new(&config.refusals) }
    }
}

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.told(&error, reason);
    }
}

impl ConsumerContext for LogContext {}

/// librdkafka's own log lines. Its complaints about brokers come again as errors, so they are not
/// repeated above `debug` here.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if facility != "FAIL" && facility != "ERROR" => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// Asks any broker for anything; an answer means that the cluster can be reached.
pub(crate) fn ping<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    config: &KafkaConfig,
    health: &Health,
) -> Result<(), ConsumeError> {
    let (topic, began) = (format!("{}.schemas", config.prefix), Instant::now());
    loop {
        let Err(error) = consumer.fetch_metadata(Some(&topic), SLICE) else { return Ok(()) };
        // The events that say why wait in the client's queue.
        let asked = Instant::now();
        while health.last().is_none() && asked.elapsed() < Duration::from_millis(300) {
            let _ = consumer.poll(Duration::from_millis(20));
        }
        if let Some(cause) = health.refused() {
            return Err(ConsumeError::Refused { brokers: config.brokers.clone(), cause });
        }
        if began.elapsed() >= PING {
            let cause = health.last().unwrap_or_else(|| error.to_string());
            return Err(ConsumeError::Unreachable { brokers: config.brokers.clone(), cause });
        }
    }
}

/// How many partitions a topic has.
pub(crate) fn partition_count<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
) -> Result<i32, ConsumeError> {
    let doing = || format!("asking for the partitions of `{topic}`");
    let metadata = patiently(|| {
        consumer.fetch_metadata(Some(topic), REQUEST).map_err(|e| ConsumeError::request(doing(), &e))
    })?;
    let known = metadata.topics().iter().find(|t| t.name() == topic);
    match known {
        Some(topic) if topic.error().is_none() && !topic.partitions().is_empty() => {
            Ok(topic.partitions().len() as i32)
        }
        Some(found) if found.error().is_some_and(|e| !is_missing(e.into())) => Err(ConsumeError::Request {
            doing: format!("asking for the partitions of `{topic}`"),
            cause: found.error().map_or_else(String::new, |e| RDKafkaErrorCode::from(e).to_string()),
            retriable: true,
        }),
        _ => Err(ConsumeError::NoTopic(topic.to_owned())),
    }
}

fn is_missing(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
}

/// A client refused its configuration.
pub(crate) fn created<T>(client: KafkaResult<T>) -> Result<T, ConsumeError> {
    client.map_err(|e| ConsumeError::Config(e.to_string()))
}

/// Asks again, for about [`REQUEST`], where the answer is an error that passes by itself: brokers
/// that have just started know neither leaders nor coordinators, and clients learn of new ones late.
pub(crate) fn patiently<T>(mut ask: impl FnMut() -> Result<T, ConsumeError>) -> Result<T, ConsumeError> {
    let began = Instant::now();
    loop {
        match ask() {
            Err(error) if error.is_retriable() && began.elapsed() < REQUEST => {
                std::thread::sleep(Duration::from_millis(50));
            }
            answer => return answer,
        }
    }
}

/// Runs librdkafka's blocking calls off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ConsumeError> + Send + 'static,
) -> Result<T, ConsumeError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ConsumeError::Closed))
}

/// A consumer whose end is not waited for: closing one can take long (librdkafka answers when its
/// coordinator does), so it happens on a thread of its own.
pub(crate) struct EndsElsewhere<C: ConsumerContext + 'static>(Option<Arc<BaseConsumer<C>>>);

impl<C: ConsumerContext + 'static> EndsElsewhere<C> {
    pub(crate) fn new(consumer: BaseConsumer<C>) -> Self {
        Self(Some(Arc::new(consumer)))
    }

    pub(crate) fn get(&self) -> Result<Arc<BaseConsumer<C>>, ConsumeError> {
        self.0.clone().ok_or(ConsumeError::Closed)
    }
}

impl<C: ConsumerContext + 'static> Drop for EndsElsewhere<C> {
    fn drop(&mut self) {
        if let Some(consumer) = self.0.take() {
            // Without a thread to end on, it ends here.
            let _ = std::thread::Builder::new().name("kafka-end".into()).spawn(move || drop(consumer));
        }
    }
}
