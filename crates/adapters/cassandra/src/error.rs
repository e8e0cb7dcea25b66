//! Errors, and which of them are transient.

use std::ops::Range;
use std::sync::Arc;

use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, PrepareError, RequestAttemptError,
};
use tandem_model::Disposition;

/// Why [`crate::Target::connect`] failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration is invalid.
    #[error("cassandra: {0}")]
    Config(String),
    /// No node answered.
    #[error(
        "no Cassandra node answered at {}: {cause}; check `nodes`, that Cassandra is up, and that its \
         native_transport_port can be reached from here",
        .nodes.join(", ")
    )]
    Unreachable {
        /// The contact points tried.
        nodes: Vec<String>,
        /// The last one's error.
        cause: String,
    },
    /// The cluster refuses the credentials.
    #[error("Cassandra refused the login: {cause}; set `user` and `password` of [cassandra]")]
    Authentication {
        /// Cassandra's message.
        cause: String,
    },
    /// The cluster has several data centres, and the local one cannot be determined.
    #[error(
        "cannot tell which of Cassandra's data centres ({}) is the local one; let the first of `nodes` be an \
         address that a node announces (its rpc_address)",
        .datacenters.join(", ")
    )]
    Datacenter {
        /// The cluster's data centres.
        datacenters: Vec<String>,
    },
    /// The cluster does not use the Murmur3 partitioner.
    #[error("the cluster uses {partitioner}; Tandem scans by the tokens of Murmur3Partitioner only")]
    Partitioner {
        /// The partitioner's class.
        partitioner: String,
    },
}

impl ConnectError {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Unreachable { .. } => Disposition::Retry,
            Self::Config(_)
            | Self::Authentication { .. }
            | Self::Datacenter { .. }
            | Self::Partitioner { .. } => Disposition::Stop,
        }
    }
}

/// Why a schema operation failed.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Cassandra did not answer within the retries.
    #[error("could not {action}: Cassandra does not answer: {cause}; try again when it does")]
    Unavailable {
        /// The attempted action.
        action: String,
        /// The last error.
        cause: String,
    },
    /// Cassandra refused the request.
    #[error("could not {action}: {cause}")]
    Refused {
        /// The attempted action.
        action: String,
        /// Cassandra's message.
        cause: String,
    },
    /// Tandem cannot write a column.
    #[error("column `{column}` of table `{table}`: {cause}; leave it to a table that Tandem does not write")]
    Column {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl SchemaError {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Unavailable { .. } => Disposition::Retry,
            Self::Refused { .. } | Self::Column { .. } => Disposition::Stop,
        }
    }
}

/// Why a write can never succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// [`crate::Target::prepare`] was not called for this table.
    #[error("the table was not prepared")]
    NotPrepared,
    /// The number of key parts or cells differs from the prepared statement's.
    #[error("{0}; the plan and the prepared table do not agree")]
    Shape(String),
    /// The table or one of its columns no longer exists.
    #[error("Cassandra no longer has the table as it was prepared: {0}; run the schema check")]
    SchemaChanged(String),
    /// The user may not write to the table.
    #[error("Cassandra does not let this user write: {0}; grant MODIFY on the table")]
    Unauthorized(String),
    /// Cassandra or its protocol cannot store this row.
    #[error("Cassandra refuses the row: {0}")]
    Row(String),
}

impl Rejection {
    /// Whether the failure concerns all rows of the table, or `None` if it says nothing about the table: then every write
    /// of this process would fail alike.
    pub fn concerns_table(&self) -> Option<bool> {
        match self {
            Self::Row(_) => Some(false),
            Self::SchemaChanged(_) | Self::Unauthorized(_) | Self::NotPrepared => Some(true),
            Self::Shape(_) => None,
        }
    }

    /// What the caller does next. Only [`Self::Row`] concerns one row; with the others every write to the
    /// table fails.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Row(_) => Disposition::Refuse,
            Self::NotPrepared | Self::Shape(_) | Self::SchemaChanged(_) | Self::Unauthorized(_) => {
                Disposition::Stop
            }
        }
    }
}

/// Mutations of one row that Cassandra refused together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedWrite {
    /// The positions of the mutations in the call's list.
    pub mutations: Range<usize>,
    /// The target table.
    pub target: Arc<str>,
    /// Why.
    pub rejection: Rejection,
}

