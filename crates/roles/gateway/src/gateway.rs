//! Starting, serving and stopping the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tandem_dead_letters::DeadLetters;
use tandem_http_api::{AccessToken, HttpListener, RequestRules, guarded, serve};
use tandem_model::TableName;
use tandem_mysql::Forgotten;
use tandem_table_states::TableStates;
use tandem_watermarks::{Applied, Watermarks};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{GatewayConfig, GatewayError, GatewayParts, Idempotency};
use crate::entity::Entity;
use crate::http::api::Api;
use crate::http::auth::Scope;
use crate::http::server::router;
use crate::phases::Phases;
use crate::read::live::Live;
use crate::read::reads::Reads;
use crate::read::recheck::Rechecks;
use crate::write::secondary::SecondaryWriter;
use crate::write::writes::Writes;
use crate::write_tokens::{Followers, WriteTokens};

/// Concurrent shadow reads at most. A shadow read beyond that is skipped.
const MAX_SHADOW_READS: usize = 64;
/// The pause after the last expired reply of an idempotency key was deleted.
const FORGET_EVERY: Duration = Duration::from_mins(1);

/// The data API. It is stateless: any number of gateways can run side by side.
pub struct Gateway {
    api: Arc<Api>,
    watermarks: Watermarks,
    letters: DeadLetters,
    states: TableStates,
    live: Live,
    tables: Vec<TableName>,
    idempotency: Option<Idempotency>,
    rules: RequestRules,
}

impl Gateway {
    /// Connects, reads the phase, and prepares to serve. [`Gateway::serve`] serves.
    ///
    /// # Errors
    ///
    /// Fails if a store or Kafka cannot be read, if two tables have the same entity name, or if a token's scope
    /// names an entity that does not exist.
    pub async fn start(parts: GatewayParts, config: GatewayConfig) -> Result<Self, GatewayError> {
        let GatewayParts {
            pool,
            mysql,
            target,
            kafka,
            layouts,
            entities: plans,
            left_out,
            metrics,
            watermark_timeout,
        } = parts;
        let topics = kafka.topics();
        let mut entities = BTreeMap::new();
        for (name, plan) in plans {
            let generated = pool.auto_increment(&plan.source().name).await?;
            let entity = Entity::new(name, plan, &topics, generated.as_deref());
            let entity = Arc::new(entity);
            if let Some(other) = entities.insert(entity.name.clone(), entity) {
                return Err(GatewayError::SameName(other.name.clone()));
            }
        }
        for entity in config.tokens.iter().flat_map(AccessToken::scopes).filter_map(Scope::entity) {
            if !entities.contains_key(entity) && !left_out.contains(entity) {
                return Err(GatewayError::NoSuchEntity(entity.to_owned()));
            }
        }
        if let Some(kept) = &config.idempotency {
            pool.create_idempotency_table(&kept.table).await?;
        }
        let phases = Phases::follow(&kafka).await.map_err(GatewayError::Control)?;
        let watermarks = Watermarks::follow(&kafka, watermark_timeout).await?;
        let applied = Applied::of(&kafka).map_err(GatewayError::Consume)?;
        let letters = DeadLetters::follow(&kafka).await?;
        let states = TableStates::follow(&kafka).await?;
        let change_topics: BTreeSet<String> = entities.values().map(|entity| entity.topic.clone()).collect();
        let change_topics = change_topics.into_iter().collect();
        let tasks = TaskTracker::new();
        let secondary = SecondaryWriter::start(
            &kafka,
            target.clone(),
            (watermarks.clone(), states.clone()),
            metrics.clone(),
            config.cassandra_write,
            config.max_async_dual_writes,
            tasks.clone(),
        )
        .await?;
        let rechecks = Rechecks::start(
            (mysql, target.clone()),
            (&kafka, secondary.producer.clone()),
            (watermarks.clone(), applied.clone()),
            letters.clone(),
            (states.clone(), layouts),
            entities.values(),
            metrics.clone(),
        )?;
        let tables: Vec<TableName> = entities.values().map(|entity| entity.table().name.clone()).collect();
        let live = Live::start(states.clone(), watermarks.clone(), &tables).await?;
        let followers = Followers { letters: letters.clone(), states: states.clone() };
        let write_tokens = WriteTokens::watch(watermarks.clone(), applied, followers, change_topics);
        let reads = Reads {
            pool: pool.clone(),
            target,
            health: Arc::clone(&secondary.health),
            phases: phases.clone(),
            write_tokens,
            token_wait: config.token_wait,
            letters: letters.clone(),
            live: live.clone(),
            rechecks,
            metrics: metrics.clone(),
            cassandra_limit: config.cassandra_read,
            cohort_headers: config.cohort_headers,
            shadows: Arc::new(Semaphore::new(MAX_SHADOW_READS)),
            tasks: tasks.clone(),
        };
        let writes = Writes {
            pool,
            secondary,
            metrics: metrics.clone(),
            idempotency_table: config.idempotency.as_ref().map(|kept| kept.table.clone()),
        };
        let api = Api {
            entities,
            left_out,
            phases,
            reads: Arc::new(reads),
            writes: Arc::new(writes),
            access_tokens: config.tokens,
            deadline: config.deadline,
            max_body: config.max_body,
            max_page: config.max_page,
            body_timeout: config.body_timeout,
            metrics,
            admission: Arc::new(Semaphore::new(config.max_in_flight)),
            tasks,
            stopping: CancellationToken::new(),
        };
        let (idempotency, rules) = (config.idempotency, config.rules);
        Ok(Self { api: Arc::new(api), watermarks, letters, states, live, tables, idempotency, rules })
    }

