//! Code that all clients share: librdkafka's log, its errors, retries and shutdown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use tandem_model::Disposition;

use crate::connect::config::KafkaConfig;
use crate::connect::health::Health;
use crate::connect::rebootstrap::Watched;
use crate::error::ConsumeError;

/// How long a start waits for a broker's first answer.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(8);

/// How often the wait checks whether the brokers refuse the client.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Limit for a request. The caller decides whether to retry.
pub(crate) const REQUEST: Duration = Duration::from_secs(10);

/// The context of clients that only need the log and the health.
#[derive(Debug, Clone)]
pub(crate) struct LogContext {
    pub(crate) health: Arc<Health>,
}

impl LogContext {
    pub(crate) fn new(config: &KafkaConfig) -> Self {
        Self { health: Health::new(&config.refusals, &config.brokers) }
    }
}

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.report(&error, reason);
    }
}

impl ConsumerContext for LogContext {}

impl Watched for LogContext {
    fn health(&self) -> &Health {
        &self.health
    }
}

/// Logs librdkafka's own log lines. librdkafka also returns its broker problems as errors, so this function
/// logs them only at `debug`.
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

/// Requests metadata from any broker. An answer means that the cluster can be reached.
pub(crate) fn ping<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    config: &KafkaConfig,
    health: &Health,
) -> Result<(), ConsumeError> {
    let (topic, began) = (format!("{}.schemas", config.prefix), Instant::now());
    loop {
        let Err(error) = consumer.fetch_metadata(Some(&topic), PING_INTERVAL) else { return Ok(()) };
        // The error events with the cause wait in the client's queue.
        let asked = Instant::now();
        while health.last().is_none() && asked.elapsed() < Duration::from_millis(300) {
            let _ = consumer.poll(Duration::from_millis(20));
        }
        if let Some(cause) = health.refused() {
            return Err(ConsumeError::Refused { brokers: config.brokers.clone(), cause });
        }
        if began.elapsed() >= PING_TIMEOUT {
            let cause = health.last().unwrap_or_else(|| error.to_string());
            return Err(ConsumeError::Unreachable { brokers: config.brokers.clone(), cause });
        }
    }
}

/// Returns a topic's number of partitions.
pub(crate) fn partition_count<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
) -> Result<i32, ConsumeError> {
    let doing = || format!("asking for the partitions of `{topic}`");
    let metadata = with_retries(|| {
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
            retry: Disposition::Retry,
        }),
        _ => Err(ConsumeError::NoTopic(topic.to_owned())),
    }
}

fn is_missing(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
}

/// Maps a client's refusal of its configuration.
pub(crate) fn created<T>(client: KafkaResult<T>) -> Result<T, ConsumeError> {
    client.map_err(|e| ConsumeError::Config(e.to_string()))
}

/// Retries a retriable error for about [`REQUEST`]. Brokers that have just started know neither leaders nor
/// coordinators, and clients learn of new ones late.
pub(crate) fn with_retries<T>(mut ask: impl FnMut() -> Result<T, ConsumeError>) -> Result<T, ConsumeError> {
    let began = Instant::now();
    loop {
        let error = match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match error.retry() {
            Disposition::Retry if began.elapsed() < REQUEST => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Disposition::Retry | Disposition::Stop | Disposition::Refuse => return Err(error),
        }
    }
}

/// Runs a blocking call of librdkafka outside the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ConsumeError> + Send + 'static,
) -> Result<T, ConsumeError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(ConsumeError::Closed))
}

/// A consumer that is closed in the background. librdkafka waits for the group's coordinator, so closing can
/// take long and runs on its own thread.
pub(crate) struct BackgroundClose<C: ConsumerContext + 'static>(Option<Arc<BaseConsumer<C>>>);

impl<C: ConsumerContext + 'static> BackgroundClose<C> {
    pub(crate) fn new(consumer: BaseConsumer<C>) -> Self {
        Self(Some(Arc::new(consumer)))
    }

    pub(crate) fn get(&self) -> Result<Arc<BaseConsumer<C>>, ConsumeError> {
        self.0.clone().ok_or(ConsumeError::Closed)
    }
}

impl<C: ConsumerContext + 'static> Drop for BackgroundClose<C> {
    fn drop(&mut self) {
        if let Some(consumer) = self.0.take() {
            // If no thread can be started, the consumer is closed here.
            let _ = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(consumer));
        }
    }
}
