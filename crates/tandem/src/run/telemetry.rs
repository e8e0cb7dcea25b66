//! What a running process tells over HTTP.

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

/// What the answers are made of.
pub(crate) struct Telemetry {
    /// Every metric of the roles that run here.
    pub(crate) registry: Registry,
    /// Says whether capture, if it runs here, is reading the binlog.
    pub(crate) capture: Option<tandem_capture::Metrics>,
    /// Says whether Kafka's brokers refuse our clients.
    pub(crate) refusals: Refusals,
    /// Set once every role has been started.
    pub(crate) schemas: OnceLock<SchemaStore>,
}

/// Serves until `stop`. The address is bound before this returns, so that one in use is an error of
/// the start.
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
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "starting
"
            .into(),
        )
    } else if let Some(refused) = telemetry.refusals.current() {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "{refused}
"
            )
            .into(),
        )
    } else if telemetry.capture.as_ref().is_some_and(tandem_capture::Metrics::is_standby) {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "another capture is active, this one stands by
"
            .into(),
        )
    } else if telemetry.capture.as_ref().is_some_and(|c| !c.is_connected()) {
        (StatusCode::SERVICE_UNAVAILABLE, "the binlog is not being read\n".into())
    } else {
        (StatusCode::OK, "ready\n".into())
    }
}

/// A schema as Confluent's registry would answer for it.
async fn schema(State(telemetry): State<Arc<Telemetry>>, Path(id): Path<u32>) -> Response {
    match telemetry.schemas.get().and_then(|schemas| schemas.json(id)) {
        Some(schema) => {
            let body = serde_json::json!({ "schema": &*schema }).to_string();
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        None => (StatusCode::NOT_FOUND, "no such schema\n").into_response(),
    }
}
