//! Runs roles: starts them in order, watches them, and stops them.
//!
//! - A role that ends with an error ends the process with that error. A process that continued without one of its roles
//!   would stall silently.
//! - On SIGTERM or SIGINT every role finishes its work in progress, within a grace period. A second signal ends the
//!   process at once.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::BoxFuture;
use prometheus_client::registry::Registry;
use tandem_apply::Apply;
use tandem_backfill::{Backfill, BackfillTable};
use tandem_capture::Capture;
use tandem_controller::{Controller, MappedTable};
use tandem_gateway::{Gateway, GatewayParts};
use tandem_kafka::{Admin, SchemaStore, topic_specs};
use tandem_mysql::ClientPool;
use tandem_verify::{Reconciler, Stream};
use tandem_watermarks::Watermarks;
use tandem_wire::fingerprint;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::config::gateway::GatewaySection;
use crate::connect::row_checker::checker;
use crate::connect::servers::{Servers, target_tables};
use crate::remedy;
use crate::role::Role;
use crate::run::telemetry::{self, Telemetry};

/// How long roles may take to finish their work in progress.
const GRACE: Duration = Duration::from_secs(20);

/// Batches of changes that may wait for streaming verification.
const FEED: usize = 16;

/// The metrics of the roles in this process.
#[derive(Default)]
struct Metrics {
    capture: tandem_capture::Metrics,
    apply: tandem_apply::Metrics,
    backfill: tandem_backfill::Metrics,
    verify: tandem_verify::Metrics,
    gateway: tandem_gateway::Metrics,
    controller: tandem_controller::Metrics,
}

type Work = (Role, BoxFuture<'static, Result<()>>);

/// Runs these roles until one fails or the process receives a signal.
pub(crate) async fn run(config: &Config, roles: &[Role], listen: Option<SocketAddr>) -> Result<()> {
    let stop = CancellationToken::new();
    let metrics = Metrics::default();
    let telemetry = Arc::new(Telemetry {
        registry: metrics.registry(roles),
        capture: roles.contains(&Role::Capture).then(|| metrics.capture.clone()),
        refusals: config.refusals.clone(),
        schemas: OnceLock::new(),
    });
    telemetry::serve(listen.unwrap_or(config.http.listen), Arc::clone(&telemetry), stop.clone()).await?;
    let mut running: JoinSet<(Role, Result<()>)> = JoinSet::new();
    let outcome = tokio::select! {
        outcome = start_and_watch(config, roles, &metrics, &telemetry, &stop, &mut running) => outcome,
        signalled = signalled() => signalled,
    };
    stop.cancel();
    let drained = tokio::select! {
        drained = tokio::time::timeout(GRACE, drain(&mut running)) => drained
            .unwrap_or_else(|_| bail!("not every role ended within {} s; nothing acknowledged is lost", GRACE.as_secs())),
        second = signalled() => second.and_then(|()| bail!("ended by a second signal, without draining")),
    };
    match (outcome, drained) {
        (Ok(()), drained) => drained,
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(later)) => {
            tracing::error!(error = format!("{later:#}"), remedy = remedy::of(&later), "while stopping");
            Err(error)
        }
    }
}

/// Starts the roles one after the other, and watches those that already run. Returns when the last role has ended.
async fn start_and_watch(
    config: &Config,
    roles: &[Role],
    metrics: &Metrics,
    telemetry: &Telemetry,
    stop: &CancellationToken,
    running: &mut JoinSet<(Role, Result<()>)>,
) -> Result<()> {
    if roles.contains(&Role::Controller) {
        spawn(running, controller(config, metrics, stop).await?);
        // The controller needs neither store, and must start while one is down.
        if roles == [Role::Controller] {
            let _ = telemetry.schemas.set(SchemaStore::open(&config.kafka()?).await?);
            tracing::info!(roles = "controller", "started");
            let (role, ended) = next(running).await?;
            return unexpected(role, ended);
        }
    }
    let servers = Servers::connect(config, roles).await?;
    if let Some(target) = &servers.target {
        target.prepare(&target_tables(&servers.plans)).await?;
    }
    let specs = topic_specs(&servers.kafka, &config.tables()?);
    servers.admin.ensure_topics(&specs).await?;
    let schemas = SchemaStore::open(&servers.kafka).await?;
    if roles.contains(&Role::Capture) {
        spawn(running, capture(config, &servers, &schemas, metrics, stop)?);
    }
    if roles.contains(&Role::Apply) {
        spawn(running, apply(config, &servers, &schemas, metrics, stop)?);
    }
    if roles.contains(&Role::Gateway) {
        spawn(running, gateway(config, &servers, metrics, stop).await?);
    }
    // The other roles follow watermarks, and there are none until capture has published its first.
    let others = tokio::select! {
        others = followers(config, roles, &servers, &schemas, metrics, stop) => others?,
        joined = next(running) => {
            let (role, ended) = joined?;
            return unexpected(role, ended);
        }
    };
    for work in others {
        spawn(running, work);
    }
    let _ = telemetry.schemas.set(schemas);
    let names: Vec<String> = roles.iter().map(ToString::to_string).collect();
    tracing::info!(roles = names.join(", "), tables = servers.plans.len(), "started");
    while let Some(joined) = running.join_next().await {
        let (role, ended) = joined.context("a role panicked")?;
        match (role, ended) {
            (Role::Backfill, Ok(())) => tracing::info!("every table's backfill is published"),
            (role, ended) => return unexpected(role, ended),
        }
    }
    Ok(())
}

