//! What can go wrong between Tandem and Kafka.

use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tandem_wire::WireError;

/// An error of the caller's own.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Reading, administering or asking Kafka failed.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// No broker answered.
    #[error(
        "no Kafka broker answered at {brokers} ({cause}): is Kafka up, and are kafka.brokers and kafka.security right?"
    )]
    Unreachable {
        /// The addresses tried.
        brokers: String,
        /// What librdkafka said last.
        cause: String,
    },
    /// The brokers refuse us, or we them.
    #[error("Kafka at {brokers} cannot be talked to: {cause}")]
    Refused {
        /// The addresses tried.
        brokers: String,
        /// What librdkafka said last, and what to do.
        cause: String,
    },
    /// librdkafka refused the configuration.
    #[error("Kafka's client library refused its configuration: {0}")]
    Config(String),
    /// A topic is not there.
    #[error(
        "Kafka has no topic `{0}`: it is created when a role starts; if it was deleted, the log is lost and must be begun anew"
    )]
    NoTopic(String),
    /// A topic could not be created.
    #[error("topic `{topic}` could not be created: {cause}")]
    CreateTopic {
        /// The topic.
        topic: String,
        /// What the broker said.
        cause: String,
    },
    /// Records were deleted before they were read.
    #[error(
        "the log no longer holds the records to read next ({0}): they were deleted by retention before they were read. \
         Keep records longer (kafka.retention_hours). Whoever follows the log only (verify, a gateway) needs a new start. \
         What a group like apply's has missed must be copied anew: stop capture, order `tandem resnapshot`, and set the \
         group's offset there to the earliest record (kafka-consumer-groups --reset-offsets)"
    )]
    OffsetOutOfRange(String),
    /// A request failed.
    #[error("{doing}: {cause}")]
    Request {
        /// What was being done.
        doing: String,
        /// What Kafka said.
        cause: String,
        /// Whether the same request may succeed later.
        retriable: bool,
    },
    /// A record's version header is no version.
    #[error("record {topic}[{partition}]@{offset} has a `tandem.version` header that is no number")]
    BadVersion {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// A schema was not registered in time.
    #[error(
        "schema {id} is not in the schema store after {}s: the store lost its schemas (the topic of schemas, or the registry), or the record is not of this log",
        waited.as_secs()
    )]
    UnknownSchema {
        /// The id.
        id: u32,
        /// How long was waited for it.
        waited: Duration,
    },
    /// Two schemas have one id.
    #[error("schema id {id} of subject `{subject}` already belongs to another schema: give this one a salt")]
    SchemaCollision {
        /// The id.
        id: u32,
        /// The subject that wanted it.
        subject: String,
    },
    /// The registry takes no schema that readers of the earlier one could not live with.
    #[error(
        "the schema registry refuses the new schema of `{subject}` as incompatible: {cause}. Tandem's own readers take \
         every schema: set the subject's compatibility to NONE (PUT /config/{subject} with {{\"compatibility\": \"NONE\"}}), or mend the table, and start again"
    )]
    IncompatibleSchema {
        /// The subject.
        subject: String,
        /// What the registry says.
        cause: String,
    },
    /// The registry refuses something.
    #[error("the schema registry at {url} refuses {doing} (HTTP {status}): {said}; {remedy}")]
    Registry {
        /// Its address.
        url: String,
        /// What was being done.
        doing: String,
        /// HTTP's status.
        status: u16,
        /// What it says.
        said: String,
        /// What to do.
        remedy: &'static str,
    },
    /// No registry answered.
    #[error(
        "no schema registry answered at {url} ({cause}): is it up, and are schema_registry.url and ca right?"
    )]
    RegistryUnreachable {
        /// Its address.
        url: String,
        /// What was met last.
        cause: String,
    },
    /// The registry does not have what it had.
    #[error(
        "the schema registry at {url} does not have the schema of id {id} that records of this log were written \
         with: {found}. It lost its schemas, or it is not the one that this log was begun with, and would give ids \
         that are taken to other schemas. Bring back its data (each id must mean what it meant), or migrate anew under \
         another kafka.prefix"
    )]
    LostSchemas {
        /// Its address.
        url: String,
        /// The id.
        id: u32,
        /// What it has instead.
        found: String,
    },
    /// A schema could not be read.
    #[error("schema {id}: {source}")]
    Schema {
        /// The id.
        id: u32,
        /// What is wrong with it.
        source: WireError,
    },
    /// Writing to the schema store failed.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The schema store is no longer followed, after an error that has been told.
    #[error("the schema store has ended, after an error told before: start again")]
    StoreEnded,
    /// The client has ended, after an error that it has already told, or because it was closed.
    #[error("the Kafka client has ended")]
    Closed,
}

