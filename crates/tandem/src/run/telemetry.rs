//! The telemetry of a running process over HTTP: metrics, probes and schemas.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tandem_kafka::{Refusals, SchemaStore};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The sources of the telemetry.
pub(crate) struct Telemetry {
    /// The metrics of the roles in this process.
    pub(crate) registry: Registry,
    /// The metrics of capture, if it runs in this process. They show whether it is reading the binlog.
    pub(crate) capture: Option<tandem_capture::Metrics>,
    /// The refusals of Kafka's brokers.
    pub(crate) refusals: Refusals,
    /// The schemas. They are set once every role has started.
    pub(crate) schemas: OnceLock<SchemaStore>,
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
    if telemetry.schemas.get().is_none() {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n".into())
    } else if let Some(refused) = telemetry.refusals.current() {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{refused}\n").into())
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
    match telemetry.schemas.get().and_then(|schemas| schemas.json(id)) {
        Some(schema) => {
            let body = serde_json::json!({ "schema": &*schema }).to_string();
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        None => (StatusCode::NOT_FOUND, "no such schema\n").into_response(),
    }
}
