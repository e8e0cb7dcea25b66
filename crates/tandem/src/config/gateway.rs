//! `[gateway]`: the data API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tandem_gateway::{GatewayConfig, Idempotency};

use crate::config::limits::{LimitsSection, request_rules};
use crate::config::tokens::{TokenSection, access_tokens};
use crate::tls::Endpoint;

/// `[gateway]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GatewaySection {
    listen: SocketAddr,
    /// What distinguishes this gateway from others. The default is the host's name and the port.
    name: Option<String>,
    /// Allows serving an address other than loopback without TLS or without tokens.
    insecure: bool,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    /// The host names under which clients reach the gateway, besides `localhost` and addresses.
    allowed_hosts: Vec<String>,
    /// The origins of web pages that may write.
    allowed_origins: Vec<String>,
    pub(crate) limits: LimitsSection,
    /// Connections to MySQL at most.
    pub(crate) connections: usize,
    max_in_flight: usize,
    max_body_bytes: usize,
    max_page_bytes: usize,
    deadline_ms: u64,
    mysql_connect_ms: u64,
    cassandra_read_ms: u64,
    cassandra_write_ms: u64,
    /// How long a read waits until its token is applied. 0: it does not wait.
    token_wait_ms: u64,
    max_async_dual_writes: usize,
    cohort_headers: Vec<String>,
    idempotency_table: Option<String>,
    idempotency_hours: u64,
    token: Vec<TokenSection>,
}

impl Default for GatewaySection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            name: None,
            insecure: false,
            tls_certificate: None,
            tls_key: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            limits: LimitsSection::default(),
            connections: 32,
            max_in_flight: 256,
            max_body_bytes: 1 << 20,
            max_page_bytes: 1 << 20,
            deadline_ms: 5000,
            mysql_connect_ms: 2000,
            cassandra_read_ms: 250,
            cassandra_write_ms: 1000,
            token_wait_ms: 250,
            max_async_dual_writes: 1000,
            cohort_headers: vec!["tandem-cohort".into(), "tandem-country".into()],
            idempotency_table: None,
            idempotency_hours: 24,
            token: Vec::new(),
        }
    }
}

impl GatewaySection {
    /// Rejects settings that cannot work or are not safe.
    pub(crate) fn validate(&self) -> Result<()> {
        let zero = [
            ("connections", self.connections == 0),
            ("max_in_flight", self.max_in_flight == 0),
            ("max_body_bytes", self.max_body_bytes == 0),
            ("max_page_bytes", self.max_page_bytes == 0),
            ("deadline_ms", self.deadline_ms == 0),
            ("mysql_connect_ms", self.mysql_connect_ms == 0),
            ("cassandra_read_ms", self.cassandra_read_ms == 0),
            ("cassandra_write_ms", self.cassandra_write_ms == 0),
            ("max_async_dual_writes", self.max_async_dual_writes == 0),
            ("idempotency_hours", self.idempotency_hours == 0),
        ];
        if let Some((key, _)) = zero.iter().find(|(_, zero)| *zero) {
            bail!("gateway.{key} must be above 0");
        }
        self.endpoint().validate()?;
        self.limits.validate("gateway")?;
        if self.name.as_ref().is_some_and(String::is_empty) {
            bail!("gateway.name is empty: leave it out for the host's name and the port");
        }
        request_rules("gateway", &self.allowed_hosts, &self.allowed_origins)?;
        if !self.listen.ip().is_loopback() && !self.insecure && self.token.is_empty() {
            bail!(
                "gateway.listen {} can be reached by others, and without any [[gateway.token]] they may do \
                 everything: add one, or set gateway.insecure = true",
                self.listen
            );
        }
        Ok(())
    }

    /// The configured name.
    pub(crate) fn name(&self) -> Option<String> {
        self.name.clone()
    }