/// Every role except the backfill runs until it is asked to stop. An earlier end is an error.
fn unexpected(role: Role, ended: Result<()>) -> Result<()> {
    match ended {
        Ok(()) => bail!("{role} ended unexpectedly"),
        Err(error) => Err(error.context(format!("{role} stopped"))),
    }
}

/// Waits for the next role to end. It never returns while no role runs.
async fn next(running: &mut JoinSet<(Role, Result<()>)>) -> Result<(Role, Result<()>)> {
    match running.join_next().await {
        Some(joined) => joined.context("a role panicked"),
        None => std::future::pending().await,
    }
}

fn spawn(running: &mut JoinSet<(Role, Result<()>)>, (role, work): Work) {
    running.spawn(async move { (role, work.await) });
}

async fn drain(running: &mut JoinSet<(Role, Result<()>)>) -> Result<()> {
    let mut outcome = Ok(());
    while let Some(joined) = running.join_next().await {
        let (role, ended) = joined.context("a role panicked")?;
        if let Err(error) = ended {
            outcome = Err(error.context(format!("{role} stopped")));
        }
    }
    outcome
}

async fn signalled() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("signal received: finishing the work in progress");
    Ok(())
}

impl Metrics {
    fn registry(&self, roles: &[Role]) -> Registry {
        let mut registry = Registry::default();
        for role in roles {
            match role {
                Role::Capture => self.capture.register(&mut registry),
                Role::Apply => self.apply.register(&mut registry),
                Role::Backfill => self.backfill.register(&mut registry),
                Role::Reconcile if roles.contains(&Role::Verify) => {}
                Role::Verify | Role::Reconcile => self.verify.register(&mut registry),
                Role::Gateway => self.gateway.register(&mut registry),
                Role::Controller => self.controller.register(&mut registry),
            }
        }
        registry
    }
}

