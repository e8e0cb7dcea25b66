//! `[gateway.limits]` and `[controller.limits]`: what slow and silent clients of an API may take. Also the hosts and web
//! pages that may use it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tandem_http_api::{ConnectionLimits, RequestRules};

/// The limits of an API's clients.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsSection {
    max_connections: usize,
    header_timeout_ms: u64,
    body_timeout_ms: u64,
    idle_timeout_ms: u64,
    send_timeout_ms: u64,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            max_connections: 2048,
            header_timeout_ms: 10_000,
            body_timeout_ms: 10_000,
            idle_timeout_ms: 75_000,
            send_timeout_ms: 60_000,
        }
    }
}

impl LimitsSection {
    /// Rejects limits with which nothing could be served. `section` is the section of the API.
    pub(crate) fn validate(&self, section: &str) -> Result<()> {
        let zero = [
            ("max_connections", self.max_connections == 0),
            ("header_timeout_ms", self.header_timeout_ms == 0),
            ("body_timeout_ms", self.body_timeout_ms == 0),
            ("idle_timeout_ms", self.idle_timeout_ms == 0),
            ("send_timeout_ms", self.send_timeout_ms == 0),
        ];
        if let Some((key, _)) = zero.iter().find(|(_, zero)| *zero) {
            bail!("{section}.limits.{key} must be above 0");
        }
        Ok(())
    }

    /// The limits of connections.
    pub(crate) fn connections(&self) -> ConnectionLimits {
        ConnectionLimits {
            max_connections: self.max_connections,
            header_timeout: Duration::from_millis(self.header_timeout_ms),
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            send_timeout: Duration::from_millis(self.send_timeout_ms),
        }
    }

    /// How long the body of a request may take.
    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }
}

/// The hosts and origins that an API accepts. `section` is its section of the configuration.
pub(crate) fn request_rules(section: &str, hosts: &[String], origins: &[String]) -> Result<RequestRules> {
    let parse = |key: &'static str| move || format!("{section}.{key}");
    let hosts = hosts.iter().map(|host| host.parse().map_err(anyhow::Error::msg));
    let origins = origins.iter().map(|origin| origin.parse().map_err(anyhow::Error::msg));
    Ok(RequestRules {
        hosts: hosts.collect::<Result<_>>().with_context(parse("allowed_hosts"))?,
        origins: origins.collect::<Result<_>>().with_context(parse("allowed_origins"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_rejected_by_name() {
        let section: LimitsSection = toml::from_str("idle_timeout_ms = 0").unwrap();
        let zero = section.validate("gateway").unwrap_err().to_string();
        assert!(zero.contains("gateway.limits.idle_timeout_ms"), "{zero}");
        assert!(LimitsSection::default().validate("gateway").is_ok());
        assert!(toml::from_str::<LimitsSection>("idle_timeout = 1").is_err());
        for (hosts, origins, key) in [
            (vec!["a:80".to_owned()], vec![], "allowed_hosts"),
            (vec![], vec!["a".to_owned()], "allowed_origins"),
        ] {
            let error = format!("{:#}", request_rules("controller", &hosts, &origins).unwrap_err());
            assert!(error.contains(&format!("controller.{key}")), "{error}");
        }
    }
}
