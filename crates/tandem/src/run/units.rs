//! How each role is started.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::BoxFuture;
use tandem_apply::{Apply, Definitions};
use tandem_backfill::{Backfill, BackfillTable, ProgressError, read_progress};
use tandem_controller::{Controller, MappedTable};
use tandem_gateway::{Gateway, GatewayParts};
use tandem_kafka::{Admin, KafkaConfig, topic_specs};
use tandem_model::{TableName, TargetTable};
use tandem_mysql::ClientPool;
use tandem_protocol::mapping_in_use::Layouts;
use tandem_protocol::table_state::{is_applied, is_redefined};
use tandem_reverse::Reverse;
use tandem_row_check::CheckError;
use tandem_runtime::{Backoff, Trying};
use tandem_table_states::{States, TableStates};
use tandem_verify::{CopyProgress, Reconciler, Scan, Stream, TableVerifier};
use tandem_watermarks::Watermarks;
use tandem_wire::control::BackfillProgress;
use tandem_wire::fingerprint;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::config::gateway::GatewaySection;
use crate::connect::row_checker::checker;
use crate::connect::servers::{Servers, planned};
use crate::role::Role;
use crate::run::process::{NewestStores, Process, capture_of};
use crate::run::supervise::{Unit, Work};

/// Batches of changes that may wait for streaming verification.
const FEED: usize = 16;

/// The pauses between two attempts to start with the new definition of a table.
const START_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// How often a complete backfill looks for a re-snapshot.
const LOOK_FOR_RESNAPSHOT: Duration = Duration::from_secs(15);

