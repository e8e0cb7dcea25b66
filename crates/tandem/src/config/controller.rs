//! `[controller]`: the rollout plan and its gates.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::http::Uri;
use serde::Deserialize;
use tandem_controller::ControllerConfig;
use tandem_http_api::RequestRules;
use tandem_model::{CohortAttribute, DualWriteMode, Phase};
use tandem_protocol::rollout::{Expressions, Policy, Serving};

use crate::config::limits::{LimitsSection, request_rules};
use crate::config::tokens::{TokenSection, access_tokens};
use crate::tls::Endpoint;

/// `[controller]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ControllerSection {
    listen: SocketAddr,
    /// Allows serving an address other than loopback without TLS.
    insecure: bool,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    /// The host names under which clients reach the controller, besides `localhost`, addresses and those of `urls`.
    allowed_hosts: Vec<String>,
    /// The origins of web pages that may give orders.
    allowed_origins: Vec<String>,
    pub(crate) limits: LimitsSection,
    /// The controllers that `tandem phase` asks. The default is the address of `listen`.
    urls: Vec<String>,
    /// The CA that `tandem phase` trusts. The default is the CAs that the system trusts.
    ca: Option<PathBuf>,
    auto: bool,
    interval_ms: u64,
    window_seconds: u64,
    canary_percents: Vec<f64>,
    soak_seconds: BTreeMap<String, f64>,
    gates: BTreeMap<String, Expressions>,
    rollback: BTreeMap<String, Expressions>,
    validate: f64,
    shadow: f64,
    fallback: bool,
    dual_write: DualWrite,
    cohort: CohortSection,
    token: Vec<TokenSection>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DualWrite {
    InRequest,
    Behind,
}

/// `[controller.cohort]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CohortSection {
    by: String,
    /// Each cohort attribute with the values that belong to the cohort.
    values: BTreeMap<String, Vec<String>>,
}

impl Default for CohortSection {
    fn default() -> Self {
        Self { by: CohortAttribute::Key.to_string(), values: BTreeMap::new() }
    }
}

impl Default for ControllerSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9465)),
            insecure: false,
            tls_certificate: None,
            tls_key: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            limits: LimitsSection::default(),
            urls: Vec::new(),
            ca: None,
            auto: false,
            interval_ms: 1000,
            window_seconds: 300,
            canary_percents: vec![1.0, 5.0, 25.0, 50.0, 100.0],
            soak_seconds: BTreeMap::new(),
            gates: BTreeMap::new(),
            rollback: BTreeMap::new(),
            validate: 1.0,
            shadow: 0.01,
            fallback: true,
            dual_write: DualWrite::InRequest,
            cohort: CohortSection::default(),
            token: Vec::new(),
        }
    }
}

impl ControllerSection {
    /// Rejects settings that cannot work or are not safe.
    pub(crate) fn validate(&self) -> Result<()> {
        for (key, zero) in
            [("interval_ms", self.interval_ms == 0), ("window_seconds", self.window_seconds == 0)]
        {
            if zero {
                bail!("controller.{key} must be above 0");
            }
        }
        for (key, share) in [("validate", self.validate), ("shadow", self.shadow)] {
            if !(0.0..=1.0).contains(&share) {
                bail!("controller.{key} must be between 0 and 1");
            }
        }
        self.endpoint().validate()?;
        if !self.listen.ip().is_loopback() && self.token.is_empty() {
            bail!(
                "controller.listen {} can be reached by others, and without any [[controller.token]] they could \
                 change the phase",
                self.listen
            );
        }
        if let Some(url) =
            self.urls.iter().find(|url| !url.starts_with("http://") && !url.starts_with("https://"))
        {
            bail!("{url:?} in controller.urls begins neither with http:// nor with https://");
        }
        self.limits.validate("controller")?;
        self.rules()?;
        self.policy()?;
        self.serving()?;
        Ok(())
    }