/// Some mutations can never be written. All other mutations of the same call are durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of the writes were refused; the first, to table `{}`: {}", .failed.len(), .failed[0].target, .failed[0].rejection)]
pub struct WriteError {
    /// The failures, in the order of the mutations. Never empty.
    pub failed: Vec<FailedWrite>,
}

impl WriteError {
    /// What the caller does next: refuse the failed rows, unless one failure concerns a whole table.
    /// Transient failures are never reported; the write retries them.
    pub fn retry(&self) -> Disposition {
        let rows_only = self.failed.iter().all(|failed| failed.rejection.retry() == Disposition::Refuse);
        if rows_only { Disposition::Refuse } else { Disposition::Stop }
    }
}

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// [`crate::Target::prepare`] was not called for this table.
    #[error("table `{target}` was not prepared")]
    NotPrepared {
        /// The target table.
        target: String,
    },
    /// Cassandra did not answer within the retries.
    #[error("could not read table `{target}`: Cassandra does not answer: {cause}; try again when it does")]
    Unavailable {
        /// The target table.
        target: String,
        /// The last error.
        cause: String,
    },
    /// Cassandra refused the read, or its answer does not match the query.
    #[error("could not read table `{target}`: {cause}; run the schema check")]
    Refused {
        /// The target table.
        target: String,
        /// Cassandra's message.
        cause: String,
    },
}

impl ReadError {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Unavailable { .. } => Disposition::Retry,
            Self::NotPrepared { .. } | Self::Refused { .. } => Disposition::Stop,
        }
    }
}

/// Whether a failed request may be retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A retry may succeed.
    Transient(String),
    /// A retry cannot succeed.
    Permanent(Rejection),
}

impl From<&ExecutionError> for Failure {
    fn from(error: &ExecutionError) -> Self {
        match error {
            ExecutionError::BadQuery(e) => Self::Permanent(Rejection::Row(e.to_string())),
            ExecutionError::LastAttemptError(e) => e.into(),
            ExecutionError::PrepareError(e) => e.into(),
            e => Self::Transient(e.to_string()),
        }
    }
}

impl From<&PrepareError> for Failure {
    fn from(error: &PrepareError) -> Self {
        match error {
            PrepareError::AllAttemptsFailed { first_attempt } => first_attempt.into(),
            e => Self::Transient(e.to_string()),
        }
    }
}

impl From<&RequestAttemptError> for Failure {
    fn from(error: &RequestAttemptError) -> Self {
        match error {
            RequestAttemptError::SerializationError(e) => Self::Permanent(Rejection::Row(e.to_string())),
            RequestAttemptError::CqlRequestSerialization(e) => Self::Permanent(Rejection::Row(e.to_string())),
            RequestAttemptError::RepreparedIdChanged { .. }
            | RequestAttemptError::RepreparedIdMissingInBatch => Self::Permanent(Rejection::SchemaChanged(
                "a statement got another id when it was prepared again".into(),
            )),
            RequestAttemptError::DbError(kind, message) => database(kind, message),
            e => Self::Transient(e.to_string()),
        }
    }
}

/// Classifies an error code of the native protocol v4, section 9.
fn database(kind: &DbError, message: &str) -> Failure {
    match kind {
        DbError::Unauthorized | DbError::AuthenticationError => {
            Failure::Permanent(Rejection::Unauthorized(message.to_owned()))
        }
        DbError::Invalid if names_schema(message) => {
            Failure::Permanent(Rejection::SchemaChanged(message.to_owned()))
        }
        DbError::SyntaxError | DbError::ConfigError | DbError::AlreadyExists { .. } => {
            Failure::Permanent(Rejection::SchemaChanged(message.to_owned()))
        }
        DbError::Invalid | DbError::FunctionFailure { .. } | DbError::ProtocolError => {
            Failure::Permanent(Rejection::Row(message.to_owned()))
        }
        kind => Failure::Transient(format!("{kind}: {message}")),
    }
}

/// Whether an "invalid" answer refers to a missing table or column. Cassandra has no separate error code for
/// it.
fn names_schema(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["unconfigured table", "does not exist", "undefined column", "unknown identifier"]
        .iter()
        .any(|p| message.contains(p))
}

