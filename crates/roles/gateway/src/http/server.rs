//! The HTTP server: turns requests into reads and writes, and their results into responses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request};
use axum::response::IntoResponse as _;
use axum::routing::get;
use percent_encoding::percent_decode_str;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tandem_http_api::{AccessToken, Problem};
use tandem_model::PhaseRecord;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::{self, Object};
use crate::entity::Entity;
use crate::http::auth::{Access, Caller, Scope, caller};
use crate::http::batch;
use crate::http::openapi;
use crate::metrics::{Metrics, RequestLabel};
use crate::phases::Phases;
use crate::problem;
use crate::read::page::Page;
use crate::read::reads::{Answer, Query, Read, Reads};
use crate::write::change::{Action, Change, Condition};
use crate::write::writes::{Answering, Claim, Writes, Written, many, one};
use crate::write_tokens::WriteToken;

const SERVED_BY: HeaderName = HeaderName::from_static("tandem-served-by");
const FALLBACK: HeaderName = HeaderName::from_static("tandem-fallback");
const GENERATION: HeaderName = HeaderName::from_static("tandem-generation");
const TOKEN: HeaderName = HeaderName::from_static("tandem-token");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest deadline that a request may set.
const MAX_DEADLINE: Duration = Duration::from_mins(1);
/// The longest idempotency key, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;

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

/// The state that all requests share.
pub(crate) struct Api {
    pub(crate) entities: BTreeMap<String, Arc<Entity>>,
    pub(crate) phases: Phases,
    pub(crate) reads: Arc<Reads>,
    pub(crate) writes: Arc<Writes>,
    /// The access tokens and their scopes. Empty means that every caller may do everything.
    pub(crate) access_tokens: Vec<AccessToken<Scope>>,
    /// How long a request may take if it sets no deadline.
    pub(crate) deadline: Duration,
    /// The largest body, in bytes.
    pub(crate) max_body: usize,
    pub(crate) metrics: Metrics,
    /// Permits for the requests in flight.
    pub(crate) admission: Arc<Semaphore>,
    /// Writes, which continue if their clients disconnect.
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

/// The labels under which a request is counted.
#[derive(Default)]
struct Named {
    entity: String,
    operation: &'static str,
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
    let mut response = match Arc::clone(&api.admission).try_acquire_owned() {
        Ok(permit) => match handle(&api, &record, permit, request, &mut named).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(),
        },
        Err(_) => problem::overloaded().into_response(),
    };
    drop(under_way);
    let headers = response.headers_mut();
    headers.insert(GENERATION, HeaderValue::from(record.generation));
    headers.entry(SERVED_BY).or_insert(HeaderValue::from_static("none"));
    let label =
        RequestLabel { entity: named.entity, operation: named.operation, status: response.status().as_u16() };
    api.metrics.requests.get_or_create(&label).inc();
    response
}

/// The text of a header, if it is present.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let unreadable = |_| Problem::bad_request(format!("the header {name} is not text"));
    headers.get(name).map(|value| value.to_str().map_err(unreadable)).transpose()
}

