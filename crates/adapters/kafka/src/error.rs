//! Errors.

use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tandem_model::{Disposition, FollowUp, Remedy};
use tandem_wire::WireError;

/// An error of the caller.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A read, an administrative request or a query failed.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// No broker answered.
    #[error(
        "no Kafka broker answered at {brokers} ({cause}): is Kafka up, and are kafka.brokers and kafka.security right?"
    )]
    Unreachable {
        /// The addresses tried.
        brokers: String,
        /// librdkafka's last error.
        cause: String,
    },
    /// The brokers refuse the client, or the client does not trust the brokers.
    #[error("Kafka at {brokers} refused the connection, or is not trusted: {cause}")]
    Refused {
        /// The addresses tried.
        brokers: String,
        /// librdkafka's last error, and the remedy.
        cause: String,
    },
    /// librdkafka refused the configuration.
    #[error("Kafka's client library refused its configuration: {0}")]
    Config(String),
    /// A topic does not exist.
    #[error(
        "Kafka has no topic `{0}`: it is created when a role starts; if it was deleted, the log is lost and the migration must start again with a new one"
    )]
    NoTopic(String),
    /// A topic could not be created.
    #[error("topic `{topic}` could not be created: {cause}")]
    CreateTopic {
        /// The topic.
        topic: String,
        /// The broker's answer.
        cause: String,
    },
    /// Retention deleted records before they were read.
    #[error(
        "the log no longer holds the records to read next ({0}): they were deleted by retention before they were read. \
         A group such as apply's has missed changes, so every table must be copied again"
    )]
    OffsetOutOfRange(String),
    /// The member does not take the partitions that its group assigned to it.
    #[error("another member of the group may read, and this one may not")]
    NotAdmitted,
    /// A request failed.
    #[error("{doing}: {cause}")]
    Request {
        /// What was being done.
        doing: String,
        /// Kafka's answer.
        cause: String,
        /// What the caller does next.
        retry: Disposition,
    },
    /// A record's version header cannot be parsed.
    #[error("record {topic}[{partition}]@{offset} has a `tandem.version` header that is not a number")]
    BadVersion {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// A schema did not appear in the schema store in time.
    #[error(
        "schema {id} is not in the schema store after {}s: the store lost its schemas (the topic of schemas, or the registry), or the record does not belong to this log",
        waited.as_secs()
    )]
    UnknownSchema {
        /// The id.
        id: u32,
        /// How long the reader waited.
        waited: Duration,
    },
    /// Two schemas have the same id.
    #[error("schema id {id} of subject `{subject}` already belongs to another schema: give this one a salt")]
    SchemaCollision {
        /// The id.
        id: u32,
        /// The subject of the second schema.
        subject: String,
    },
    /// The registry refuses a schema because it is incompatible with the previous one.
    #[error(
        "the schema registry refuses the new schema of `{subject}` as incompatible: {cause}. Tandem's own readers accept \
         every schema: set the subject's compatibility to NONE (PUT /config/{subject} with {{\"compatibility\": \"NONE\"}}), or fix the table, and start again"
    )]
    IncompatibleSchema {
        /// The subject.
        subject: String,
        /// The registry's message.
        cause: String,
    },
    /// The registry refuses a request.
    #[error("the schema registry at {url} refuses {doing} (HTTP {status}): {said}; {remedy}")]
    Registry {
        /// Its address.
        url: String,
        /// What was being done.
        doing: String,
        /// The HTTP status.
        status: u16,
        /// The registry's message.
        said: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// No registry answered.
    #[error(
        "no schema registry answered at {url} ({cause}): is it up, and are schema_registry.url and ca right?"
    )]
    RegistryUnreachable {
        /// Its address.
        url: String,
        /// The last problem.
        cause: String,
    },
    /// The registry has lost schemas.
    #[error(
        "the schema registry at {url} does not have the schema of id {id} that records of this log were written \
         with: {found}. It lost its schemas, or it is not the registry that this log started with. It would assign \
         used ids to other schemas. Restore its data (each id must keep its schema), or start a new migration under \
         another kafka.prefix"
    )]
    LostSchemas {
        /// Its address.
        url: String,
        /// The id.
        id: u32,
        /// What the registry has under this id.
        found: String,
    },
    /// A schema cannot be parsed.
    #[error("schema {id}: {source}")]
    Schema {
        /// The id.
        id: u32,
        /// What is wrong with it.
        source: WireError,
    },
    /// A write to the schema store failed.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The task that follows the schema store has ended after an error, which it has reported.
    #[error("the schema store has stopped after an error that was reported earlier: start again")]
    StoreEnded,
    /// The client has ended: it was closed, or it has already reported an error.
    #[error("the Kafka client has ended")]
    Closed,
}