    /// The configured address.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The endpoint of the API.
    pub(crate) fn endpoint(&self) -> Endpoint<'_> {
        Endpoint {
            section: "gateway",
            listen: self.listen,
            insecure: self.insecure,
            certificate: self.tls_certificate.as_ref(),
            key: self.tls_key.as_ref(),
        }
    }

    /// The table of idempotency keys, as configured.
    pub(crate) fn idempotency_table(&self) -> Option<&str> {
        self.idempotency_table.as_deref()
    }

    /// The connect timeout for MySQL.
    pub(crate) fn mysql_connect(&self) -> Duration {
        Duration::from_millis(self.mysql_connect_ms)
    }

    pub(crate) fn gateway(&self) -> Result<GatewayConfig> {
        let tokens = access_tokens("gateway", &self.token)?;
        let idempotency = match &self.idempotency_table {
            None => None,
            Some(table) => Some(Idempotency {
                table: table.parse().map_err(anyhow::Error::msg).context("gateway.idempotency_table")?,
                keep: Duration::from_hours(self.idempotency_hours),
            }),
        };
        Ok(GatewayConfig {
            max_in_flight: self.max_in_flight,
            max_body: self.max_body_bytes,
            max_page: self.max_page_bytes,
            deadline: Duration::from_millis(self.deadline_ms),
            cassandra_read: Duration::from_millis(self.cassandra_read_ms),
            cassandra_write: Duration::from_millis(self.cassandra_write_ms),
            token_wait: Duration::from_millis(self.token_wait_ms),
            max_async_dual_writes: self.max_async_dual_writes,
            tokens,
            rules: request_rules("gateway", &self.allowed_hosts, &self.allowed_origins)?,
            body_timeout: self.limits.body_timeout(),
            cohort_headers: self.cohort_headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
            idempotency,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Result<GatewayConfig> {
        let section: GatewaySection = toml::from_str(text)?;
        section.validate()?;
        section.gateway()
    }

    #[test]
    fn unsafe_settings_are_rejected() {
        assert!(section("").is_ok());
        assert!(section("listen = '127.0.0.1:1'").is_ok() && section("listen = '[::1]:1'").is_ok());
        let open = section("listen = '0.0.0.0:1'").unwrap_err().to_string();
        assert!(open.contains("gateway.insecure"), "{open}");
        assert!(section("listen = '0.0.0.0:1'\ninsecure = true").is_ok());
        let half = section("tls_key = 'k'").unwrap_err().to_string();
        assert!(half.contains("gateway.tls_certificate"), "{half}");
        let pair = "listen = '0.0.0.0:1'\ntls_key = 'k'\ntls_certificate = 'c'\n";
        let everybody = section(pair).unwrap_err().to_string();
        assert!(everybody.contains("[[gateway.token]]"), "{everybody}");
        let token = format!("{pair}[[token]]\nname = 'a'\nsecret = 'env:PATH'\nscopes = ['*:read']");
        assert!(section(&token).is_ok());
        let zero = section("max_in_flight = 0").unwrap_err().to_string();
        assert!(zero.contains("gateway.max_in_flight"), "{zero}");
        let zero = section("[limits]\nmax_connections = 0").unwrap_err().to_string();
        assert!(zero.contains("gateway.limits.max_connections"), "{zero}");
        let host = format!("{:#}", section("allowed_hosts = ['gw:80']").unwrap_err());
        assert!(host.contains("gateway.allowed_hosts"), "{host}");
    }

    #[test]
    fn tokens_are_secrets_of_sufficient_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let text = |scope: &str| {
            format!("[[token]]\nname = 'a'\nsecret = 'file:{}'\nscopes = ['{scope}']", path.display())
        };
        std::fs::write(&path, "short\n").unwrap();
        assert!(section(&text("*:read")).unwrap_err().to_string().contains("16 bytes"));
        std::fs::write(&path, "long enough for a token\n").unwrap();
        assert_eq!(section(&text("*:read")).unwrap().tokens.len(), 1);
        assert!(section(&text("read")).is_err());
        assert!(section("idempotency_table = 't'").is_err());
    }
}
