//! A schema registry with Confluent's API, which Apicurio, Karapace and Redpanda speak too.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;
use tandem_wire::ReadSchema;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::{ConsumeError, OutRecord, Refusals};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// First and longest pause before an unavailable registry is asked again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How long an id that the registry does not know is asked for again: one of several registries may
/// learn of it late.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to reach a registry.
#[derive(Clone)]
pub struct RegistryConfig {
    /// Its address, with the path before `/subjects`.
    pub url: String,
    /// User and password (HTTP's basic authentication).
    pub account: Option<(String, String)>,
    /// The CAs to trust, as PEM; none: those that the system trusts.
    pub ca: Option<PathBuf>,
}

/// Schemas kept in a registry, and those of them that were met. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
    refusals: Refusals,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By the registry's ids.
    schemas: HashMap<u32, Arc<str>>,
    readers: HashMap<u32, Arc<ReadSchema>>,
    /// The registry's id of each of Tandem's own.
    ids: HashMap<u32, u32>,
    subjects: HashSet<(String, u32)>,
}

/// What became of a request.
enum Failure {
    /// Nobody answered, or the answer was to come again later.
    Unavailable(String),
    /// The answer was no.
    Refused(u16, String),
}

impl Registry {
    /// Waits until the registry answers.
    pub(crate) async fn open(config: &RegistryConfig, refusals: &Refusals) -> Result<Self, ConsumeError> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER))
            .tls_config(http_tls(config.ca.as_deref(), "schema_registry.ca")?)
            .build()
            .into();
        let authorization = config
            .account
            .as_ref()
            .map(|(user, password)| format!("Basic {}", BASE64.encode(format!("{user}:{password}"))));
        let url = config.url.trim_end_matches('/').to_owned();
        let inner = Inner { agent, url, authorization, refusals: refusals.clone(), known: Mutex::default() };
        let this = Self { inner: Arc::new(inner) };
        let asked = this.patiently("/subjects", None).await;
        asked.map_err(|(status, said)| this.refused("asking for its subjects", status, &said))?;
        Ok(this)
    }

    pub(crate) async fn register(&self, subject: &str, own: u32, json: &str) -> Result<(), ConsumeError> {
        if self.lock().subjects.contains(&(subject.to_owned(), own)) {
            return Ok(());
        }
        let body = serde_json::json!({ "schema": json }).to_string();
        let path = format!("/subjects/{subject}/versions");
        let answer = self.patiently(&path, Some(body)).await.map_err(|(status, said)| match status {
            409 => ConsumeError::IncompatibleSchema { subject: subject.to_owned(), cause: said },
            _ => self.refused(&format!("registering a schema of `{subject}`"), status, &said),
        })?;
        let id = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| self.refused("registering a schema", 200, "the answer has no id"))?;
        let mut known = self.lock();
        known.ids.insert(own, id);
        known.schemas.insert(id, json.into());
        known.subjects.insert((subject.to_owned(), own));
        Ok(())
    }

    pub(crate) fn reframe(&self, records: &mut [OutRecord]) {
        let known = self.lock();
        let change = |framed: &mut [u8]| {
            if let Ok(id) = tandem_wire::schema_id(framed)
                && let Some(id) = known.ids.get(&id)
            {
                framed[1..5].copy_from_slice(&id.to_be_bytes());
            }
        };
        for record in records {
            change(&mut record.key);
            if let Some(value) = &mut record.value {
                change(value);
            }
        }
    }

    pub(crate) async fn get(&self, id: u32) -> Result<Arc<ReadSchema>, ConsumeError> {
        if let Some(reader) = self.lock().readers.get(&id) {
            return Ok(Arc::clone(reader));
        }
        let began = Instant::now();
        let json: Arc<str> = loop {
            match self.patiently(&format!("/schemas/ids/{id}"), None).await {
                Ok(answer) => break answer["schema"].as_str().unwrap_or_default().into(),
                Err((404, _)) if began.elapsed() < PATIENCE => tokio::time::sleep(BACKOFF.0 * 5).await,
                Err((404, _)) => return Err(ConsumeError::UnknownSchema { id, waited: PATIENCE }),
                Err((status, said)) => {
                    return Err(self.refused(&format!("asking for schema {id}"), status, &said));
                }
            }
        };
        let reader = ReadSchema::parse(&json).map_err(|source| ConsumeError::Schema { id, source })?;
        let reader = Arc::new(reader.under(id));
        let mut known = self.lock();
        known.schemas.insert(id, json);
        known.readers.insert(id, Arc::clone(&reader));
        Ok(reader)
    }

    pub(crate) fn json(&self, id: u32) -> Option<Arc<str>> {
        self.lock().schemas.get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, doing: &str, status: u16, said: &str) -> ConsumeError {
        ConsumeError::Registry {
            url: self.inner.url.clone(),
            doing: doing.to_owned(),
            status,
            said: said.into(),
        }
    }

    /// Asks until there is an answer. A refusal is its status and what the registry says.
    async fn patiently(&self, path: &str, body: Option<String>) -> Result<Json, (u16, String)> {
        let mut pause = BACKOFF.0;
        let mut told = None;
        loop {
            let (inner, path, body) = (Arc::clone(&self.inner), path.to_owned(), body.clone());
            let asked = tokio::task::spawn_blocking(move || inner.ask(&path, body.as_deref()));
            let why = match asked.await {
                Ok(Ok(answer)) => {
                    if told.is_some() {
                        self.inner.refusals.clear();
                        tracing::info!(registry = self.inner.url, "the schema registry answers again");
                    }
                    return Ok(answer);
                }
                Ok(Err(Failure::Refused(status, said))) => return Err((status, said)),
                Ok(Err(Failure::Unavailable(why))) => why,
                Err(_) => "this process is ending".to_owned(),
            };
            if told.as_ref() != Some(&why) {
                tracing::warn!(
                    registry = self.inner.url,
                    error = why,
                    "the schema registry does not answer; asking again"
                );
                told = Some(why.clone());
            }
            self.inner
                .refusals
                .note(format!("the schema registry at {} does not answer: {why}", self.inner.url));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }
}

