//! What the brokers' ACLs do not allow.
//!
//! Kafka tells an account its rights only on what is there, and never on transactional ids. So each
//! operation is tried under names that begin with `<prefix>.check`, in a way that changes nothing that is
//! read by anybody: a topic is created "to validate only", and offsets of a topic that is not there are
//! committed in a transaction that is aborted. The ids that the roles use are not tried, since a transaction
//! under capture's would end capture. What is left behind is an unused transactional id, which Kafka forgets
//! after a week; and the topics in which Kafka keeps transactions and offsets, if nobody has needed them yet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::admin::client::not_created;
use crate::connect::client::{EndsElsewhere, LogContext, REQUEST, blocking, created};
use crate::connect::config::KafkaConfig;
use crate::error::ConsumeError;

/// How long a transactional id may take: for the first one Kafka makes the topic of its transactions.
const FIRST_TRANSACTION: Duration = Duration::from_secs(30);

/// How long librdkafka asks again about a topic that is not there. What is forbidden is told at once.
const NO_SUCH_TOPIC: Duration = Duration::from_secs(2);

/// After which nothing is waited for any more: librdkafka looks for a group's coordinator without end.
const PATIENCE: Duration = Duration::from_secs(45);

/// An operation that roles need and that the account is not allowed.
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

/// What trying the operations came to.
#[derive(Debug, Default)]
pub struct AclReport {
    /// What is not allowed.
    pub missing: Vec<MissingAcl>,
    /// Why others could not be tried.
    pub errors: Vec<ConsumeError>,
}

impl AclReport {
    fn add(&mut self, tried: Result<Option<MissingAcl>, ConsumeError>) {
        match tried {
            Ok(missing) => self.missing.extend(missing),
            Err(error) => self.errors.push(error),
        }
    }
}

/// Tries what the roles need on what begins with the prefix, within two minutes. Not told:
///
/// - `Write` on topics is seen as allowed if it is on any topic at all, or by the cluster's
///   `IdempotentWrite`.
/// - Without the right to begin a transaction the two operations `Read` cannot be tried, and of these the
///   one on topics only if that on groups is allowed.
pub async fn missing_acls(config: &KafkaConfig) -> AclReport {
    let mut report = AclReport::default();
    report.add(create_topics(config).await);
    for attempt in [write_topics, use_transactions] {
        let config = config.clone();
        let tried = tokio::time::timeout(PATIENCE, blocking(move || attempt(&config))).await;
        let late = |_| {
            let cause = "no answer: can this machine reach every broker, at the address that it advertises?";
            Err(failed("asking Kafka what the account may do", cause.into()))
        };
        report.add(tried.unwrap_or_else(late));
    }
    report
}

/// The topic and the group that everything is tried with.
fn name(config: &KafkaConfig) -> String {
    format!("{}.check", config.prefix)
}

async fn create_topics(config: &KafkaConfig) -> Result<Option<MissingAcl>, ConsumeError> {
    let client: AdminClient<LogContext> =
        created(config.client(&[]).create_with_context(LogContext::new(config)))?;
    let name = name(config);
    let topic = NewTopic::new(&name, config.partitions, TopicReplication::Fixed(config.replication_factor));
    let options = AdminOptions::new().request_timeout(Some(REQUEST)).validate_only(true);
    let asked = client.create_topics([&topic], &options).await;
    let results = asked.map_err(|e| ConsumeError::request("asking whether topics may be created", &e))?;
    match results.into_iter().next() {
        Some(Err((_, code))) if is_forbidden(code) => Ok(Some(CREATE_TOPIC)),
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(None),
        Some(Err((topic, code))) => Err(not_created(config, topic, code)),
    }
}

/// Whether the account may write to any topic: otherwise it gets no producer id, without which no record
/// can be sent by an idempotent producer (KIP-679).
fn write_topics(config: &KafkaConfig) -> Result<Option<MissingAcl>, ConsumeError> {
    let doing = "asking for a producer id";
    let properties = config.producer(&[("statistics.interval.ms", "50")]);
    let producer: BaseProducer<Probe> = created(properties.create_with_context(Probe::default()))?;
    let began = Instant::now();
    loop {
        producer.poll(Duration::from_millis(50));
        if producer.context().assigned.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match producer.client().fatal_error() {
            Some((code, _)) if is_forbidden(code) => return Ok(Some(WRITE_TOPIC)),
            Some((_, cause)) => return Err(failed(doing, cause)),
            None if began.elapsed() < REQUEST => {}
            None => return Err(failed(doing, producer.context().last())),
        }
    }
}

/// What is not allowed of a transaction that commits offsets.
fn use_transactions(config: &KafkaConfig) -> Result<Option<MissingAcl>, ConsumeError> {
    let doing = "asking whether transactions are allowed";
    let request = |e: KafkaError| ConsumeError::request(doing, &e);
    // One of its own: whoever checks at the same time would end this one's.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let (name, began) = (name(config), Instant::now());
    let producer: BaseProducer<Probe> =
        created(config.transactional(&format!("{name}-{now:x}")).create_with_context(Probe::default()))?;
    match producer.init_transactions(FIRST_TRANSACTION) {
        Err(error) if error.rdkafka_error_code().is_some_and(is_forbidden) => return Ok(Some(WRITE_ID)),
        begun => begun.map_err(request)?,
    }
    let consumer = config.consumer(&name, &[]).create_with_context(LogContext::new(config));
    let consumer: EndsElsewhere<LogContext> = EndsElsewhere::new(created::<BaseConsumer<_>>(consumer)?);
    let group = consumer.get()?.group_metadata().ok_or(ConsumeError::Closed)?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&name, 0, Offset::Offset(0)).map_err(request)?;
    loop {
        producer.begin_transaction().map_err(request)?;
        let Err(error) = producer.send_offsets_to_transaction(&offsets, &group, NO_SUCH_TOPIC) else {
            producer.abort_transaction(REQUEST).map_err(request)?;
            return Ok(None);
        };
        let found = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => Ok(Some(READ_GROUP)),
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Ok(Some(READ_TOPIC)),
            // Brokers look at what is allowed before they look for the topic.
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(None),
            _ => Err(request(error)),
        };
        // It ends by itself where this fails.
        let aborted = producer.abort_transaction(REQUEST);
        match found {
            // Coordinators come and go.
            Err(error) if error.is_retriable() && aborted.is_ok() && began.elapsed() < FIRST_TRANSACTION => {}
            found => return found,
        }
    }
}

fn failed(doing: &str, cause: String) -> ConsumeError {
    ConsumeError::Request { doing: doing.into(), cause, retriable: true }
}

fn is_forbidden(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

/// Sees whether a producer id was assigned. What librdkafka says meanwhile is told only where it is the
/// reason of an error: to be refused is what is tried.
#[derive(Default)]
struct Probe {
    assigned: AtomicBool,
    last: Mutex<Option<String>>,
}

impl Probe {
    fn last(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().unwrap_or_else(|| "no answer".into())
    }
}

impl ClientContext for Probe {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka");
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error}: {reason}"));
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