impl Process<'_> {
    pub(super) fn capture<'a>(&'a self, stores: &'a NewestStores) -> Unit<'a> {
        let starts = Arc::new(AtomicUsize::new(0));
        Unit {
            roles: vec![Role::Capture],
            retry_start: false,
            start: Box::new(move |stop| {
                let starts = Arc::clone(&starts);
                Box::pin(async move {
                    let stores = self.stores(stores, &starts).await;
                    let metrics = self.metrics.capture.clone();
                    let capture = capture_of(self.config, &stores.servers, &stores.schemas, metrics)?;
                    Ok(vec![work(Role::Capture, async move { Ok(capture.run(stop).await?) })])
                })
            }),
        }
    }

    pub(super) fn apply<'a>(&'a self, stores: &'a NewestStores) -> Unit<'a> {
        let starts = Arc::new(AtomicUsize::new(0));
        Unit {
            roles: vec![Role::Apply],
            retry_start: false,
            start: Box::new(move |stop| {
                let starts = Arc::clone(&starts);
                Box::pin(async move {
                    let stores = self.stores(stores, &starts).await;
                    let servers = &stores.servers;
                    let apply = Apply {
                        kafka: servers.kafka.clone(),
                        schemas: stores.schemas.clone(),
                        target: servers.target.clone().context("apply needs Cassandra")?,
                        plans: servers.plans.clone(),
                        left_out: servers.left_out.clone(),
                        restarts: !self.alone(),
                        layouts: Arc::new(servers.layouts.clone()),
                        definitions: Definitions {
                            read_at_us: stores.read_at_us,
                            executed: servers.executed.clone(),
                        },
                        config: self.config.apply(),
                        metrics: self.metrics.apply.clone(),
                    };
                    let (config, roles) = (self.config.clone(), self.roles.to_vec());
                    let applied = async move { Ok(Box::pin(apply.run(stop)).await?) };
                    Ok(vec![work(Role::Apply, or_redefined(config, roles, Box::pin(applied)))])
                })
            }),
        }
    }

    pub(super) fn reverse<'a>(&'a self, stores: &'a NewestStores) -> Unit<'a> {
        let starts = Arc::new(AtomicUsize::new(0));
        Unit {
            roles: vec![Role::Reverse],
            retry_start: false,
            start: Box::new(move |stop| {
                let starts = Arc::clone(&starts);
                Box::pin(async move {
                    let stores = self.stores(stores, &starts).await;
                    let (mysql, config) = self.config.reverse()?;
                    let reverse = Reverse {
                        kafka: stores.servers.kafka.clone(),
                        schemas: stores.schemas.clone(),
                        mysql,
                        tables: self.config.tables()?,
                        config,
                        metrics: self.metrics.reverse.clone(),
                    };
                    Ok(vec![work(Role::Reverse, async move { Ok(reverse.run(stop).await?) })])
                })
            }),
        }
    }

    /// The gateway. Its address is bound when it starts, so that an address in use fails the start.
    pub(super) fn gateway<'a>(&'a self, stores: &'a NewestStores) -> Unit<'a> {
        let starts = Arc::new(AtomicUsize::new(0));
        Unit {
            roles: vec![Role::Gateway],
            retry_start: false,
            start: Box::new(move |stop| {
                let starts = Arc::clone(&starts);
                Box::pin(async move {
                    let stores = self.stores(stores, &starts).await;
                    Ok(vec![self.start_gateway(&stores.servers, stop).await?])
                })
            }),
        }
    }

    async fn start_gateway(&self, servers: &Servers, stop: CancellationToken) -> Result<Work> {
        let config = self.config;
        let default = GatewaySection::default();
        let section = config.gateway.as_ref().unwrap_or(&default);
        let mut mysql = config.mysql()?;
        mysql.connect_timeout = section.mysql_connect();
        let parts = GatewayParts {
            pool: ClientPool::connect(&mysql, section.connections).await?,
            mysql: servers.mysql.clone(),
            target: servers.target.clone().context("the gateway needs Cassandra")?,
            kafka: servers.kafka.clone(),
            layouts: Arc::new(servers.layouts.clone()),
            entities: planned(config, &servers.plans)
                .map(|(table, plan)| (table.entity.clone(), Arc::clone(plan)))
                .collect(),
            left_out: left_out_entities(config, servers)?,
            metrics: self.metrics.gateway.clone(),
            watermark_timeout: config.watermark_timeout(),
        };
        let endpoint = section.endpoint();
        let tls = endpoint.tls()?;
        let gateway = Gateway::start(parts, section.gateway()?).await?;
        let encrypted = tls.is_some();
        let (listener, address) = endpoint.bind(tls, section.limits.connections()).await?;
        tracing::info!(%address, tls = encrypted, "the gateway serves /v1 and /openapi.json");
        let back = Back::of(servers);
        let alone = self.alone();
        Ok(work(Role::Gateway, async move {
            let served = async { Ok(gateway.serve(listener, stop).await?) };
            // Alone, it would end for the clients of every table.
            if alone { served.await } else { back.or(Box::pin(served)).await }
        }))
    }

    pub(super) fn controller(&self) -> Unit<'_> {
        Unit {
            roles: vec![Role::Controller],
            retry_start: false,
            start: Box::new(move |stop| {
                Box::pin(async move { Ok(vec![self.start_controller(stop).await?]) })
            }),
        }
    }

    async fn start_controller(&self, stop: CancellationToken) -> Result<Work> {
        let config = self.config;
        let (kafka, section) = (config.kafka()?, config.controller_section());
        let endpoint = section.endpoint();
        let tls = endpoint.tls()?;
        let names = config.tables()?;
        let admin = Admin::connect(&kafka).await?;
        admin.ensure_topics(&topic_specs(&kafka, &names)).await?;
        let mapped = names.into_iter().zip(&config.table);
        let tables = mapped
            .map(|(name, table)| MappedTable { name, mapping: fingerprint(&table.spelling()) })
            .collect();
        let controller = Controller {
            kafka,
            tables,
            config: section.controller()?,
            metrics: self.metrics.controller.clone(),
        };
        let encrypted = tls.is_some();
        let (listener, address) = endpoint.bind(tls, section.limits.connections()).await?;
        tracing::info!(%address, tls = encrypted, "the controller serves /v1/phase and /v1/history");
        Ok(work(Role::Controller, async move { Ok(controller.run(listener, stop).await?) }))
    }

    /// Verify and reconcile, which share a row checker. They wait until apply uses the mapping, and for capture's first
    /// watermark.
    pub(super) fn checks<'a>(&'a self, stores: &'a NewestStores) -> Unit<'a> {
        let starts = Arc::new(AtomicUsize::new(0));
        let roles = [Role::Verify, Role::Reconcile].into_iter().filter(|role| self.has(*role)).collect();
        Unit {
            roles,
            retry_start: true,
            start: Box::new(move |stop| {
                let starts = Arc::clone(&starts);
                Box::pin(async move {
                    let stores = self.stores(stores, &starts).await;
                    let servers = &stores.servers;
                    let mapping = UsedMapping::of(servers).await?;
                    let in_use = Back::of(servers).or(Box::pin(mapping.until_in_use()));
                    match stop.run_until_cancelled(in_use).await {
                        Some(in_use) => in_use?,
                        None => return Ok(Vec::new()),
                    }
                    let watermarks =
                        Watermarks::follow(&servers.kafka, self.config.watermark_timeout()).await?;
                    let (sender, feed) = mpsc::channel(FEED);
                    let feed_to = self.has(Role::Verify).then_some(sender);
                    let (checker, tables) =
                        checker(servers, &watermarks, &self.metrics.verify.checks, feed_to).await?;
                    let mut works = Vec::new();
                    if self.has(Role::Verify) {
                        let stream = Stream {
                            checker: checker.clone(),
                            tables: tables.clone(),
                            schemas: stores.schemas.clone(),
                            kafka: servers.kafka.clone(),
                            metrics: self.metrics.verify.clone(),
                        };
                        let verifier = TableVerifier {
                            scan: Scan {
                                checker: checker.clone(),
                                tables: tables.clone(),
                                kafka: servers.kafka.clone(),
                            },
                            progress: Copied::of(self.config, servers),
                        };
                        let (stop, back, mapping) = (stop.clone(), Back::of(servers), mapping.clone());
                        works.push(work(Role::Verify, async move {
                            let verified = async {
                                tokio::try_join!(stream.run(feed, stop.clone()), verifier.run(stop))?;
                                Ok(())
                            };
                            back.or(Box::pin(mapping.during(verified))).await
                        }));
                    }
                    if self.has(Role::Reconcile) {
                        let back = Back::of(servers);
                        let reconciler = Reconciler {
                            checker,
                            tables,
                            left_out: servers.left_out.iter().map(ToString::to_string).collect(),
                            kafka: servers.kafka.clone(),
                            schemas: stores.schemas.clone(),
                            metrics: self.metrics.verify.clone(),
                        };
                        works.push(work(Role::Reconcile, async move {
                            let reconciled = async { Ok(reconciler.run(stop).await?) };
                            back.or(Box::pin(mapping.during(reconciled))).await
                        }));
                    }
                    Ok(works)
                })
            }),
        }
    }

    /// The backfill, which waits for capture's first watermark.
    pub(super) fn backfill<'a>(&'a self, stores: &'a NewestStores) -> Unit<'a> {
        let starts = Arc::new(AtomicUsize::new(0));
        Unit {
            roles: vec![Role::Backfill],
            retry_start: true,
            start: Box::new(move |stop| {
                let starts = Arc::clone(&starts);
                Box::pin(async move {
                    let config = self.config;
                    let stores = self.stores(stores, &starts).await;
                    let servers = &stores.servers;
                    let backfill = Backfill {
                        mysql: servers.mysql.clone(),
                        kafka: servers.kafka.clone(),
                        schemas: stores.schemas.clone(),
                        watermarks: Watermarks::follow(&servers.kafka, config.watermark_timeout()).await?,
                        tables: planned(config, &servers.plans)
                            .map(|(t, p)| {
                                let held = |table: &TargetTable| servers.held_rows.contains(&table.name);
                                let held_rows = p.targets().iter().any(|target| held(target.table()));
                                BackfillTable::new(
                                    Arc::clone(p.source()),
                                    &p.layout(),
                                    &t.spelling(),
                                    held_rows,
                                )
                            })
                            .collect(),
                        layouts: Arc::new(servers.layouts.clone()),
                        config: config.backfill(),
                        metrics: self.metrics.backfill.clone(),
                    };
                    let (states, alone) = (self.states.clone(), self.alone());
                    let back = Back::of(servers);
                    let mapping = UsedMapping::of(servers).await?;
                    let copies = async move {
                        loop {
                            backfill.run(stop.clone()).await?;
                            if alone || stop.is_cancelled() {
                                return Ok(());
                            }
                            tracing::info!("every table's backfill is published");
                            states.done(Role::Backfill);
                            // A re-snapshot voids every copy, a rebuild that of one table, and so does another mapping that was in
                            // use meanwhile.
                            match stop.run_until_cancelled(until_voided(&backfill)).await {
                                Some(voided) => voided?,
                                None => return Ok(()),
                            }
                            states.running(Role::Backfill);
                        }
                    };
                    let copies = Box::pin(mapping.or_superseded(copies));
                    Ok(vec![work(Role::Backfill, back.or(copies))])
                })
            }),
        }
    }
}