    /// Serves until `stop`, then finishes the requests in flight and their secondary writes.
    ///
    /// # Errors
    ///
    /// Fails if watermarks, dead letters or the states of tables can no longer be followed.
    pub async fn serve(self, listener: HttpListener, stop: CancellationToken) -> Result<(), GatewayError> {
        let Self { api, watermarks, letters, states, live, tables, idempotency, rules } = self;
        if let Some(kept) = idempotency {
            let (pool, stopping) = (api.writes.pool.clone(), api.stopping.clone());
            tokio::spawn(stopping.run_until_cancelled_owned(async move {
                loop {
                    match pool.forget_answers(&kept.table, kept.keep).await {
                        // More may be expired. They are deleted as fast as they come.
                        Ok(Forgotten::Some) => continue,
                        Ok(Forgotten::All) => {}
                        Err(error) => {
                            tracing::warn!(%error, "expired replies of idempotency keys were not deleted");
                        }
                    }
                    tokio::time::sleep(FORGET_EVERY).await;
                }
            }));
        }
        tokio::spawn({
            let stopping = api.stopping.clone();
            async move {
                stop.cancelled().await;
                stopping.cancel();
            }
        });
        tokio::spawn(api.stopping.clone().run_until_cancelled_owned({
            let api = Arc::clone(&api);
            async move { api.phases.report(&api.metrics).await }
        }));
        // Whatever ends it ends the gateway, too.
        tokio::spawn(
            api.stopping.clone().run_until_cancelled_owned(async move { live.until_captured(&tables).await }),
        );
        let router = guarded(router(Arc::clone(&api)), rules);
        let failed = tokio::select! {
            () = serve(listener, router, api.stopping.clone()) => None,
            ended = watermarks.ended() => Some(GatewayError::from(ended)),
            ended = letters.ended() => Some(ended.into()),
            ended = states.ended() => Some(ended.into()),
        };
        if let Some(error) = failed {
            // Connections that are open must not be served with what this gateway knows.
            api.stopping.cancel();
            return Err(error);
        }
        api.tasks.close();
        api.tasks.wait().await;
        api.writes.secondary.settle().await;
        Ok(())
    }
}
