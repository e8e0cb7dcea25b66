//! Connection security: the `tls`, `sasl` and `security` settings of the server sections.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tandem_kafka::{KafkaSecurity, RegistryConfig, Sasl, SaslMechanism, TlsFiles};
use tandem_mysql::{MysqlTls, TlsMode};

use crate::config::secret::Secret;

/// `tls` of `[mysql]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MysqlTlsSection {
    #[serde(default)]
    mode: MysqlTlsMode,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MysqlTlsMode {
    Disabled,
    Required,
    VerifyCa,
    #[default]
    VerifyIdentity,
}

impl MysqlTlsSection {
    pub(crate) fn tls(&self) -> Result<Option<MysqlTls>> {
        let mode = match self.mode {
            MysqlTlsMode::Disabled => return Ok(None),
            MysqlTlsMode::Required if self.ca.is_some() => {
                bail!(
                    "mysql.tls.ca has no effect with mode = \"required\": use \"verify_ca\" or \"verify_identity\""
                )
            }
            MysqlTlsMode::Required => TlsMode::Required,
            MysqlTlsMode::VerifyCa => TlsMode::VerifyCa,
            MysqlTlsMode::VerifyIdentity => TlsMode::VerifyIdentity,
        };
        let identity = pair("mysql.tls", self.certificate.as_ref(), self.key.as_ref())?;
        Ok(Some(MysqlTls { mode, ca: self.ca.clone(), identity }))
    }
}

/// The values of `[kafka] security`, named as in Kafka's own clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Protocol {
    #[default]
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

/// `tls` of `[kafka]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KafkaTlsSection {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// `sasl` of `[kafka]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SaslSection {
    mechanism: Mechanism,
    username: String,
    password: Secret,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// The security of `[kafka]`. Settings that would have no effect are rejected.
pub(crate) fn kafka(
    protocol: Protocol,
    tls: Option<&KafkaTlsSection>,
    sasl: Option<&SaslSection>,
) -> Result<KafkaSecurity> {
    let encrypted = matches!(protocol, Protocol::Ssl | Protocol::SaslSsl);
    let authenticated = matches!(protocol, Protocol::SaslPlaintext | Protocol::SaslSsl);
    if tls.is_some() && !encrypted {
        bail!("kafka.tls is not used: set kafka.security = \"ssl\" or \"sasl_ssl\"");
    }
    let sasl = match (sasl, authenticated) {
        (None, false) => None,
        (Some(_), false) => {
            bail!("kafka.sasl is not used: set kafka.security = \"sasl_ssl\" or \"sasl_plaintext\"")
        }
        (None, true) => bail!(
            "kafka.sasl is missing: sasl = {{ mechanism = \"SCRAM-SHA-512\", username = \"…\", password = \"env:NAME\" }}"
        ),
        (Some(section), true) => Some(Sasl {
            mechanism: match section.mechanism {
                Mechanism::Plain => SaslMechanism::Plain,
                Mechanism::ScramSha256 => SaslMechanism::ScramSha256,
                Mechanism::ScramSha512 => SaslMechanism::ScramSha512,
            },
            username: section.username.clone(),
            password: section.password.reveal().context("kafka.sasl.password")?,
        }),
    };
    let tls = match tls {
        _ if !encrypted => None,
        None => Some(TlsFiles::default()),
        Some(section) => Some(TlsFiles {
            ca: section.ca.clone(),
            identity: pair("kafka.tls", section.certificate.as_ref(), section.key.as_ref())?,
        }),
    };
    Ok(KafkaSecurity { tls, sasl })
}

/// `[schema_registry]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistrySection {
    url: String,
    user: Option<String>,
    password: Option<Secret>,
    ca: Option<PathBuf>,
}

impl RegistrySection {
    pub(crate) fn registry(&self) -> Result<RegistryConfig> {
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            bail!("schema_registry.url must begin with http:// or https://");
        }
        if self.url.contains('@') {
            bail!("schema_registry.url contains credentials: use schema_registry.user and password");
        }
        let account = match (&self.user, &self.password) {
            (Some(user), Some(password)) => {
                Some((user.clone(), password.reveal().context("schema_registry.password")?))
            }
            (None, None) => None,
            _ => bail!("schema_registry needs both user and password, or neither"),
        };
        Ok(RegistryConfig { url: self.url.clone(), account, ca: self.ca.clone() })
    }
}

/// A certificate and its key. Both must be set, or neither.
fn pair(
    section: &str,
    certificate: Option<&PathBuf>,
    key: Option<&PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate.clone(), key.clone()))),
        (None, None) => Ok(None),
        _ => bail!("{section} needs both certificate and key, or neither"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mysql(text: &str) -> Result<Option<MysqlTls>> {
        toml::from_str::<MysqlTlsSection>(text)?.tls()
    }

    #[test]
    fn the_default_mode_is_the_safest() {
        assert_eq!(mysql("ca = 'c'").unwrap().unwrap().mode, TlsMode::VerifyIdentity);
        assert_eq!(mysql("mode = 'disabled'").unwrap(), None);
    }

    #[test]
    fn settings_without_effect_are_rejected() {
        let error = |text: &str| format!("{:#}", mysql(text).unwrap_err());
        assert!(error("mode = 'required'\nca = 'c'").contains("mysql.tls.ca"));
        assert!(error("certificate = 'c'").contains("both certificate and key"));
        assert!(error("mode = 'preferred'").contains("preferred"));
        let tls = KafkaTlsSection::default();
        let error = |protocol, tls, sasl| format!("{:#}", kafka(protocol, tls, sasl).unwrap_err());
        assert!(error(Protocol::Plaintext, Some(&tls), None).contains("kafka.tls is not used"));
        assert!(error(Protocol::SaslSsl, Some(&tls), None).contains("kafka.sasl is missing"));
        let sasl: SaslSection =
            toml::from_str("mechanism = 'PLAIN'\nusername = 'u'\npassword = 'hush'").unwrap();
        assert!(error(Protocol::Ssl, None, Some(&sasl)).contains("kafka.sasl is not used"));
        let plain = error(Protocol::SaslPlaintext, None, Some(&sasl));
        assert!(plain.contains("kafka.sasl.password") && !plain.contains("hush"));
    }
}
