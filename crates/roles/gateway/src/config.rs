//! The configuration of a gateway, its parts, and its start errors.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tandem_cassandra::Target;
use tandem_dead_letters::DeadLettersError;
use tandem_http_api::{AccessToken, RequestRules};
use tandem_kafka::{ConsumeError, KafkaConfig, PublishError};
use tandem_mapping::TablePlan;
use tandem_model::{Disposition, Remedy, TableName};
use tandem_mysql::{ClientPool, Mysql, MysqlError};
use tandem_protocol::mapping_in_use::Layouts;
use tandem_table_states::TableStatesError;
use tandem_watermarks::WatermarkError;
use tandem_wire::WireError;

use crate::http::auth::Scope;
use crate::metrics::Metrics;

/// The settings of a gateway.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Requests in flight at most. More are answered with 503.
    pub max_in_flight: usize,
    /// The largest request body, in bytes.
    pub max_body: usize,
    /// The largest page of a list, in bytes. A page has at least one row.
    pub max_page: usize,
    /// How long a request may take if it sets no deadline.
    pub deadline: Duration,
    /// How long Cassandra may take for a read before MySQL answers.
    pub cassandra_read: Duration,
    /// How long Cassandra may take for the secondary write.
    pub cassandra_write: Duration,
    /// How long a read waits until Cassandra has what its token stands for, before MySQL answers.
    pub token_wait: Duration,
    /// Secondary writes that may run after their responses.
    pub max_async_dual_writes: usize,
    /// The access tokens and their scopes. Empty means that every caller may do everything.
    pub tokens: Vec<AccessToken<Scope>>,
    /// Which requests the API accepts.
    pub rules: RequestRules,
    /// How long the body of a request may take.
    pub body_timeout: Duration,
    /// The headers that cohorts can use, in lower case.
    pub cohort_headers: Vec<String>,
    /// Where replies are stored by idempotency key. Without it, requests with a key are rejected.
    pub idempotency: Option<Idempotency>,
}

/// Where replies are stored by idempotency key.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// A table in MySQL. It is created if it does not exist.
    pub table: TableName,
    /// How long replies are kept.
    pub keep: Duration,
}

/// The connections and shared state that a gateway runs on.
pub struct GatewayParts {
    /// Connections for clients' reads and transactions.
    pub pool: ClientPool,
    /// The same server, for rechecks of rows that differed.
    pub mysql: Mysql,
    /// Cassandra, with statements prepared for the plans' tables.
    pub target: Target,
    /// The log.
    pub kafka: KafkaConfig,
    /// The layouts of the mapped tables.
    pub layouts: Arc<Layouts>,
    /// The mapped tables, each with its entity name if one is configured.
    pub entities: Vec<(Option<String>, Arc<TablePlan>)>,
    /// The entities of mapped tables that this process has no plan for, because they had halted when it started.
    pub left_out: BTreeSet<String>,
    /// The gateway's metrics.
    pub metrics: Metrics,
    /// How long the gateway waits for a watermark.
    pub watermark_timeout: Duration,
}

/// Why a gateway could not start or serve.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each variant is the error of the part it names
pub enum GatewayError {
    #[error("the phase cannot be read from the control topic: {0}")]
    Control(ConsumeError),
    #[error(transparent)]
    Consume(ConsumeError),
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    #[error(transparent)]
    DeadLetters(#[from] DeadLettersError),
    #[error(transparent)]
    States(#[from] TableStatesError),
    #[error("a table's key cannot be encoded as in the log: {0}")]
    Wire(#[from] WireError),
    #[error("two tables have the name `{0}` in the gateway: set `entity` of one of them")]
    SameName(String),
    #[error("a token of [[gateway.token]] has a scope for `{0}`, which is not an entity")]
    NoSuchEntity(String),
}

impl GatewayError {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Control(error) | Self::Consume(error) => error.retry(),
            Self::Watermark(error) => error.retry(),
            Self::Publish(error) => error.retry(),
            Self::Mysql(error) => error.retry(),
            Self::DeadLetters(error) => error.retry(),
            Self::States(error) => error.retry(),
            Self::Wire(error) => error.retry(),
            Self::SameName(_) | Self::NoSuchEntity(_) => Disposition::Stop,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Control(error) | Self::Consume(error) => error.remedy(),
            Self::Watermark(error) => error.remedy(),
            Self::DeadLetters(error) => error.remedy(),
            Self::States(error) => error.remedy(),
            Self::Publish(_) | Self::Mysql(_) | Self::Wire(_) | Self::SameName(_) | Self::NoSuchEntity(_) => {
                None
            }
        }
    }
}
