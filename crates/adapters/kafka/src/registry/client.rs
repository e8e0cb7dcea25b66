//! Requests to a schema registry with Confluent's API, which Apicurio, Karapace and Redpanda speak too.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::error::ConsumeError;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The registry's own code for an id that it does not know. A wrong path is a 404 as well.
const NO_SUCH_SCHEMA: u64 = 40403;

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

/// What became of a request.
pub(crate) enum Failure {
    /// Nobody answered, or the answer was to come again later.
    Unavailable(String),
    /// The answer was no.
    Refused(Refusal),
}

/// A registry's no.
pub(crate) struct Refusal {
    /// HTTP's status.
    pub(crate) status: u16,
    /// What the registry says.
    pub(crate) said: String,
    code: Option<u64>,
}

impl Refusal {
    /// An answer that is none.
    pub(crate) fn of_answer(said: &str) -> Self {
        Self { status: 200, said: said.to_owned(), code: None }
    }

    pub(crate) fn is_unknown_schema(&self) -> bool {
        self.status == 404 && self.code == Some(NO_SUCH_SCHEMA)
    }

    /// As an error of what was being done.
    pub(crate) fn while_doing(self, url: &str, doing: &str) -> ConsumeError {
        let remedy = match self.status {
            401 | 403 => "check schema_registry.user and password, and what they may do there",
            200..300 | 404 | 405 => {
                "check schema_registry.url: it must be the address of Confluent's API, with its path (of Apicurio \
                 …/apis/ccompat/v7)"
            }
            _ => "see the registry's log",
        };
        let (url, doing) = (url.to_owned(), doing.to_owned());
        ConsumeError::Registry { url, doing, status: self.status, said: self.said, remedy }
    }
}

/// Asks one registry.
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
}

impl Client {
    pub(crate) fn new(config: &RegistryConfig) -> Result<Self, ConsumeError> {
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
        Ok(Self { agent, url: config.url.trim_end_matches('/').to_owned(), authorization })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A GET, or a POST where there is a body.
    pub(crate) async fn ask(self: &Arc<Self>, path: &str, body: Option<&str>) -> Result<Json, Failure> {
        let (this, path, body) = (Arc::clone(self), path.to_owned(), body.map(str::to_owned));
        let asked = tokio::task::spawn_blocking(move || this.ask_now(&path, body.as_deref()));
        asked.await.unwrap_or_else(|_| Err(Failure::Unavailable("this process is ending".to_owned())))
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        }
    }

    fn ask_now(&self, path: &str, body: Option<&str>) -> Result<Json, Failure> {
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
        let code = json["error_code"].as_u64();
        let refused = |said: String| Err(Failure::Refused(Refusal { status, said, code }));
        let said = || json["message"].as_str().map_or_else(|| format!("HTTP status {status}"), str::to_owned);
        match status {
            200..300 if !json.is_null() => Ok(json),
            200..300 => refused("the answer is no JSON".to_owned()),
            408 | 429 | 500.. => Err(Failure::Unavailable(said())),
            _ => refused(said()),
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