impl ConsumeError {
    /// Whether trying again may help.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::RegistryUnreachable { .. }
            | Self::UnknownSchema { .. }
            | Self::Closed => true,
            Self::Request { retriable, .. } => *retriable,
            Self::Publish(error) => error.is_retriable(),
            _ => false,
        }
    }

    pub(crate) fn request(doing: impl Into<String>, error: &KafkaError) -> Self {
        Self::Request { doing: doing.into(), cause: error.to_string(), retriable: may_pass(error) }
    }
}

/// Writing to Kafka failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No broker answered.
    #[error(
        "no Kafka broker answered at {brokers} ({cause}): is Kafka up, and are kafka.brokers and kafka.security right?"
    )]
    Unreachable {
        /// The addresses tried.
        brokers: String,
        /// What librdkafka said last.
        cause: String,
    },
    /// The brokers refuse us, or we them.
    #[error("Kafka at {brokers} cannot be talked to: {cause}")]
    Refused {
        /// The addresses tried.
        brokers: String,
        /// What librdkafka said last, and what to do.
        cause: String,
    },
    /// librdkafka refused the configuration.
    #[error("Kafka's client library refused its configuration: {0}")]
    Config(String),
    /// Another publisher with the same transactional id has started.
    #[error("another `{id}` has taken over: this one publishes no more")]
    Fenced {
        /// The transactional id.
        id: String,
    },
    /// The transaction was aborted: nothing of it counts, to any reader.
    #[error("the Kafka transaction was aborted: {cause}")]
    Aborted {
        /// Why.
        cause: String,
        /// Whether the same batch may be published by the same publisher again.
        retriable: bool,
    },
    /// The publisher can no longer be used; whether the last transaction was committed is not
    /// known. A new publisher settles it: its start commits or aborts what the old one left.
    #[error("the publisher has failed: {0}")]
    Failed(String),
    /// The caller's last records could not be made; the transaction was aborted.
    #[error("the transaction was aborted: {0}")]
    Finish(BoxError),
    /// A record was refused or not acknowledged.
    #[error("a record for topic `{topic}` was not written: {cause}")]
    Rejected {
        /// The topic.
        topic: String,
        /// Why.
        cause: String,
        /// Whether sending it again may help.
        retriable: bool,
    },
    /// The client has ended.
    #[error("the Kafka client has ended")]
    Closed,
}

impl PublishError {
    /// Whether trying again, with a new publisher where this one has failed, may help.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Failed(_) | Self::Closed => true,
            Self::Aborted { retriable, .. } | Self::Rejected { retriable, .. } => *retriable,
            Self::Refused { .. } | Self::Config(_) | Self::Fenced { .. } | Self::Finish(_) => false,
        }
    }
}

/// Whether an error may pass by itself.
pub(crate) fn may_pass(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    if let KafkaError::Transaction(error) = error
        && error.is_retriable()
    {
        return true;
    }
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    !matches!(
        code,
        None | Some(
            Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::InvalidTopic
                | Code::MessageSizeTooLarge
                | Code::OffsetOutOfRange
                | Code::AutoOffsetReset
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::Fenced
                | Code::ProducerFenced
                | Code::InvalidProducerEpoch
        )
    )
}
