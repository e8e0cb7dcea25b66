//! The telemetry of a running process over HTTP: metrics, probes and schemas.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tandem_kafka::{Refusals, SchemaStore};
use tandem_runtime::{Waits, now_us};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::run::role_states::RoleStates;

/// The sources of the telemetry.
pub(crate) struct Telemetry {
    /// The metrics of the roles in this process.
    pub(crate) registry: Registry,
    /// What each role does.
    pub(crate) roles: RoleStates,
    /// The metrics of capture, if it runs in this process. They show whether it is reading the binlog.
    pub(crate) capture: Option<tandem_capture::Metrics>,
    /// What this process waits for.
    pub(crate) waits: Waits,
    /// The refusals of Kafka's brokers.
    pub(crate) refusals: Refusals,
    /// The newest store of schemas, which is set before any role starts that uses it.
    pub(crate) schemas: RwLock<Option<SchemaStore>>,
}

impl Telemetry {
    /// Serves the schemas of this store from now on.
    pub(crate) fn set_schemas(&self, schemas: SchemaStore) {
        *self.schemas.write().unwrap_or_else(PoisonError::into_inner) = Some(schemas);
    }

    fn schema(&self, id: u32) -> Option<Arc<str>> {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        schemas.as_ref().and_then(|schemas| schemas.json(id))
    }
}

/// Serves until `stop`. The address is bound before this returns, so that an address in use fails the start.
pub(crate) async fn serve(
    listen: SocketAddr,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen} (set [http] listen, or --listen, to a free address)")
    })?;
    tracing::info!(address = %listener.local_addr()?, "serving /metrics, /healthz, /readyz and /schemas/ids/{{id}}");
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/schemas/ids/{id}", get(schema))
        .with_state(telemetry);
    tokio::spawn(async move {
        let served =
            axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await;
        if let Err(error) = served {
            tracing::error!(%error, "metrics are no longer served");
        }
    });
    Ok(())
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &telemetry.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readyz(State(telemetry): State<Arc<Telemetry>>) -> (StatusCode, Cow<'static, str>) {
    let (not_ready, waits) = (telemetry.roles.not_ready(), telemetry.waits.now());
    if !not_ready.is_empty() {
        (StatusCode::SERVICE_UNAVAILABLE, not_ready.into())
    } else if let Some(refused) = telemetry.refusals.current() {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{refused}\n").into())
    } else if !waits.is_empty() {
        let lines = waits.iter().map(|wait| {
            let seconds = (now_us() - wait.since_us) / 1_000_000;
            format!("waiting, {} for {seconds} s: {}\n", wait.what, wait.cause)
        });
        (StatusCode::SERVICE_UNAVAILABLE, lines.collect::<String>().into())
    } else if telemetry.capture.as_ref().is_some_and(tandem_capture::Metrics::is_standby) {
        (StatusCode::SERVICE_UNAVAILABLE, "another capture is active, this one stands by\n".into())
    } else if telemetry.capture.as_ref().is_some_and(|c| !c.is_connected()) {
        (StatusCode::SERVICE_UNAVAILABLE, "the binlog is not being read\n".into())
    } else {
        (StatusCode::OK, "ready\n".into())
    }
}

/// A schema, in the format of Confluent's schema registry.
async fn schema(State(telemetry): State<Arc<Telemetry>>, Path(id): Path<u32>) -> Response {
    match telemetry.schema(id) {
        Some(schema) => {
            let body = serde_json::json!({ "schema": &*schema }).to_string();
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        None => (StatusCode::NOT_FOUND, "no such schema\n").into_response(),
    }
}
