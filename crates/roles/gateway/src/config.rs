//! What a gateway is made of and how it works.

use std::sync::Arc;
use std::time::Duration;

use tandem_cassandra::Target;
use tandem_kafka::{ConsumeError, KafkaConfig, PublishError};
use tandem_mapping::TablePlan;
use tandem_model::TableName;
use tandem_mysql::{ClientPool, Mysql, MysqlError};
use tandem_watermarks::WatermarkError;
use tandem_wire::WireError;

use crate::http::auth::AccessToken;
use crate::metrics::Metrics;

/// How the gateway works.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Requests under way at most; more are answered with 503.
    pub max_in_flight: usize,
    /// Bytes of a body at most.
    pub max_body: usize,
    /// How long a request may take that names no deadline.
    pub deadline: Duration,
    /// How long Cassandra may take for a read before MySQL answers.
    pub cassandra_read: Duration,
    /// How long Cassandra may take for the secondary write.
    pub cassandra_write: Duration,
    /// Secondary writes that may run after their answers.
    pub max_async_dual_writes: usize,
    /// Who may do what; empty: everybody everything.
    pub tokens: Vec<AccessToken>,
    /// Headers by which a cohort may be told, in small letters.
    pub cohort_headers: Vec<String>,
    /// Where answers are kept by idempotency keys; without it the keys are refused.
    pub idempotency: Option<Idempotency>,
}

/// Where answers are kept by idempotency keys.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// A table in MySQL, created if it is not there.
    pub table: TableName,
    /// For how long they are kept.
    pub keep: Duration,
}

/// What a gateway is made of.
pub struct GatewayParts {
    /// Connections for clients' reads and transactions.
    pub pool: ClientPool,
    /// The same server, for looking again at rows that differed.
    pub mysql: Mysql,
    /// Cassandra, the plans' tables prepared.
    pub target: Target,
    /// The log.
    pub kafka: KafkaConfig,
    /// The mapped tables, each with its name in the gateway, if it has one.
    pub entities: Vec<(Option<String>, Arc<TablePlan>)>,
    /// What is counted.
    pub metrics: Metrics,
    /// How long a watermark is waited for.
    pub watermark_timeout: Duration,
}

/// Why a gateway could not be started.
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
    #[error("a table's key cannot be written as the log has it: {0}")]
    Wire(#[from] WireError),
    #[error("two tables have the name `{0}` in the gateway: set `entity` of one of them")]
    SameName(String),
    #[error("a token of [[gateway.token]] has a scope for `{0}`, which is no entity")]
    NoSuchEntity(String),
    #[error("serving stopped: {0}")]
    Serve(#[from] std::io::Error),
}