impl ConsumeError {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Unreachable { .. }
            | Self::RegistryUnreachable { .. }
            | Self::UnknownSchema { .. }
            | Self::NotAdmitted
            | Self::Closed => Disposition::Retry,
            Self::Request { retry, .. } => *retry,
            Self::Publish(error) => error.retry(),
            Self::Schema { source, .. } => source.retry(),
            Self::BadVersion { .. } => Disposition::Refuse,
            Self::Refused { .. }
            | Self::Config(_)
            | Self::NoTopic(_)
            | Self::CreateTopic { .. }
            | Self::OffsetOutOfRange(_)
            | Self::SchemaCollision { .. }
            | Self::IncompatibleSchema { .. }
            | Self::Registry { .. }
            | Self::LostSchemas { .. }
            | Self::StoreEnded => Disposition::Stop,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::OffsetOutOfRange(_) => Some(
                Remedy::new("for a consumer group such as apply's: stop capture")
                    .then(FollowUp::Resnapshot)
                    .afterwards(
                        "set the group's offset there to the earliest record (kafka-consumer-groups \
                         --reset-offsets), and keep records longer (kafka.retention_hours)",
                    )
                    .or("for a process that only follows the log (verify, a gateway): start it again"),
            ),
            Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::Config(_)
            | Self::NoTopic(_)
            | Self::CreateTopic { .. }
            | Self::Request { .. }
            | Self::NotAdmitted
            | Self::BadVersion { .. }
            | Self::UnknownSchema { .. }
            | Self::SchemaCollision { .. }
            | Self::IncompatibleSchema { .. }
            | Self::Registry { .. }
            | Self::RegistryUnreachable { .. }
            | Self::LostSchemas { .. }
            | Self::Schema { .. }
            | Self::Publish(_)
            | Self::StoreEnded
            | Self::Closed => None,
        }
    }

    pub(crate) fn request(doing: impl Into<String>, error: &KafkaError) -> Self {
        Self::Request { doing: doing.into(), cause: error.to_string(), retry: disposition(error) }
    }
}

/// A write to Kafka failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No broker answered.
    #[error(
        "no Kafka broker answered at {brokers} ({cause}): is Kafka up, and are kafka.brokers and kafka.security right?"
    )]
    Unreachable {
        /// The addresses tried.
        brokers: String,
        /// librdkafka's last error.
        cause: String,
    },
    /// The brokers refuse the client, or the client does not trust the brokers.
    #[error("Kafka at {brokers} refused the connection, or is not trusted: {cause}")]
    Refused {
        /// The addresses tried.
        brokers: String,
        /// librdkafka's last error, and the remedy.
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
    /// The transaction was aborted. No reader sees any of its records.
    #[error("the Kafka transaction was aborted: {cause}")]
    Aborted {
        /// Why.
        cause: String,
        /// What the caller does next. The same publisher may publish another batch, or retry this one.
        retry: Disposition,
    },
    /// The publisher can no longer be used, and the outcome of its last transaction is unknown. The start of
    /// a new publisher resolves it: it commits or aborts the old transaction.
    #[error("the publisher has failed: {0}")]
    Failed(String),
    /// The caller's `finish` failed, and the transaction was aborted.
    #[error("the transaction was aborted: {0}")]
    Finish(BoxError),
    /// A record was refused or not acknowledged.
    #[error("a record for topic `{topic}` was not written: {cause}")]
    Rejected {
        /// The topic.
        topic: String,
        /// Why.
        cause: String,
        /// What the caller does next.
        retry: Disposition,
    },
    /// The client has ended.
    #[error("the Kafka client has ended")]
    Closed,
}

