//! One request of the data API, once its caller is identified: what it reads and writes, and how it is answered.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, request};
use axum::response::IntoResponse as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tandem_http_api::{Problem, read_body};
use tandem_model::{PhaseRecord, Value};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::entity::Entity;
use crate::http::api::Api;
use crate::http::auth::{Access, Caller};
use crate::http::batch;
use crate::problem;
use crate::problem::OfField as _;
use crate::read::page::Page;
use crate::read::reads::{Answer, Query, Read};
use crate::write::change::{Action, Change, Condition};
use crate::write::writes::{Answering, Claim, Written, many, one};
use crate::write_tokens::WriteToken;

/// The store that served a read.
pub(crate) const SERVED_BY: HeaderName = HeaderName::from_static("tandem-served-by");
/// The generation of the phase that the request has followed.
pub(crate) const GENERATION: HeaderName = HeaderName::from_static("tandem-generation");
const FALLBACK: HeaderName = HeaderName::from_static("tandem-fallback");
const TOKEN: HeaderName = HeaderName::from_static("tandem-token");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest idempotency key, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;

/// A request whose caller is identified.
pub(crate) struct Context<'a> {
    pub(crate) api: &'a Arc<Api>,
    pub(crate) record: &'a Arc<PhaseRecord>,
    pub(crate) caller: Caller<'a>,
    pub(crate) parts: &'a request::Parts,
    pub(crate) deadline: Instant,
}

/// The text of a header, if it is present.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let unreadable = |_| Problem::bad_request(format!("the header {name} is not text"));
    headers.get(name).map(|value| value.to_str().map_err(unreadable)).transpose()
}

impl Context<'_> {
    /// Admits the request to the stores, unless there are too many. Before that it has cost little: its scopes are
    /// checked and its body is read, so a client that sends its body slowly keeps nobody out.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.api.admission).try_acquire_owned().map_err(|_| problem::overloaded())
    }

    pub(crate) fn header(&self, name: &str) -> Result<Option<&str>, Problem> {
        text(&self.parts.headers, name)
    }

    /// Reads the body, within its size limit, its own timeout and the deadline.
    pub(crate) async fn body(&self, body: Body) -> Result<Bytes, Problem> {
        let deadline = self.deadline.min(Instant::now() + self.api.body_timeout);
        read_body(&self.parts.headers, body, self.api.max_body, deadline).await
    }

    async fn read(&self, entity: Arc<Entity>, query: Query) -> Result<(Arc<PhaseRecord>, Answer), Problem> {
        let token = self.header(TOKEN.as_str())?.map(WriteToken::parse).transpose()?;
        let read = Read { entity, query, token, deadline: self.deadline };
        let header = |name: &str| self.header(name).ok().flatten().map(str::to_owned);
        self.api.reads.read(read, || self.admit(), header).await
    }

    pub(crate) async fn get(&self, entity: Arc<Entity>, key: Vec<Value>) -> Result<Response<Body>, Problem> {
        let (record, found) = self.read(Arc::clone(&entity), Query::Key(key)).await?;
        let mut response = if let Some(row) = found.rows.first() {
            let mut response = answer(StatusCode::OK, Some(entity.json(row).to_string()));
            put(&mut response, header::ETAG, &entity.etag(row));
            response
        } else {
            Problem::not_found(format!("{} has no row with this key", entity.name)).into_response()
        };
        served(&mut response, &record, &found);
        Ok(response)
    }

    /// Serves a page. It ends before the row with which it would be too large; its `next` goes on there.
    pub(crate) async fn list(&self, entity: Arc<Entity>) -> Result<Response<Body>, Problem> {
        let page = Page::parse(&entity, self.parts.uri.query().unwrap_or_default())?;
        let (record, found) = self.read(Arc::clone(&entity), Query::Page(page.clone())).await?;
        let shown = page.shown(&entity);
        let (mut items, mut size) = (Vec::new(), 0);
        for row in found.rows.iter().take(page.limit) {
            let item = entity.json_of(row, &shown).to_string();
            size += item.len() + 1;
            if size > self.api.max_page && !items.is_empty() {
                break;
            }
            items.push(item);
        }
        let last = found.rows[..items.len()].last().filter(|_| items.len() < found.rows.len());
        let next = json!(last.map(|row| page.next(&entity, row)));
        let body = format!("{{\"items\":[{}],\"next\":{next}}}", items.join(","));
        let mut response = answer(StatusCode::OK, Some(body));
        served(&mut response, &record, &found);
        Ok(response)
    }

    pub(crate) async fn change(
        &self,
        entity: Arc<Entity>,
        action: Action,
        body: &[u8],
    ) -> Result<Response<Body>, Problem> {
        let condition = Condition::parse(self.header("if-match")?, self.header("if-none-match")?)?;
        let operation = action.name();
        let blind = self.caller.may(Access::Read, &entity.name).is_err();
        let change = Change::new(entity, action, condition, blind)?;
        self.write(operation, vec![change], one, body).await
    }

    pub(crate) async fn batch(&self, body: &[u8]) -> Result<Response<Body>, Problem> {
        let changes = batch::changes(body, |name| {
            let entity = self.api.entity(name).map_err(|problem| problem.of_field("entity"))?;
            self.caller.may(Access::Write, &entity.name)?;
            let blind = self.caller.may(Access::Read, &entity.name).is_err();
            Ok((entity, blind))
        })?;
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
        let claim = self.claim(body, &changes)?;
        let permit = self.admit()?;
        let (writes, record, deadline) =
            (Arc::clone(&self.api.writes), Arc::clone(self.record), self.deadline);
        let writing = async move {
            let written = writes.write(&record, operation, &changes, claim, answering, deadline).await;
            drop(permit);
            written
        };
        let writing = self.api.tasks.spawn(writing.in_current_span());
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

    /// The claim of the request's idempotency key. The same key of another caller is a different claim. An answer that
    /// shows rows is not given again to a caller that may no longer read them.
    fn claim(&self, body: &[u8], changes: &[Change]) -> Result<Option<Claim>, Problem> {
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
        let mut request = vec![method, path, matches, none_match, body];
        let blind: Vec<u8> = changes.iter().map(|change| u8::from(change.blind)).collect();
        if blind.contains(&1) {
            request.push(&blind);
        }
        Ok(Some(Claim {
            id: hash(&[self.caller.name().as_bytes(), key.as_bytes()]),
            request: hash(&request),
        }))
    }
}

/// A response with a JSON body.
pub(crate) fn answer(status: StatusCode, body: Option<String>) -> Response<Body> {
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

fn served(response: &mut Response<Body>, record: &PhaseRecord, found: &Answer) {
    response.headers_mut().insert(GENERATION, HeaderValue::from(record.generation));
    put(response, SERVED_BY, found.served_by);
    if let Some(reason) = found.fallback {
        put(response, FALLBACK, reason.name());
    }
}
