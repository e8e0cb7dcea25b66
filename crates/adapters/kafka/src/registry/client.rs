//! Requests to a schema registry with Confluent's API. Apicurio, Karapace and Redpanda support it too.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::error::ConsumeError;

/// Limit for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The registry's error code for an unknown id. The HTTP status is not enough: a wrong path is a 404 too.
const NO_SUCH_SCHEMA: u64 = 40403;

/// The connection to a registry.
#[derive(Clone)]
pub struct RegistryConfig {
    /// Its address, with the path before `/subjects`.
    pub url: String,
    /// The user and the password, for HTTP basic authentication.
    pub account: Option<(String, String)>,
    /// The trusted CAs, as PEM. Without a file, those that the system trusts.
    pub ca: Option<PathBuf>,
}

/// Why a request failed.
pub(crate) enum Failure {
    /// There was no answer, or the answer asks for a later retry.
    Unavailable(String),
    /// The registry refused the request.
    Refused(RegistryRefusal),
}

/// A registry's refusal.
pub(crate) struct RegistryRefusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The registry's message.
    pub(crate) said: String,
    code: Option<u64>,
}

impl RegistryRefusal {
    /// A successful answer with unexpected content.
    pub(crate) fn of_answer(said: &str) -> Self {
        Self { status: 200, said: said.to_owned(), code: None }
    }

    pub(crate) fn is_unknown_schema(&self) -> bool {
        self.status == 404 && self.code == Some(NO_SUCH_SCHEMA)
    }

    /// Converts it to an error of the request that was refused.
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

/// An HTTP client of one registry.
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
}

impl Client {
    pub(crate) fn new(config: &RegistryConfig) -> Result<Self, ConsumeError> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_TIMEOUT))
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

    /// Sends a GET request, or a POST request if there is a body.
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
        let refused = |said: String| Err(Failure::Refused(RegistryRefusal { status, said, code }));
        let said = || json["message"].as_str().map_or_else(|| format!("HTTP status {status}"), str::to_owned);
        match status {
            200..300 if !json.is_null() => Ok(json),
            200..300 => refused("the answer is not JSON".to_owned()),
            408 | 429 | 500.. => Err(Failure::Unavailable(said())),
            _ => refused(said()),
        }
    }
}

/// The TLS configuration of an HTTP client. It trusts the certificates in the file `ca`, or else those that
/// the system trusts. `name` is the file's key in the configuration, for error messages. TLS uses the
/// system's OpenSSL.
///
/// # Errors
/// The file cannot be read or contains no certificate.
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