impl ConnectError {
    pub(crate) fn new_session(error: &NewSessionError, nodes: &[String]) -> Self {
        if let NewSessionError::MetadataError(MetadataError::ConnectionPoolError(
            ConnectionPoolError::Broken {
                last_connection_error: ConnectionError::ConnectionSetupRequestError(setup),
                ..
            },
        )) = error
        {
            match setup.get_error() {
                ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError, message) => {
                    return Self::Authentication { cause: message.clone() };
                }
                ConnectionSetupRequestErrorKind::MissingAuthentication => {
                    return Self::Authentication { cause: "it asks for a user and a password".into() };
                }
                _ => {}
            }
        }
        Self::Unreachable { nodes: nodes.to_vec(), cause: error.to_string() }
    }
}

impl SchemaError {
    pub(crate) fn new(action: &str, failure: Failure) -> Self {
        let action = action.to_owned();
        match failure {
            Failure::Transient(cause) => Self::Unavailable { action, cause },
            Failure::Permanent(
                Rejection::Shape(cause)
                | Rejection::SchemaChanged(cause)
                | Rejection::Unauthorized(cause)
                | Rejection::Row(cause),
            ) => Self::Refused { action, cause },
            Failure::Permanent(rejection @ Rejection::NotPrepared) => {
                Self::Refused { action, cause: rejection.to_string() }
            }
        }
    }
}

impl ReadError {
    pub(crate) fn new(target: &str, failure: Failure) -> Self {
        let target = target.to_owned();
        match failure {
            Failure::Transient(cause) => Self::Unavailable { target, cause },
            Failure::Permanent(rejection) => Self::Refused { target, cause: rejection.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(kind: DbError, message: &str) -> Failure {
        (&ExecutionError::LastAttemptError(RequestAttemptError::DbError(kind, message.into()))).into()
    }

    #[test]
    fn transient_failures_are_distinguished_from_permanent_ones() {
        let unavailable =
            DbError::Unavailable { consistency: scylla::statement::Consistency::One, required: 1, alive: 0 };
        for kind in [unavailable, DbError::Overloaded, DbError::IsBootstrapping, DbError::ServerError] {
            assert!(matches!(classified(kind, ""), Failure::Transient(_)));
        }
        assert!(matches!(
            Failure::from(&ExecutionError::RequestTimeout(std::time::Duration::from_secs(1))),
            Failure::Transient(_)
        ));
        assert_eq!(
            classified(DbError::Invalid, "table k.t does not exist"),
            Failure::Permanent(Rejection::SchemaChanged("table k.t does not exist".into()))
        );
        assert_eq!(
            classified(DbError::Invalid, "Key may not be empty"),
            Failure::Permanent(Rejection::Row("Key may not be empty".into()))
        );
        assert_eq!(
            classified(DbError::Unauthorized, "no"),
            Failure::Permanent(Rejection::Unauthorized("no".into()))
        );
    }

    #[test]
    fn each_error_says_what_follows() {
        use Disposition::{Refuse, Retry, Stop};
        let write = |rejections: &[Rejection]| WriteError {
            failed: rejections
                .iter()
                .map(|r| FailedWrite { mutations: 0..1, target: "t".into(), rejection: r.clone() })
                .collect(),
        };
        let (row, right) = (Rejection::Row("no".into()), Rejection::Unauthorized("no".into()));
        for (rejection, expected) in [
            (Rejection::NotPrepared, Stop),
            (Rejection::Shape("3 cells".into()), Stop),
            (Rejection::SchemaChanged("no table".into()), Stop),
            (right.clone(), Stop),
            (row.clone(), Refuse),
        ] {
            assert_eq!(rejection.retry(), expected, "{rejection:?}");
            assert_eq!(write(&[rejection]).retry(), expected);
        }
        assert_eq!(write(&[row.clone(), row.clone()]).retry(), Refuse);
        assert_eq!(write(&[row, right]).retry(), Stop);

        let (transient, permanent) =
            (Failure::Transient("down".into()), Failure::Permanent(Rejection::Row("no".into())));
        assert_eq!(ReadError::new("t", transient.clone()).retry(), Retry);
        assert_eq!(ReadError::new("t", permanent.clone()).retry(), Stop);
        assert_eq!(ReadError::NotPrepared { target: "t".into() }.retry(), Stop);
        assert_eq!(SchemaError::new("read", transient).retry(), Retry);
        assert_eq!(SchemaError::new("read", permanent).retry(), Stop);
        let nowhere = ConnectError::Unreachable { nodes: vec!["n".into()], cause: "refused".into() };
        assert_eq!(nowhere.retry(), Retry);
        assert_eq!(ConnectError::Authentication { cause: "no".into() }.retry(), Stop);
    }
}