impl Inner {
    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        }
    }

    fn ask(&self, path: &str, body: Option<&str>) -> Result<Json, Failure> {
        const KIND: &str = "application/vnd.schemaregistry.v1+json";
        let url = format!("{}{path}", self.url);
        let answer = if let Some(body) = body {
            let request = self.agent.post(&url).header("Content-Type", KIND).header("Accept", KIND);
            self.authorized(request).send(body)
        } else {
            self.authorized(self.agent.get(&url).header("Accept", KIND)).call()
        };
        let mut answer = answer.map_err(|e| Failure::Unavailable(e.to_string()))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().map_err(|e| Failure::Unavailable(e.to_string()))?;
        let json: Json = serde_json::from_str(&text).unwrap_or_default();
        let said = || json["message"].as_str().map_or_else(|| format!("HTTP status {status}"), str::to_owned);
        match status {
            200..300 if !json.is_null() => Ok(json),
            200..300 => Err(Failure::Refused(status, "the answer is no JSON: is the address right?".into())),
            408 | 429 | 500.. => Err(Failure::Unavailable(said())),
            _ => Err(Failure::Refused(status, said())),
        }
    }
}

/// TLS of an HTTP client, by the system's OpenSSL: with the certificates of the file `ca`, named so in
/// the configuration, or those that the system trusts.
pub fn http_tls(ca: Option<&Path>, name: &str) -> Result<TlsConfig, ConsumeError> {
    let roots = match ca {
        None => RootCerts::PlatformVerifier,
        Some(path) => {
            let problem = |why: &str| ConsumeError::Config(format!("{name} {}: {why}", path.display()));
            let pem = std::fs::read(path).map_err(|e| problem(&e.to_string()))?;
            let found: Vec<Certificate<'static>> = parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if found.is_empty() {
                return Err(problem("it holds no certificate in PEM"));
            }
            RootCerts::new_with_certs(&found)
        }
    };
    Ok(TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots).build())
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryConfig")
            .field("url", &self.url)
            .field("user", &self.account.as_ref().map(|(user, _)| user))
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}
