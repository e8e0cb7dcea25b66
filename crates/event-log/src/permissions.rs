//! What the brokers' ACLs do not allow.
//!
//! Kafka tells an account its rights only on what is there, and never on transactional ids. So each
//! operation is tried under the name `<prefix>.check`, in a way that changes nothing that is read by
//! anybody: a topic is created "to validate only", and offsets are committed in a transaction that is
//! aborted. The ids that the roles use are not tried, since a transaction under capture's would end
//! capture. What is left behind is an unused transactional id, which Kafka forgets after a week.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::admin::not_created;
use crate::client::{LogContext, REQUEST, blocking, created, log};
use crate::health::Health;
use crate::{ConsumeError, KafkaConfig, Topics};

/// How long a first transactional id may take: Kafka makes the topic of its transactions then.
const FIRST_TRANSACTION: Duration = Duration::from_secs(30);

/// How long librdkafka may ask again about a topic that is not there. What is forbidden is told before.
const NO_SUCH_TOPIC: Duration = Duration::from_secs(2);

/// An operation that all roles need and that the account is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingAcl {
    /// The kind of resource: `topic`, `group` or `transactional-id`.
    pub resource: &'static str,
    /// The operation, by the name that Kafka's own tool takes.
    pub operation: &'static str,
    /// What cannot be done without it.
    pub without: &'static str,
}

const CREATE_TOPIC: MissingAcl = acl("topic", "Create", "topics cannot be created");
const WRITE_TOPIC: MissingAcl = acl("topic", "Write", "nothing can be published");
const READ_TOPIC: MissingAcl = acl("topic", "Read", "topics cannot be read");
const READ_GROUP: MissingAcl = acl("group", "Read", "groups can neither be joined nor commit offsets");
const WRITE_ID: MissingAcl = acl("transactional-id", "Write", "no transaction can be begun");

const fn acl(resource: &'static str, operation: &'static str, without: &'static str) -> MissingAcl {
    MissingAcl { resource, operation, without }
}

/// Tries what the roles need on what begins with the prefix, and gives what is not allowed. Not told:
///
/// - `Write` on a topic is tried on any topic at all; the account may lack it under the prefix alone.
/// - Without the right to begin a transaction the two operations `Read` cannot be tried.
pub async fn missing_acls(config: &KafkaConfig) -> Result<Vec<MissingAcl>, ConsumeError> {
    let mut missing = Vec::new();
    if !may_create_topics(config).await? {
        missing.push(CREATE_TOPIC);
    }
    let config = config.clone();
    let others = blocking(move || {
        let mut missing = Vec::new();
        if !may_write(&config)? {
            missing.push(WRITE_TOPIC);
        }
        missing.extend(in_a_transaction(&config)?);
        Ok(missing)
    });
    missing.extend(others.await?);
    Ok(missing)
}

/// The name that everything is tried under.
fn name(config: &KafkaConfig) -> String {
    format!("{}.check", config.prefix)
}

async fn may_create_topics(config: &KafkaConfig) -> Result<bool, ConsumeError> {
    let client: AdminClient<LogContext> =
        created(config.client(&[]).create_with_context(LogContext::new(config)))?;
    let name = name(config);
    let topic = NewTopic::new(&name, config.partitions, TopicReplication::Fixed(config.replication));
    let options = AdminOptions::new().request_timeout(Some(REQUEST)).validate_only(true);
    let asked = client.create_topics([&topic], &options).await;
    let results = asked.map_err(|e| ConsumeError::request("asking whether topics may be created", &e))?;
    match results.into_iter().next() {
        Some(Err((_, code))) if is_forbidden(code) => Ok(false),
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(true),
        Some(Err((topic, code))) => Err(not_created(config, topic, code)),
    }
}

/// Whether the account may write to any topic: otherwise it gets no producer id, without which no record
/// can be sent by an idempotent producer (KIP-679).
fn may_write(config: &KafkaConfig) -> Result<bool, ConsumeError> {
    let context = Probe::new(config);
    let assigned = Arc::clone(&context.assigned);
    let properties = config.producer(&[("statistics.interval.ms", "50")]);
    let producer: BaseProducer<Probe> = created(properties.create_with_context(context))?;
    let began = Instant::now();
    loop {
        producer.poll(Duration::from_millis(50));
        if assigned.load(Ordering::Relaxed) {
            return Ok(true);
        }
        match producer.client().fatal_error() {
            Some((code, _)) if is_forbidden(code) => return Ok(false),
            Some((_, cause)) => return Err(failed("asking for a producer id", cause)),
            None if began.elapsed() < REQUEST => {}
            None => return Err(failed("asking for a producer id", "no answer".into())),
        }
    }
}

/// What is not allowed of a transaction that commits offsets.
fn in_a_transaction(config: &KafkaConfig) -> Result<Option<MissingAcl>, ConsumeError> {
    let (name, doing) = (name(config), "asking whether transactions are allowed");
    let properties = config.producer(&[("transactional.id", &name), ("transaction.timeout.ms", "10000")]);
    let producer: BaseProducer<Probe> = created(properties.create_with_context(Probe::new(config)))?;
    match producer.init_transactions(FIRST_TRANSACTION) {
        Err(error) if forbidden(&error) => return Ok(Some(WRITE_ID)),
        begun => begun.map_err(|e| ConsumeError::request(doing, &e))?,
    }
    let consumer: BaseConsumer<LogContext> =
        created(config.consumer(&name, &[]).create_with_context(LogContext::new(config)))?;
    let request = |e: KafkaError| ConsumeError::request(doing, &e);
    let group = consumer.group_metadata().ok_or(ConsumeError::Closed)?;
    // One that is there is answered for at once.
    let control = Topics::new(&config.prefix).control();
    let metadata = consumer.fetch_metadata(Some(&control), REQUEST).map_err(request)?;
    let there = metadata.topics().iter().any(|t| t.name() == control && t.error().is_none());
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset(if there { &control } else { &name }, 0, Offset::Offset(0))
        .map_err(request)?;
    producer.begin_transaction().map_err(request)?;
    let missing = match producer.send_offsets_to_transaction(&offsets, &group, NO_SUCH_TOPIC) {
        Ok(()) => None,
        Err(error) => match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => Some(READ_GROUP),
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Some(READ_TOPIC),
            Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) => Some(WRITE_ID),
            // It was asked for until the time was over: not forbidden.
            Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::UnknownTopicOrPartition)
                if !there =>
            {
                None
            }
            _ => return Err(request(error)),
        },
    };
    producer.abort_transaction(REQUEST).map_err(request)?;
    Ok(missing)
}

fn failed(doing: &str, cause: String) -> ConsumeError {
    ConsumeError::Request { doing: doing.into(), cause, retriable: true }
}

fn forbidden(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(is_forbidden)
}

fn is_forbidden(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

/// Sees whether a producer id was assigned.
struct Probe {
    assigned: Arc<AtomicBool>,
    health: Arc<Health>,
}

impl Probe {
    fn new(config: &KafkaConfig) -> Self {
        Self { assigned: Arc::default(), health: Health::new(&config.refusals) }
    }
}

impl ClientContext for Probe {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.told(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.eos.is_some_and(|eos| eos.idemp_state == "Assigned") {
            self.assigned.store(true, Ordering::Relaxed);
        }
    }
}

impl ProducerContext for Probe {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, (): ()) {}
}
