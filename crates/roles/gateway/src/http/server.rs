//! The HTTP server: which request asks for what, and who may ask for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use percent_encoding::percent_decode_str;
use tandem_http_api::Problem;
use tandem_model::PhaseRecord;
use tokio::time::Instant;

use crate::body::{self, Object};
use crate::entity::Entity;
use crate::http::api::Api;
use crate::http::auth::{Access, caller};
use crate::http::context::{Context, GENERATION, SERVED_BY, answer, text};
use crate::http::openapi;
use crate::metrics::{Metrics, RequestLabel};
use crate::problem;
use crate::write::change::Action;

/// The longest deadline that a request may set.
const MAX_DEADLINE: Duration = Duration::from_mins(1);

/// Routes the API and the probes.
pub(crate) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .fallback(serve)
        .with_state(api)
}

async fn readyz(State(api): State<Arc<Api>>) -> (StatusCode, &'static str) {
    if api.stopping.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

/// The labels under which a request is counted.
#[derive(Default)]
struct Named {
    entity: String,
    operation: &'static str,
}

impl Named {
    /// The entity with this name, still percent-encoded.
    fn entity(&mut self, api: &Api, name: &str) -> Result<Arc<Entity>, Problem> {
        let name = percent_decode_str(name).decode_utf8().unwrap_or_default();
        let entity = api.entity(&name)?;
        self.entity.clone_from(&entity.name);
        Ok(entity)
    }
}

/// A request in flight. It ends when this is dropped: with its response, or when its client disconnects.
struct UnderWay(Metrics);

impl UnderWay {
    fn begin(metrics: &Metrics) -> Self {
        metrics.in_flight.inc();
        Self(metrics.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

async fn serve(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    let record = api.phases.now();
    let under_way = UnderWay::begin(&api.metrics);
    let mut named = Named { entity: String::new(), operation: "other" };
    let mut response = match handle(&api, &record, request, &mut named).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    drop(under_way);
    let headers = response.headers_mut();
    headers.entry(GENERATION).or_insert(HeaderValue::from(record.generation));
    headers.entry(SERVED_BY).or_insert(HeaderValue::from_static("none"));
    let label =
        RequestLabel { entity: named.entity, operation: named.operation, status: response.status().as_u16() };
    api.metrics.requests.get_or_create(&label).inc();
    api.metrics.tally.answered(label.operation, label.status);
    response
}

/// Handles a request: its caller and scopes first, then its body, then the stores.
async fn handle(
    api: &Arc<Api>,
    record: &Arc<PhaseRecord>,
    request: Request,
    named: &mut Named,
) -> Result<Response<Body>, Problem> {
    let (parts, body) = request.into_parts();
    let authorization = parts.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let caller = caller(&api.access_tokens, authorization)?;
    let deadline = match text(&parts.headers, "tandem-deadline-ms")? {
        None => api.deadline,
        Some(ms) => match ms.parse() {
            Ok(ms) if ms > 0 => Duration::from_millis(ms).min(MAX_DEADLINE),
            _ => return Err(Problem::bad_request("Tandem-Deadline-Ms is not a number of milliseconds")),
        },
    };
    let deadline = Instant::now() + deadline;
    let path = parts.uri.path().to_owned();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let context = Context { api, record, caller, parts: &parts, deadline };
    match (segments.as_slice(), &parts.method) {
        (["openapi.json"], &Method::GET) => {
            named.operation = "openapi";
            let _permit = context.admit()?;
            Ok(answer(StatusCode::OK, Some(openapi::document(api.entities.values()).to_string())))
        }
        (["v1", "batch"], &Method::POST) => {
            named.operation = "batch";
            context.caller.may_write_something()?;
            let body = context.body(body).await?;
            context.batch(&body).await
        }
        (["v1", name], method) => {
            let entity = named.entity(api, name)?;
            match *method {
                Method::GET => {
                    named.operation = "list";
                    context.caller.may(Access::Read, &entity.name)?;
                    context.list(entity).await
                }
                Method::POST => {
                    named.operation = "insert";
                    context.caller.may(Access::Write, &entity.name)?;
                    let body = context.body(body).await?;
                    let values = entity.parse_values(&body::parse::<Object>(&body)?)?;
                    context.change(entity, Action::Insert(values), &body).await
                }
                _ => Err(problem::method("a list is read with GET, a row inserted with POST")),
            }
        }
        (["v1", name, key @ ..], method) => {
            let entity = named.entity(api, name)?;
            let access = if *method == Method::GET { Access::Read } else { Access::Write };
            context.caller.may(access, &entity.name)?;
            let key = entity.parse_key(key.iter().copied())?;
            match *method {
                Method::GET => {
                    named.operation = "get";
                    context.get(entity, key).await
                }
                Method::PUT | Method::PATCH => {
                    named.operation = if *method == Method::PUT { "put" } else { "patch" };
                    let body = context.body(body).await?;
                    let values = entity.parse_values(&body::parse::<Object>(&body)?)?;
                    let action = if *method == Method::PUT {
                        Action::Put(key, values)
                    } else {
                        Action::Patch(key, values)
                    };
                    context.change(entity, action, &body).await
                }
                Method::DELETE => {
                    named.operation = "delete";
                    context.change(entity, Action::Delete(key), &[]).await
                }
                _ => Err(problem::method("a row takes GET, PUT, PATCH and DELETE")),
            }
        }
        _ => Err(Problem::not_found("the paths are those of /openapi.json")),
    }
}
