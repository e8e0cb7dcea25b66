//! The gateway: what its requests share, and its start.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tandem_cassandra_target::Target;
use tandem_event_log::{ConsumeError, KafkaConfig, PublishError, Topics};
use tandem_mapping::TablePlan;
use tandem_model::TableName;
use tandem_mysql_source::{ClientPool, Mysql, MysqlError};
use tandem_watermarks::{Applied, WatermarkError, Watermarks};
use tandem_wire::WireError;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Token;
use crate::confirm::Confirmations;
use crate::dual::DualWriter;
use crate::entity::Entity;
use crate::http;
use crate::metrics::Metrics;
use crate::phases::Phases;
use crate::tokens::Tokens;

/// Shadow reads under way at most; beyond that they are left out.
const SHADOWS: usize = 64;
/// How often old answers are forgotten.
const FORGET_EVERY: Duration = Duration::from_mins(1);

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
    /// How long Cassandra may take for the second leg of a write.
    pub cassandra_write: Duration,
    /// Second legs that may be behind their answers.
    pub max_behind: usize,
    /// Who may do what; empty: everybody everything.
    pub tokens: Vec<Token>,
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
    pub patience: Duration,
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

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) entities: BTreeMap<String, Arc<Entity>>,
    pub(crate) pool: ClientPool,
    pub(crate) phases: Phases,
    pub(crate) watermarks: Watermarks,
    pub(crate) tokens: Tokens,
    pub(crate) confirmations: Confirmations,
    pub(crate) dual: DualWriter,
    pub(crate) config: GatewayConfig,
    pub(crate) metrics: Metrics,
    pub(crate) admission: Arc<Semaphore>,
    pub(crate) shadows: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

/// The data API. Stateless: any number run beside each other.
pub struct Gateway {
    shared: Arc<Shared>,
}

impl Gateway {
    /// Reads the phase and gets ready. Nothing is served yet.
    pub async fn start(parts: GatewayParts, config: GatewayConfig) -> Result<Self, GatewayError> {
        let GatewayParts { pool, mysql, target, kafka, entities: plans, metrics, patience } = parts;
        let topics = Topics::new(&kafka.prefix);
        let mut entities = BTreeMap::new();
        for (name, plan) in plans {
            let generated = pool.auto_increment(&plan.source().name).await?;
            let topic = topics.changes(&plan.source().name);
            let entity = Entity::new(name, plan, topic, generated.as_deref(), &kafka.prefix);
            let entity = Arc::new(entity);
            if let Some(other) = entities.insert(entity.name.clone(), entity) {
                return Err(GatewayError::SameName(other.name.clone()));
            }
        }
        for entity in config.tokens.iter().flat_map(Token::entities) {
            if !entities.contains_key(entity) {
                return Err(GatewayError::NoSuchEntity(entity.to_owned()));
            }
        }
        if let Some(kept) = &config.idempotency {
            pool.create_idempotency_table(&kept.table).await?;
        }
        let phases = Phases::follow(&kafka).await.map_err(GatewayError::Control)?;
        let watermarks = Watermarks::follow(&kafka, patience).await?;
        let applied = Applied::of(&kafka).map_err(GatewayError::Consume)?;
        let change_topics = entities.values().map(|entity| entity.topic.clone()).collect();
        let tasks = TaskTracker::new();
        let dual = DualWriter::start(
            &kafka,
            target.clone(),
            watermarks.clone(),
            metrics.clone(),
            &config,
            tasks.clone(),
        )
        .await?;
        let confirmations = Confirmations::start(
            (mysql, target),
            (&kafka, dual.producer.clone()),
            (watermarks.clone(), applied.clone()),
            entities.values(),
            metrics.clone(),
        )?;
        let shared = Shared {
            entities,
            pool,
            phases,
            tokens: Tokens::watch(watermarks.clone(), applied, change_topics),
            confirmations,
            dual,
            watermarks,
            admission: Arc::new(Semaphore::new(config.max_in_flight)),
            shadows: Arc::new(Semaphore::new(SHADOWS)),
            config,
            metrics,
            tasks,
            stopping: CancellationToken::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves until `stop`; then finishes the requests under way and the writes behind them.
    pub async fn serve<L: Listener<Addr: Debug>>(
        self,
        listener: L,
        stop: CancellationToken,
    ) -> Result<(), GatewayError> {
        let shared = self.shared;
        if let Some(kept) = shared.config.idempotency.clone() {
            let (pool, stopping) = (shared.pool.clone(), shared.stopping.clone());
            tokio::spawn(stopping.run_until_cancelled_owned(async move {
                loop {
                    if let Err(error) = pool.forget_answers(&kept.table, kept.keep).await {
                        tracing::warn!(%error, "old answers of idempotency keys were not forgotten");
                    }
                    tokio::time::sleep(FORGET_EVERY).await;
                }
            }));
        }
        let draining = {
            let stopping = shared.stopping.clone();
            async move {
                stop.cancelled().await;
                stopping.cancel();
            }
        };
        tokio::spawn(shared.stopping.clone().run_until_cancelled_owned({
            let shared = Arc::clone(&shared);
            async move { shared.phases.report(&shared.metrics).await }
        }));
        let router = http::router(Arc::clone(&shared));
        let serving = axum::serve(listener, router).with_graceful_shutdown(draining).into_future();
        tokio::select! {
            served = serving => served?,
            ended = shared.watermarks.ended() => return Err(ended.into()),
        }
        shared.tasks.close();
        shared.tasks.wait().await;
        shared.dual.settle().await;
        Ok(())
    }
}