async fn handle(
    api: &Arc<Api>,
    record: &Arc<PhaseRecord>,
    permit: OwnedSemaphorePermit,
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
    let context = Context { api, record, permit: Arc::new(permit), caller, parts: &parts, deadline };
    match (segments.as_slice(), &parts.method) {
        (["openapi.json"], &Method::GET) => {
            named.operation = "openapi";
            Ok(answer(StatusCode::OK, Some(openapi::document(api.entities.values()).to_string())))
        }
        (["v1", "batch"], &Method::POST) => {
            named.operation = "batch";
            let body = context.body(body).await?;
            context.batch(&body).await
        }
        (["v1", name], method) => {
            let entity = context.entity(name, named)?;
            match *method {
                Method::GET => {
                    named.operation = "list";
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
            let entity = context.entity(name, named)?;
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

/// A request whose caller is identified.
struct Context<'a> {
    api: &'a Arc<Api>,
    record: &'a Arc<PhaseRecord>,
    /// The permit of the request. A write that outlives its client's connection keeps it.
    permit: Arc<OwnedSemaphorePermit>,
    caller: Caller<'a>,
    parts: &'a request::Parts,
    deadline: Instant,
}

impl Context<'_> {
    fn entity(&self, name: &str, named: &mut Named) -> Result<Arc<Entity>, Problem> {
        let name = percent_decode_str(name).decode_utf8().unwrap_or_default();
        let unknown = || Problem::not_found("no entity has this name");
        let entity = self.api.entities.get(&*name).cloned().ok_or_else(unknown)?;
        named.entity.clone_from(&entity.name);
        Ok(entity)
    }

    fn header(&self, name: &str) -> Result<Option<&str>, Problem> {
        text(&self.parts.headers, name)
    }

    /// Reads the body, within its size limit and the deadline.
    async fn body(&self, body: Body) -> Result<Bytes, Problem> {
        let limit = self.api.max_body;
        let declared = self.header("content-length")?.and_then(|text| text.parse::<usize>().ok());
        if declared.is_some_and(|length| length > limit) {
            return Err(problem::too_large(limit));
        }
        match tokio::time::timeout_at(self.deadline, axum::body::to_bytes(body, limit)).await {
            Err(_) => Err(problem::late()),
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => {
                let limited =
                    std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("limit"));
                Err(if limited {
                    problem::too_large(limit)
                } else {
                    Problem::bad_request("the body ended before it was complete")
                })
            }
        }
    }

    async fn read(&self, entity: Arc<Entity>, query: Query) -> Result<Answer, Problem> {
        let token = self.header(TOKEN.as_str())?.map(WriteToken::parse).transpose()?;
        let read = Read { entity, query, token, deadline: self.deadline };
        let header = |name: &str| self.header(name).ok().flatten().map(str::to_owned);
        self.api.reads.read(self.record, read, header).await
    }

    async fn get(
        &self,
        entity: Arc<Entity>,
        key: Vec<tandem_model::Value>,
    ) -> Result<Response<Body>, Problem> {
        let found = self.read(Arc::clone(&entity), Query::Key(key)).await?;
        let mut response = if let Some(row) = found.rows.first() {
            let mut response = answer(StatusCode::OK, Some(entity.json(row).to_string()));
            put(&mut response, header::ETAG, &entity.etag(row));
            response
        } else {
            Problem::not_found(format!("{} has no row with this key", entity.name)).into_response()
        };
        served(&mut response, &found);
        Ok(response)
    }

    async fn list(&self, entity: Arc<Entity>) -> Result<Response<Body>, Problem> {
        self.caller.may(Access::Read, &entity.name)?;
        let page = Page::parse(&entity, self.parts.uri.query().unwrap_or_default())?;
        let found = self.read(Arc::clone(&entity), Query::Page(page.clone())).await?;
        let rows = &found.rows[..found.rows.len().min(page.limit)];
        let next = (found.rows.len() > page.limit).then(|| rows.last().map(|row| page.next(&entity, row)));
        let shown = page.shown(&entity);
        let items: Vec<_> = rows.iter().map(|row| entity.json_of(row, &shown)).collect();
        let mut response =
            answer(StatusCode::OK, Some(json!({ "items": items, "next": next.flatten() }).to_string()));
        served(&mut response, &found);
        Ok(response)
    }

    async fn change(
        &self,
        entity: Arc<Entity>,
        action: Action,
        body: &[u8],
    ) -> Result<Response<Body>, Problem> {
        let condition = Condition::parse(self.header("if-match")?, self.header("if-none-match")?)?;
        let operation = action.name();
        self.write(operation, vec![Change { entity, action, condition }], one, body).await
    }

    async fn batch(&self, body: &[u8]) -> Result<Response<Body>, Problem> {
        let changes = batch::changes(body, |name| self.api.entities.get(name).cloned())?;
        for change in &changes {
            self.caller.may(Access::Write, &change.entity.name)?;
        }
        self.write("batch", changes, many, body).await
    }

    /// Writes in a separate task, so that a client that disconnects does not stop a write half-way.
    async fn write(
        &self,
        operation: &'static str,
        changes: Vec<Change>,
        answering: Answering,
        body: &[u8],
    ) -> Result<Response<Body>, Problem> {
        let claim = self.claim(body)?;
        let (writes, record, deadline) =
            (Arc::clone(&self.api.writes), Arc::clone(self.record), self.deadline);
        let permit = Arc::clone(&self.permit);
        let writing = self.api.tasks.spawn(async move {
            let written = writes.write(&record, operation, &changes, claim, answering, deadline).await;
            drop(permit);
            written
        });
        let Written { reply, token, replayed } =
            writing.await.map_err(|_| problem::internal("the write panicked"))??;
        let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
        let mut response = answer(status, reply.body);
        put(&mut response, TOKEN, &token);
        if let Some(tag) = reply.etag {
            put(&mut response, header::ETAG, &tag);
        }
        if let Some(path) = reply.location {
            put(&mut response, header::LOCATION, &path);
        }
        if replayed {
            put(&mut response, REPLAYED, "true");
        }
        put(&mut response, SERVED_BY, "mysql");
        Ok(response)
    }

    /// The claim of the request's idempotency key. The same key of another caller is a different claim.
    fn claim(&self, body: &[u8]) -> Result<Option<Claim>, Problem> {
        let Some(key) = self.header("idempotency-key")? else { return Ok(None) };
        if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY {
            return Err(Problem::bad_request(format!(
                "an Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY} bytes"
            )));
        }
        if self.api.writes.idempotency_table.is_none() {
            let detail = "Idempotency-Key is not supported here: set [gateway] idempotency_table";
            return Err(Problem::bad_request(detail));
        }
        let hash = |parts: &[&[u8]]| {
            let mut hasher = Sha256::new();
            for part in parts {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
            hasher.finalize().into()
        };
        let (method, path) = (self.parts.method.as_str().as_bytes(), self.parts.uri.path().as_bytes());
        let condition = [self.header("if-match")?, self.header("if-none-match")?];
        let [matches, none_match] = condition.map(|text| text.unwrap_or_default().as_bytes());
        Ok(Some(Claim {
            id: hash(&[self.caller.name().as_bytes(), key.as_bytes()]),
            request: hash(&[method, path, matches, none_match, body]),
        }))
    }
}

fn answer(status: StatusCode, body: Option<String>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if let Some(body) = body {
        *response.body_mut() = Body::from(body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}

/// Sets a header. A value that a header cannot hold is left out.
fn put(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn served(response: &mut Response<Body>, found: &Answer) {
    put(response, SERVED_BY, found.served_by);
    if let Some(reason) = found.fallback {
        put(response, FALLBACK, reason.name());
    }
}