fn capture(
    config: &Config,
    servers: &Servers,
    schemas: &SchemaStore,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<Work> {
    let capture = capture_of(config, servers, schemas, metrics.capture.clone())?;
    let stop = stop.clone();
    Ok((Role::Capture, Box::pin(async move { Ok(capture.run(stop).await?) })))
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

fn apply(
    config: &Config,
    servers: &Servers,
    schemas: &SchemaStore,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<Work> {
    let apply = Apply {
        kafka: servers.kafka.clone(),
        schemas: schemas.clone(),
        target: servers.target.clone().context("apply needs Cassandra")?,
        plans: servers.plans.clone(),
        config: config.apply(),
        metrics: metrics.apply.clone(),
    };
    let stop = stop.clone();
    Ok((Role::Apply, Box::pin(async move { Ok(apply.run(stop).await?) })))
}

/// The gateway. Its address is bound before this returns, so that an address in use fails the start.
async fn gateway(
    config: &Config,
    servers: &Servers,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<Work> {
    let default = GatewaySection::default();
    let section = config.gateway.as_ref().unwrap_or(&default);
    let mut mysql = config.mysql()?;
    mysql.connect_timeout = section.mysql_connect();
    let parts = GatewayParts {
        pool: ClientPool::connect(&mysql, section.connections).await?,
        mysql: servers.mysql.clone(),
        target: servers.target.clone().context("the gateway needs Cassandra")?,
        kafka: servers.kafka.clone(),
        entities: config
            .table
            .iter()
            .zip(&servers.plans)
            .map(|(table, plan)| (table.entity.clone(), Arc::clone(plan)))
            .collect(),
        metrics: metrics.gateway.clone(),
        watermark_timeout: config.watermark_timeout(),
    };
    let endpoint = section.endpoint();
    let tls = endpoint.tls()?;
    let gateway = Gateway::start(parts, section.gateway()?).await?;
    let listener = endpoint.bind().await?;
    let address = listener.local_addr()?;
    tracing::info!(%address, tls = tls.is_some(), "the gateway serves /v1 and /openapi.json");
    let stop = stop.clone();
    let work: BoxFuture<'static, Result<()>> = match tls {
        None => Box::pin(async move { Ok(gateway.serve(listener, stop).await?) }),
        Some(tls) => {
            let listener = tls.listen(listener)?;
            Box::pin(async move { Ok(gateway.serve(listener, stop).await?) })
        }
    };
    Ok((Role::Gateway, work))
}

async fn controller(config: &Config, metrics: &Metrics, stop: &CancellationToken) -> Result<Work> {
    let (kafka, section) = (config.kafka()?, config.controller_section());
    let endpoint = section.endpoint();
    let tls = endpoint.tls()?;
    let names = config.tables()?;
    let admin = Admin::connect(&kafka).await?;
    admin.ensure_topics(&topic_specs(&kafka, &names)).await?;
    let mapped = names.into_iter().zip(&config.table);
    let tables =
        mapped.map(|(name, table)| MappedTable { name, mapping: fingerprint(&table.spelling()) }).collect();
    let controller =
        Controller { kafka, tables, config: section.controller()?, metrics: metrics.controller.clone() };
    let listener = endpoint.bind().await?;
    let address = listener.local_addr()?;
    tracing::info!(%address, tls = tls.is_some(), "the controller serves /v1/phase and /v1/history");
    let stop = stop.clone();
    let work: BoxFuture<'static, Result<()>> = match tls {
        None => Box::pin(async move { Ok(controller.run(listener, stop).await?) }),
        Some(tls) => {
            let listener = tls.listen(listener)?;
            Box::pin(async move { Ok(controller.run(listener, stop).await?) })
        }
    };
    Ok((Role::Controller, work))
}

/// The roles that follow watermarks.
async fn followers(
    config: &Config,
    roles: &[Role],
    servers: &Servers,
    schemas: &SchemaStore,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<Vec<Work>> {
    let mut work: Vec<Work> = Vec::new();
    let (backfill, verify, reconcile) =
        (roles.contains(&Role::Backfill), roles.contains(&Role::Verify), roles.contains(&Role::Reconcile));
    if !(backfill || verify || reconcile) {
        return Ok(work);
    }
    let watermarks = Watermarks::follow(&servers.kafka, config.watermark_timeout()).await?;
    if verify || reconcile {
        let (sender, feed) = mpsc::channel(FEED);
        let feed_to = verify.then_some(sender);
        let (checker, tables) = checker(servers, &watermarks, &metrics.verify.checks, feed_to).await?;
        if verify {
            let stream = Stream {
                checker: checker.clone(),
                tables: tables.clone(),
                schemas: schemas.clone(),
                kafka: servers.kafka.clone(),
                metrics: metrics.verify.clone(),
            };
            let stop = stop.clone();
            work.push((Role::Verify, Box::pin(async move { Ok(stream.run(feed, stop).await?) })));
        }
        if reconcile {
            let (kafka, metrics) = (servers.kafka.clone(), metrics.verify.clone());
            let reconciler = Reconciler { checker, tables, kafka, metrics };
            let stop = stop.clone();
            work.push((Role::Reconcile, Box::pin(async move { Ok(reconciler.run(stop).await?) })));
        }
    }
    if backfill {
        let backfill = Backfill {
            mysql: servers.mysql.clone(),
            kafka: servers.kafka.clone(),
            schemas: schemas.clone(),
            watermarks,
            tables: config
                .table
                .iter()
                .zip(&servers.plans)
                .map(|(t, p)| BackfillTable::new(Arc::clone(p.source()), &p.layout(), &t.spelling()))
                .collect(),
            config: config.backfill(),
            metrics: metrics.backfill.clone(),
        };
        let stop = stop.clone();
        work.push((Role::Backfill, Box::pin(async move { Ok(backfill.run(stop).await?) })));
    }
    Ok(work)
}