/// Whether apply uses the mapping that this process has.
#[derive(Clone)]
struct UsedMapping {
    states: TableStates,
    layouts: Arc<Layouts>,
}

impl UsedMapping {
    async fn of(servers: &Servers) -> Result<Self> {
        let states = TableStates::follow(&servers.kafka).await?;
        Ok(Self { states, layouts: Arc::new(servers.layouts.clone()) })
    }

    /// Waits until apply uses this mapping. Before, the targets lack what only this mapping fills.
    async fn until_in_use(&self) -> Result<()> {
        if !self.layouts.are_in_use(self.states.now()?.mapping_in_use()) {
            tracing::warn!("checks wait until apply uses the mapping of this tandem.toml");
        }
        Ok(self.states.until_in_use(&self.layouts).await?)
    }

    /// Runs a role until it ends, or until apply uses the same mapping with newer definitions of MySQL's tables.
    async fn or_superseded(self, role: impl Future<Output = Result<()>>) -> Result<()> {
        let superseded = async {
            loop {
                self.states.until_in_use(&self.layouts).await?;
                self.states.until_not_in_use(&self.layouts).await?;
                if self.layouts.are_superseded(self.states.now()?.mapping_in_use()) {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::select! {
            outcome = role => outcome,
            superseded = superseded => {
                superseded?;
                bail!("apply uses newer definitions of MySQL's tables: the role starts again with them")
            }
        }
    }

    /// Runs checks until they end, or until apply uses another mapping: then they wait again.
    async fn during(&self, checks: impl Future<Output = Result<()>>) -> Result<()> {
        tokio::select! {
            outcome = checks => outcome,
            ended = self.states.until_not_in_use(&self.layouts) => {
                ended?;
                bail!("apply uses another mapping now: checks by the one of this tandem.toml end")
            }
        }
    }
}

/// Runs apply until it ends, or until MySQL has another definition of a table: then apply starts again with it. It adds new
/// columns to the targets, and resumes a table that has halted for one. While it could not start, for example because
/// another table has a problem, it goes on with what it has.
async fn or_redefined(
    config: Config,
    roles: Vec<Role>,
    apply: Pin<Box<dyn Future<Output = Result<()>> + Send + '_>>,
) -> Result<()> {
    let of = |known: &States| -> BTreeSet<(String, i64)> {
        let redefined = known.iter().filter(|state| is_redefined(state));
        redefined.map(|state| (state.table.clone(), state.incarnation)).collect()
    };
    let one = async {
        let states = TableStates::follow(&config.kafka()?).await?;
        let mut known = states.now()?;
        let before = of(&known);
        let table = loop {
            known = states.other_than(&known).await?;
            if let Some((table, _)) = of(&known).difference(&before).next() {
                break table.clone();
            }
        };
        let (mut backoff, trying) = (Backoff::new(START_AGAIN.0, START_AGAIN.1), Trying::default());
        while let Err(error) = Box::pin(Servers::connect(&config, &roles)).await {
            let (pause, cause) = (backoff.next(), format!("{table} was altered in MySQL: {error:#}"));
            tracing::warn!(
                cause,
                "apply cannot start with the new definition yet and goes on with the former one"
            );
            trying.failed(&config.waits, "a start with an altered table", cause, pause);
            tokio::time::sleep(pause).await;
        }
        anyhow::Ok(table)
    };
    tokio::select! {
        outcome = apply => outcome,
        table = one => bail!("table {} was altered in MySQL: apply starts again with its definition", table?),
    }
}

/// Waits until a copy does not count any more, or a table that was not copied can be.
async fn until_voided(backfill: &Backfill) -> Result<()> {
    let states = TableStates::follow(&backfill.kafka).await?;
    loop {
        let known = states.now()?;
        if !backfill.is_complete().await? {
            return Ok(());
        }
        let changed = tokio::time::timeout(LOOK_FOR_RESNAPSHOT, states.other_than(&known)).await;
        changed.map_or(Ok(known), |changed| changed)?;
    }
}

/// The copies of the tables that are verified.
struct Copied {
    kafka: KafkaConfig,
    /// The fingerprint of each table's configured mapping, by name.
    tables: HashMap<TableName, String>,
}

impl Copied {
    fn of(config: &Config, servers: &Servers) -> Self {
        let tables = planned(config, &servers.plans);
        let tables = tables.map(|(table, plan)| (plan.source().name.clone(), fingerprint(&table.spelling())));
        Self { kafka: servers.kafka.clone(), tables: tables.collect() }
    }
}

impl CopyProgress for Copied {
    async fn read(&self) -> Result<HashMap<String, BackfillProgress>, CheckError> {
        let mut progress = read_progress(&self.kafka).await.map_err(|error| match error {
            ProgressError::Consume(error) => CheckError::from(error),
            ProgressError::Decode(error) => error.into(),
        })?;
        let configured = |name: &str| name.parse().ok().and_then(|name: TableName| self.tables.get(&name));
        progress.retain(|name, copy| configured(name) == Some(&copy.configured));
        Ok(progress)
    }
}

/// The tables that had halted when a role started, and that it has no plan for.
struct Back {
    kafka: KafkaConfig,
    left_out: Vec<TableName>,
}

impl Back {
    fn of(servers: &Servers) -> Self {
        Self { kafka: servers.kafka.clone(), left_out: servers.left_out.clone() }
    }

    /// Runs a role until it ends, or until one of the tables has not halted any more: then the role has to start again, and
    /// gets its plan. A table that is back already at the start is halted again by apply.
    async fn or(self, role: Pin<Box<dyn Future<Output = Result<()>> + Send + '_>>) -> Result<()> {
        if self.left_out.is_empty() {
            return role.await;
        }
        tokio::select! {
            outcome = role => outcome,
            back = self.until_one_is() => {
                bail!("table {} has not halted any more: the role starts again, with the table", back?)
            }
        }
    }

    async fn until_one_is(&self) -> Result<TableName> {
        let states = TableStates::follow(&self.kafka).await?;
        let mut known = states.now()?;
        let away: Vec<_> = self.left_out.iter().filter(|table| !is_applied(known.get(table))).collect();
        loop {
            if let Some(back) = away.iter().find(|table| is_applied(known.get(table))) {
                return Ok((**back).clone());
            }
            known = states.other_than(&known).await?;
        }
    }
}

/// The names of the entities of tables without a plan.
fn left_out_entities(config: &Config, servers: &Servers) -> Result<BTreeSet<String>> {
    let tables = config.tables()?.into_iter().zip(&config.table);
    let left_out = tables.filter(|(name, _)| servers.left_out.contains(name));
    Ok(left_out.map(|(name, table)| table.entity.clone().unwrap_or(name.table)).collect())
}

fn work(role: Role, future: impl Future<Output = Result<()>> + Send + 'static) -> Work {
    let future: BoxFuture<'static, Result<()>> = Box::pin(future);
    (role, future)
}
