//! Runs roles: starts them, keeps them running, and stops them.
//!
//! - In a process with several roles, a role that ends is started again and the others go on (`supervise.rs`). A role that
//!   runs alone ends its process with the error, for whatever started the process.
//! - On SIGTERM or SIGINT every role finishes its work in progress, within a grace period. A second signal ends the
//!   process at once.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tandem_kafka::SchemaStore;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::remedy;
use crate::role::Role;
use crate::run::open_files;
use crate::run::process::{Metrics, NewestStores, Process};
use crate::run::role_states::RoleStates;
use crate::run::supervise::{Unit, supervise};
use crate::run::telemetry::{self, Telemetry};

/// How long roles may take to finish their work in progress.
const GRACE: Duration = Duration::from_secs(20);

/// Runs these roles until one fails for good or the process receives a signal.
pub(crate) async fn run(config: &Config, roles: &[Role], listen: Option<SocketAddr>) -> Result<()> {
    open_files::raise_limit();
    let stop = CancellationToken::new();
    let (metrics, states) = (Metrics::waiting_in(&config.waits), RoleStates::new(roles));
    let mut registry = metrics.registry(roles);
    states.register(&mut registry);
    let telemetry = Arc::new(Telemetry {
        registry,
        roles: states.clone(),
        capture: roles.contains(&Role::Capture).then(|| metrics.capture.clone()),
        waits: config.waits.clone(),
        refusals: config.refusals.clone(),
        schemas: RwLock::new(None),
    });
    let listen = listen.unwrap_or(config.http.listen);
    telemetry::serve(listen, Arc::clone(&telemetry), stop.clone()).await?;
    let process = Process {
        config,
        roles,
        metrics,
        states,
        telemetry,
        stop: stop.clone(),
        connected: AtomicBool::new(false),
        listen,
    };
    let mut working = std::pin::pin!(process.work());
    let by_signal = tokio::select! {
        outcome = &mut working => return outcome,
        signalled = signalled() => {
            signalled?;
            true
        }
        // A role has failed for good, and says so in the log. The others finish their work in progress.
        () = stop.cancelled() => false,
    };
    stop.cancel();
    let second = async {
        if !by_signal {
            signalled().await?;
        }
        signalled().await
    };
    tokio::select! {
        drained = tokio::time::timeout(GRACE, working) => drained
            .unwrap_or_else(|_| bail!("not every role ended within {} s; nothing acknowledged is lost", GRACE.as_secs())),
        second = second => second.and_then(|()| bail!("ended by a second signal, without draining")),
    }
}

impl Process<'_> {
    /// Starts every role, and keeps them running. Returns the first error that ended the process.
    async fn work(&self) -> Result<()> {
        // The controller needs neither store, and must start while one is down.
        let controller = async {
            if self.has(Role::Controller) { self.supervise(vec![self.controller()]).await } else { Ok(()) }
        };
        let others = async {
            match self.stop.run_until_cancelled(self.connect_first().boxed()).await {
                Some(Ok(Some(stores))) => {
                    self.connected.store(true, Ordering::Relaxed);
                    self.supervise(self.units(&stores)).await
                }
                Some(Err(error)) => Err(self.fatal(error)),
                Some(Ok(None)) | None => Ok(()),
            }
        };
        let (ended, end) = oneshot::channel();
        let roles = async {
            let outcome = first_error([controller.boxed(), others.boxed()]).await;
            // Nobody receives it if reporting has ended with an error.
            let _ = ended.send(());
            outcome
        };
        let announced = self.announce(async {
            let _ = end.await;
        });
        let (outcome, announced) = tokio::join!(roles, announced);
        outcome.and(announced)
    }

    /// Connects to the stores, unless the only role is the controller.
    async fn connect_first(&self) -> Result<Option<NewestStores>> {
        if *self.roles == [Role::Controller] {
            self.telemetry.set_schemas(SchemaStore::open(&self.config.kafka()?).await?);
            return Ok(None);
        }
        Ok(Some(NewestStores::new(self.connect().await?)))
    }

    fn units<'a>(&'a self, stores: &'a NewestStores) -> Vec<Unit<'a>> {
        let mut units = Vec::new();
        if self.has(Role::Capture) {
            units.push(self.capture(stores));
        }
        if self.has(Role::Apply) {
            units.push(self.apply(stores));
        }
        if self.has(Role::Reverse) {
            units.push(self.reverse(stores));
        }
        if self.has(Role::Gateway) {
            units.push(self.gateway(stores));
        }
        if self.has(Role::Verify) || self.has(Role::Reconcile) {
            units.push(self.checks(stores));
        }
        if self.has(Role::Backfill) {
            units.push(self.backfill(stores));
        }
        units
    }

    /// Keeps the units running. A unit that fails for good stops all roles.
    async fn supervise(&self, units: Vec<Unit<'_>>) -> Result<()> {
        let supervised = units.into_iter().map(|unit| {
            async {
                supervise(unit, self.alone(), &self.states, &self.stop)
                    .await
                    .map_err(|error| self.fatal(error))
            }
            .boxed()
        });
        first_error(supervised).await
    }

    /// Stops all roles because of an error. With other roles it is logged at once, because they may take a while to end.
    fn fatal(&self, error: anyhow::Error) -> anyhow::Error {
        if !self.alone() && !self.stop.is_cancelled() {
            tracing::error!(error = format!("{error:#}"), "the process ends");
        }
        self.stop.cancel();
        error
    }
}

/// Waits for all, and returns the error that came first.
async fn first_error<'a>(all: impl IntoIterator<Item = BoxFuture<'a, Result<()>>>) -> Result<()> {
    let mut running: FuturesUnordered<_> = all.into_iter().collect();
    let mut first = Ok(());
    while let Some(outcome) = running.next().await {
        match (&first, outcome) {
            (Ok(()), outcome) => first = outcome,
            (Err(_), Err(later)) => {
                tracing::error!(error = format!("{later:#}"), remedy = remedy::of(&later), "while stopping");
            }
            (Err(_), Ok(())) => {}
        }
    }
    first
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