    /// The endpoint of the API.
    pub(crate) fn endpoint(&self) -> Endpoint<'_> {
        Endpoint {
            section: "controller",
            listen: self.listen,
            insecure: self.insecure,
            certificate: self.tls_certificate.as_ref(),
            key: self.tls_key.as_ref(),
        }
    }

    /// The addresses that `tandem phase` asks.
    pub(crate) fn urls(&self) -> Vec<String> {
        if self.urls.is_empty() {
            let scheme = if self.tls_certificate.is_some() { "https" } else { "http" };
            vec![format!("{scheme}://{}", self.listen)]
        } else {
            self.urls.clone()
        }
    }

    /// The CA that `tandem phase` trusts, if not those of the system.
    pub(crate) fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Whether tokens may be sent without TLS, where others can read them.
    pub(crate) fn insecure(&self) -> bool {
        self.insecure
    }

    /// `tandem phase` reaches this controller under one of the names in `urls`.
    fn rules(&self) -> Result<RequestRules> {
        let host = |url: &String| Some(url.parse::<Uri>().ok()?.host()?.to_owned());
        let named = self.urls.iter().filter_map(host).filter(|host| !host.starts_with('['));
        let hosts: Vec<String> = self.allowed_hosts.iter().cloned().chain(named).collect();
        request_rules("controller", &hosts, &self.allowed_origins)
    }

    fn policy(&self) -> Result<Policy> {
        let mut soak = BTreeMap::new();
        for (name, seconds) in &self.soak_seconds {
            let phase = phase("soak_seconds", name)?;
            let held = Duration::try_from_secs_f64(*seconds);
            soak.insert(phase, held.with_context(|| format!("controller.soak_seconds.{name}"))?);
        }
        let by_phase = |key, section: &BTreeMap<String, Expressions>| {
            section.iter().map(|(name, gates)| Ok((phase(key, name)?, gates.clone()))).collect::<Result<_>>()
        };
        let (gates, rollback) = (by_phase("gates", &self.gates)?, by_phase("rollback", &self.rollback)?);
        Ok(Policy::new(&self.canary_percents, &soak, &gates, &rollback)?)
    }

    fn serving(&self) -> Result<Serving> {
        let fact = |text: &str| text.parse().map_err(anyhow::Error::msg).context("controller.cohort");
        let mut cohort_values = Vec::new();
        for (name, values) in &self.cohort.values {
            let name: CohortAttribute = fact(name)?;
            cohort_values.extend(values.iter().map(|value| (name.clone(), value.clone())));
        }
        Ok(Serving {
            cohort_by: fact(&self.cohort.by)?,
            cohort_values,
            validate: self.validate,
            shadow: self.shadow,
            fallback: self.fallback,
            dual_write: match self.dual_write {
                DualWrite::InRequest => DualWriteMode::InRequest,
                DualWrite::Behind => DualWriteMode::Behind,
            },
        })
    }

    pub(crate) fn controller(&self) -> Result<ControllerConfig> {
        Ok(ControllerConfig {
            policy: self.policy()?,
            serving: self.serving()?,
            auto: self.auto,
            interval: Duration::from_millis(self.interval_ms),
            window: Duration::from_secs(self.window_seconds),
            tokens: access_tokens("controller", &self.token)?,
            rules: self.rules()?,
            body_timeout: self.limits.body_timeout(),
        })
    }
}

fn phase(key: &str, name: &str) -> Result<Phase> {
    name.parse().map_err(anyhow::Error::msg).with_context(|| format!("controller.{key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Result<ControllerConfig> {
        let section: ControllerSection = toml::from_str(text)?;
        section.validate()?;
        section.controller()
    }

    fn refused(text: &str) -> String {
        format!("{:#}", section(text).unwrap_err())
    }

    #[test]
    fn every_setting_has_a_default() {
        let config = section("").unwrap();
        assert_eq!(config.policy.plan.stages().len(), 10);
        assert!(!config.auto);
    }

    #[test]
    fn the_hosts_of_urls_are_allowed() {
        let config =
            section("urls = ['https://ctl1:9465', 'http://[::1]:9465']\nallowed_hosts = ['ctl']").unwrap();
        assert_eq!(config.rules.hosts, ["ctl".parse().unwrap(), "ctl1".parse().unwrap()]);
        assert!(refused("allowed_origins = ['*']").contains("controller.allowed_origins"));
        assert!(refused("[limits]\nsend_timeout_ms = 0").contains("controller.limits.send_timeout_ms"));
    }

    #[test]
    fn settings_are_applied() {
        let config = section(
            "auto = true\ncanary_percents = [50]\n[soak_seconds]\ncanary = 0.5\n[gates.verify]\nquiet = \
             'out_of_band_rows == 0'\n[cohort]\nby = 'column:customer'\nvalues = { 'header:tandem-country' = ['PT'] }\n",
        )
        .unwrap();
        assert_eq!(config.policy.soak(Phase::Canary), Duration::from_millis(500));
        assert!(config.policy.gates(Phase::Verify).iter().any(|gate| gate.name() == "quiet"));
        assert_eq!(config.serving.cohort_values.len(), 1);
    }

    #[test]
    fn tandem_phase_asks_the_served_address() {
        let urls = |text: &str| toml::from_str::<ControllerSection>(text).unwrap().urls();
        assert_eq!(urls(""), ["http://127.0.0.1:9465"]);
        assert_eq!(urls("tls_key = 'k'\ntls_certificate = 'c'"), ["https://127.0.0.1:9465"]);
        let configured = "urls = ['https://a:1', 'http://localhost:2']";
        assert_eq!(urls(configured), ["https://a:1", "http://localhost:2"]);
        assert!(section(configured).is_ok());
    }

    #[test]
    fn invalid_settings_are_rejected_by_key() {
        for (text, word) in [
            ("[gates.verify]\ng = 'lag < 1'", "controller.gates.verify"),
            ("[gates.verfy]\ng = 'full_scan_clean'", "verfy"),
            ("[soak_seconds]\ncanary = -1", "controller.soak_seconds.canary"),
            ("validate = 1.5", "controller.validate"),
            ("listen = '0.0.0.0:1'", "controller.insecure"),
            ("listen = '0.0.0.0:1'\ninsecure = true", "[[controller.token]]"),
            ("listen = '0.0.0.0:1'\ntls_key = 'k'\ntls_certificate = 'c'", "[[controller.token]]"),
            ("tls_key = 'k'", "controller.tls_certificate"),
            ("urls = ['c:9465']", "controller.urls"),
            ("[cohort]\nby = 'cookie'", "controller.cohort"),
            ("canary_percents = [5, 1]", "controller.canary_percents"),
            ("interval_ms = 0", "controller.interval_ms"),
            ("[[token]]\nname = 'a'\nsecret = 'hush'\nscopes = ['read']", "env:NAME"),
        ] {
            let said = refused(text);
            assert!(said.contains(word) && !said.contains("hush"), "{said}");
        }
    }
}
