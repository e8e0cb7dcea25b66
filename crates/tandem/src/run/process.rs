//! What the roles of one process share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use prometheus_client::registry::Registry;
use tandem_capture::Capture;
use tandem_kafka::{SchemaStore, topic_specs};
use tandem_runtime::{Waits, now_us};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::connect::servers::{Servers, target_tables};
use crate::role::Role;
use crate::run::role_states::RoleStates;
use crate::run::telemetry::Telemetry;

/// The metrics of the roles in this process.
#[derive(Default)]
pub(super) struct Metrics {
    pub(super) capture: tandem_capture::Metrics,
    pub(super) apply: tandem_apply::Metrics,
    pub(super) backfill: tandem_backfill::Metrics,
    pub(super) verify: tandem_verify::Metrics,
    pub(super) reverse: tandem_reverse::Metrics,
    pub(super) gateway: tandem_gateway::Metrics,
    pub(super) controller: tandem_controller::Metrics,
}

impl Metrics {
    /// The metrics of roles that show in `waits` what they wait for.
    pub(super) fn waiting_in(waits: &Waits) -> Self {
        let mut metrics = Self::default();
        metrics.capture.waits = waits.clone();
        metrics.backfill.waits = waits.clone();
        metrics.verify.waits = waits.clone();
        metrics.controller.waits = waits.clone();
        metrics
    }

    pub(super) fn registry(&self, roles: &[Role]) -> Registry {
        let mut registry = Registry::default();
        for role in roles {
            match role {
                Role::Capture => self.capture.register(&mut registry),
                Role::Apply => self.apply.register(&mut registry),
                Role::Backfill => self.backfill.register(&mut registry),
                Role::Reconcile if roles.contains(&Role::Verify) => {}
                Role::Verify | Role::Reconcile => self.verify.register(&mut registry),
                Role::Reverse => self.reverse.register(&mut registry),
                Role::Gateway => self.gateway.register(&mut registry),
                Role::Controller => self.controller.register(&mut registry),
            }
        }
        registry
    }
}

/// The roles of this process, and what they share.
pub(super) struct Process<'a> {
    pub(super) config: &'a Config,
    pub(super) roles: &'a [Role],
    pub(super) metrics: Metrics,
    pub(super) states: RoleStates,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) stop: CancellationToken,
    /// Whether the process has connected to its stores, and created the topics.
    pub(super) connected: AtomicBool,
    /// Where the process serves its metrics.
    pub(super) listen: SocketAddr,
}

impl Process<'_> {
    /// Whether the process runs one role only.
    pub(super) fn alone(&self) -> bool {
        self.roles.len() == 1
    }

    /// Whether the process runs the role.
    pub(super) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// The stores that roles use, with the tables' definitions and the log's schemas.
pub(super) struct Stores {
    /// When the tables' definitions began to be read, in microseconds since the epoch.
    pub(super) read_at_us: i64,
    pub(super) servers: Servers,
    pub(super) schemas: SchemaStore,
}

/// The newest stores. Roles that run keep those that they started with.
pub(super) struct NewestStores {
    newest: Mutex<Arc<Stores>>,
}

impl NewestStores {
    pub(super) fn new(stores: Stores) -> Self {
        Self { newest: Mutex::new(Arc::new(stores)) }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Stores>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process<'_> {
    /// Connects to the stores, prepares the statements, creates missing topics and opens the schema store.
    pub(super) async fn connect(&self) -> Result<Stores> {
        let read_at_us = now_us();
        let servers = Servers::connect(self.config, self.roles).await?;
        if let Some(target) = &servers.target {
            target.prepare(&target_tables(&servers.plans)).await?;
        }
        servers.admin.ensure_topics(&topic_specs(&servers.kafka, &self.config.tables()?)).await?;
        let schemas = SchemaStore::open(&servers.kafka).await?;
        self.telemetry.set_schemas(schemas.clone());
        Ok(Stores { read_at_us, servers, schemas })
    }

    /// The stores for a role's start: the first time those that the process began with. A restart connects again, as a new
    /// process would, and so reads altered tables, rotated secrets and a schema store whose reader has not ended. If that
    /// fails, the role starts with what was known before: it may not need the store that is away.
    pub(super) async fn stores(&self, newest: &NewestStores, starts: &AtomicUsize) -> Arc<Stores> {
        if starts.fetch_add(1, Ordering::Relaxed) > 0 {
            match self.connect().await {
                Ok(stores) => *newest.lock() = Arc::new(stores),
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "a role starts again without having connected anew"
                    );
                }
            }
        }
        Arc::clone(&newest.lock())
    }
}

/// The configured capture.
pub(crate) fn capture_of(
    config: &Config,
    servers: &Servers,
    schemas: &SchemaStore,
    metrics: tandem_capture::Metrics,
) -> Result<Capture> {
    Ok(Capture {
        mysql: servers.mysql.clone(),
        binlog: config.mysql()?,
        kafka: servers.kafka.clone(),
        schemas: schemas.clone(),
        config: config.capture()?,
        metrics,
    })
}
