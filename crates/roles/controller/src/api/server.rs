//! The HTTP control API.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tandem_http_api::{AccessToken, HttpListener, Problem, RequestRules, guarded, read_body, serve};
use tandem_kafka::{ConsumeError, KafkaConfig, read_all};
use tandem_wire::control::{Audit, decode_control};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::auth::{Scope, caller};
use crate::api::{problem, view};
use crate::order::{Command, Order, OrderError, Standing, View};

/// How long an order may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// The longest reason, in bytes.
const MAX_REASON: usize = 1000;
/// The largest body, in bytes. A reason may be written with six bytes for each of its own.
const MAX_BODY: usize = 16 << 10;

/// The state that the handlers share.
pub(crate) struct Api {
    pub(crate) view: watch::Receiver<View>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) tokens: Vec<AccessToken<Scope>>,
    pub(crate) kafka: KafkaConfig,
    pub(crate) rules: RequestRules,
    /// How long the body of a request may take.
    pub(crate) body_timeout: Duration,
}

/// Serves until `stop`.
pub(crate) async fn run(api: Api, listener: HttpListener, stop: CancellationToken) {
    let rules = api.rules.clone();
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/v1/phase", get(phase))
        .route("/v1/phase/{order}", post(order))
        .route("/v1/history", get(history))
        .with_state(Arc::new(api));
    serve(listener, guarded(router, rules), stop).await;
}

impl Api {
    fn allow(&self, headers: &HeaderMap, scope: Scope) -> Result<&str, Problem> {
        let header = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        caller(&self.tokens, header, scope)
    }

    /// The state of the migration, if this is the active controller and Kafka has confirmed that recently.
    fn standing(&self) -> Result<Arc<Standing>, Problem> {
        let standing = self.view.borrow().standing().ok_or(OrderError::Standby)?;
        if standing.is_confirmed() {
            return Ok(standing);
        }
        Err(problem::unavailable(format!(
            "Kafka has not answered for {:.0} s. The phase was {} of generation {} then; nothing changes until Kafka \
             answers",
            standing.confirmed.elapsed().as_secs_f64(),
            standing.outlook.stage,
            standing.record.generation
        )))
    }
}

fn answer(body: &Json) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

/// A standby is ready: it can take over.
async fn readyz(State(api): State<Arc<Api>>) -> (StatusCode, &'static str) {
    match api.view.borrow().standing() {
        None => (StatusCode::OK, "ready: a standby\n"),
        Some(standing) if standing.is_confirmed() => (StatusCode::OK, "ready: the active controller\n"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "Kafka does not answer\n"),
    }
}

async fn phase(State(api): State<Arc<Api>>, headers: HeaderMap) -> Result<Response, Problem> {
    api.allow(&headers, Scope::Read)?;
    Ok(answer(&view::phase(&*api.standing()?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// The reason, for the audit trail.
    reason: String,
    /// The generation that the order applies to.
    generation: Option<u64>,
    /// For `auto`: on or off.
    on: Option<bool>,
}

fn understood(name: &str, body: &[u8]) -> Result<(Order, Body), Problem> {
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("the body must be {{\"reason\": \"…\"}}: {error}")))?;
    if body.reason.trim().is_empty() || body.reason.len() > MAX_REASON {
        return Err(Problem::bad_request(format!("`reason` must have 1 to {MAX_REASON} bytes")));
    }
    let order = match (name, body.on) {
        ("advance", None) => Order::Advance,
        ("back", None) => Order::Back,
        ("pause", None) => Order::Pause,
        ("resume", None) => Order::Resume,
        ("auto", on) => Order::Auto(on.unwrap_or(true)),
        ("advance" | "back" | "pause" | "resume", Some(_)) => {
            return Err(Problem::bad_request("`on` is for `auto` only"));
        }
        _ => {
            return Err(Problem::bad_request(format!(
                "`{name}` is none of advance, back, pause, resume, auto"
            )));
        }
    };
    Ok((order, body))
}

async fn order(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let by = api.allow(&parts.headers, Scope::Operate)?.to_owned();
    let body = read_body(&parts.headers, body, MAX_BODY, Instant::now() + api.body_timeout).await?;
    let (order, Body { reason, generation, .. }) = understood(&name, &body)?;
    api.standing()?;
    let (reply, answered) = oneshot::channel();
    let command = Command { order, generation, by, reason, reply };
    let ordered = async {
        api.commands.send(command).await.map_err(|_| OrderError::Standby)?;
        answered.await.unwrap_or(Err(OrderError::Unknown("the controller started again".into())))
    };
    let standing = tokio::time::timeout(DEADLINE, ordered).await.map_err(|_| {
        problem::unknown(format!(
            "Kafka has not answered within {} s: check the phase before you repeat the order",
            DEADLINE.as_secs()
        ))
    })??;
    Ok(answer(&view::phase(&*standing.ok_or(OrderError::Standby)?)))
}

/// The whole audit trail, oldest first. Standbys serve it too.
async fn history(State(api): State<Arc<Api>>, headers: HeaderMap) -> Result<Response, Problem> {
    api.allow(&headers, Scope::Read)?;
    let topic = api.kafka.topics().audit();
    let unread =
        |error: ConsumeError| problem::unavailable(format!("the audit trail could not be read: {error}"));
    let records = tokio::time::timeout(DEADLINE, read_all(&api.kafka, &topic)).await;
    let records = records
        .map_err(|_| problem::unavailable("Kafka has not answered: the audit trail was not read"))?
        .map_err(unread)?;
    let mut entries = Vec::with_capacity(records.len());
    for value in records.iter().filter_map(|record| record.value.as_deref()) {
        let audit: Audit = decode_control(value).map_err(|error| {
            problem::unavailable(format!("an entry of the audit trail cannot be read: {error}"))
        })?;
        entries.push(view::entry(&audit));
    }
    Ok(answer(&json!({ "history": entries })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_parsed_or_rejected() {
        let order = |name: &str, body: &str| understood(name, body.as_bytes()).map(|(order, _)| order);
        assert_eq!(order("advance", r#"{"reason": "x"}"#), Ok(Order::Advance));
        assert_eq!(order("auto", r#"{"reason": "x"}"#), Ok(Order::Auto(true)));
        assert_eq!(order("auto", r#"{"reason": "x", "on": false, "generation": 3}"#), Ok(Order::Auto(false)));
        for (name, body) in [
            ("advance", ""),
            ("advance", "{}"),
            ("advance", r#"{"reason": " "}"#),
            ("advance", r#"{"reason": "x", "force": true}"#),
            ("advance", r#"{"reason": "x", "on": true}"#),
            ("jump", r#"{"reason": "x"}"#),
        ] {
            assert_eq!(order(name, body).unwrap_err().status, StatusCode::BAD_REQUEST, "{name} {body}");
        }
    }
}
