//! Checks which operations the brokers' ACLs deny.
//!
//! Kafka reports an account's permissions only for existing resources, and never for transactional ids. So
//! the check tries each operation under names that begin with `<prefix>.check`, without changing anything
//! that a consumer reads. It creates a topic with `validate_only`. It commits offsets of a missing topic in a
//! transaction and aborts that transaction.
//!
//! The check does not use the roles' own transactional ids, because a transaction under capture's id would
//! fence capture. It leaves behind an unused transactional id, which Kafka deletes after a week. If no client
//! needed them before, Kafka also creates its internal topics for transactions and offsets.

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
use tandem_model::Disposition;

use crate::admin::client::not_created;
use crate::connect::client::{BackgroundClose, LogContext, REQUEST, blocking, created};
use crate::connect::config::KafkaConfig;
use crate::error::ConsumeError;

/// Limit for the first transaction. Kafka creates its transaction topic for the first transactional id.
const FIRST_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long librdkafka retries for a missing topic. A denied operation is reported at once.
const MISSING_TOPIC_TIMEOUT: Duration = Duration::from_secs(2);

/// Limit for one attempt. librdkafka itself searches for a group's coordinator without limit.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(45);

/// A required operation that the account is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingAcl {
    /// The kind of resource: `topic`, `group` or `transactional-id`.
    pub resource: &'static str,
    /// The operation, as `kafka-acls` names it.
    pub operation: &'static str,
    /// What is impossible without it.
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

/// The result of the permission check.
#[derive(Debug, Default)]
pub struct AclReport {
    /// The denied operations.
    pub missing: Vec<MissingAcl>,
    /// Why other operations could not be tried.
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

/// Tries the operations that the roles need, on names that begin with the prefix. Takes at most two minutes.
///
/// The check has two limits:
///
/// - `Write` on topics counts as allowed if the account may write to any topic, or if the cluster grants
///   `IdempotentWrite`.
/// - The two `Read` operations cannot be tried without `Write` on transactional ids. `Read` on topics can be
///   tried only if `Read` on groups is allowed.
pub async fn missing_acls(config: &KafkaConfig) -> AclReport {
    let mut report = AclReport::default();
    report.add(create_topics(config).await);
    for attempt in [write_topics, use_transactions] {
        let config = config.clone();
        let tried = tokio::time::timeout(ATTEMPT_TIMEOUT, blocking(move || attempt(&config))).await;
        let late = |_| {
            let cause = "no answer: can this machine reach every broker, at the address that it advertises?";
            Err(failed("asking Kafka what the account may do", cause.into()))
        };
        report.add(tried.unwrap_or_else(late));
    }
    report
}

/// The name of the topic and the group that the check uses.
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
        Some(Err((_, code))) if is_denied(code) => Ok(Some(CREATE_TOPIC)),
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(None),
        Some(Err((topic, code))) => Err(not_created(config, topic, code)),
    }
}

/// Checks whether the account may write to any topic. If not, the broker gives it no producer id, and an
/// idempotent producer cannot send without one (KIP-679).
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
            Some((code, _)) if is_denied(code) => return Ok(Some(WRITE_TOPIC)),
            Some((_, cause)) => return Err(failed(doing, cause)),
            None if began.elapsed() < REQUEST => {}
            None => return Err(failed(doing, producer.context().last())),
        }
    }
}

/// Finds the first denied operation of a transaction that commits offsets.
fn use_transactions(config: &KafkaConfig) -> Result<Option<MissingAcl>, ConsumeError> {
    let doing = "asking whether transactions are allowed";
    let request = |e: KafkaError| ConsumeError::request(doing, &e);
    // A unique id, because a concurrent check with the same id would fence this one.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let (name, began) = (name(config), Instant::now());
    let producer: BaseProducer<Probe> =
        created(config.transactional(&format!("{name}-{now:x}")).create_with_context(Probe::default()))?;
    match producer.init_transactions(FIRST_TRANSACTION_TIMEOUT) {
        Err(error) if error.rdkafka_error_code().is_some_and(is_denied) => return Ok(Some(WRITE_ID)),
        begun => begun.map_err(request)?,
    }
    let consumer = config.consumer(&name, &[]).create_with_context(LogContext::new(config));
    let consumer: BackgroundClose<LogContext> = BackgroundClose::new(created::<BaseConsumer<_>>(consumer)?);
    let group = consumer.get()?.group_metadata().ok_or(ConsumeError::Closed)?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&name, 0, Offset::Offset(0)).map_err(request)?;
    loop {
        producer.begin_transaction().map_err(request)?;
        let Err(error) = producer.send_offsets_to_transaction(&offsets, &group, MISSING_TOPIC_TIMEOUT) else {
            producer.abort_transaction(REQUEST).map_err(request)?;
            return Ok(None);
        };
        let found = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => Ok(Some(READ_GROUP)),
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Ok(Some(READ_TOPIC)),
            // Brokers check permissions before they look up the topic.
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(None),
            _ => Err(request(error)),
        };
        // If this fails, the broker aborts the transaction after its timeout.
        let aborted = producer.abort_transaction(REQUEST);
        let error = match found {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        match error.retry() {
            // A coordinator may be moving.
            Disposition::Retry if aborted.is_ok() && began.elapsed() < FIRST_TRANSACTION_TIMEOUT => {}
            Disposition::Retry | Disposition::Stop | Disposition::Refuse => return Err(error),
        }
    }
}

fn failed(doing: &str, cause: String) -> ConsumeError {
    ConsumeError::Request { doing: doing.into(), cause, retry: Disposition::Retry }
}

fn is_denied(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

/// Detects that a producer id was assigned. Keeps librdkafka's last error for the check's own error, and logs
/// it only at `debug`, because refusals are expected here.
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