impl PublishError {
    /// What the caller does next. A retry needs a new publisher if this one has failed.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Unreachable { .. } | Self::Failed(_) | Self::Closed => Disposition::Retry,
            Self::Aborted { retry, .. } | Self::Rejected { retry, .. } => *retry,
            Self::Refused { .. } | Self::Config(_) | Self::Fenced { .. } | Self::Finish(_) => {
                Disposition::Stop
            }
        }
    }
}

/// What follows from an error of librdkafka. It has many codes, and most pass by themselves.
pub(crate) fn disposition(error: &KafkaError) -> Disposition {
    use RDKafkaErrorCode as Code;
    if let KafkaError::Transaction(error) = error
        && error.is_retriable()
    {
        return Disposition::Retry;
    }
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    match code {
        Some(Code::MessageSizeTooLarge) => Disposition::Refuse,
        None
        | Some(
            Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::InvalidTopic
            | Code::OffsetOutOfRange
            | Code::AutoOffsetReset
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::Fenced
            | Code::ProducerFenced
            | Code::InvalidProducerEpoch,
        ) => Disposition::Stop,
        Some(_) => Disposition::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_follows() {
        use Disposition::{Refuse, Retry, Stop};
        use RDKafkaErrorCode as Code;
        for (code, expected) in [
            (Code::AllBrokersDown, Retry),
            (Code::LeaderNotAvailable, Retry),
            (Code::RequestTimedOut, Retry),
            (Code::MessageSizeTooLarge, Refuse),
            (Code::UnknownTopic, Stop),
            (Code::OffsetOutOfRange, Stop),
            (Code::TopicAuthorizationFailed, Stop),
            (Code::ProducerFenced, Stop),
        ] {
            let failed = KafkaError::Global(code);
            let request = ConsumeError::request("asking", &failed);
            assert_eq!((disposition(&failed), request.retry()), (expected, expected), "{code:?}");
        }
        let (brokers, cause) = ("b:9092".to_owned(), "down".to_owned());
        let corrupt = WireError::Corrupt("no zero byte");
        for (error, expected) in [
            (ConsumeError::Unreachable { brokers: brokers.clone(), cause: cause.clone() }, Retry),
            (ConsumeError::UnknownSchema { id: 1, waited: Duration::ZERO }, Retry),
            (ConsumeError::Closed, Retry),
            (ConsumeError::Refused { brokers: brokers.clone(), cause: cause.clone() }, Stop),
            (ConsumeError::NoTopic("t".into()), Stop),
            (ConsumeError::OffsetOutOfRange("t".into()), Stop),
            (ConsumeError::StoreEnded, Stop),
            (ConsumeError::BadVersion { topic: "t".into(), partition: 0, offset: 1 }, Refuse),
            (ConsumeError::Schema { id: 1, source: corrupt }, Refuse),
            (ConsumeError::Publish(PublishError::Closed), Retry),
        ] {
            assert_eq!(error.retry(), expected, "{error:?}");
        }
        for (error, expected) in [
            (PublishError::Unreachable { brokers: brokers.clone(), cause: cause.clone() }, Retry),
            (PublishError::Failed(cause.clone()), Retry),
            (PublishError::Aborted { cause: cause.clone(), retry: Retry }, Retry),
            (PublishError::Rejected { topic: "t".into(), cause: cause.clone(), retry: Refuse }, Refuse),
            (PublishError::Refused { brokers, cause }, Stop),
            (PublishError::Fenced { id: "capture".into() }, Stop),
            (PublishError::Finish("no watermark".into()), Stop),
        ] {
            assert_eq!(error.retry(), expected, "{error:?}");
        }
    }
}
