//! TLS and SASL to the brokers.

use std::fmt;
use std::path::PathBuf;

use rdkafka::ClientConfig;

/// How connections to the brokers are secured.
#[derive(Debug, Clone, Default)]
pub struct KafkaSecurity {
    /// TLS; none: not encrypted.
    pub tls: Option<TlsFiles>,
    /// Who we are; none: nobody in particular, or who the certificate says.
    pub sasl: Option<Sasl>,
}

/// The files of TLS, all of them PEM.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// The CAs to trust; none: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// An account.
#[derive(Clone)]
pub struct Sasl {
    /// How the password is proved.
    pub mechanism: SaslMechanism,
    /// The account's name.
    pub username: String,
    /// Its password.
    pub password: String,
}

/// How a password is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// By sending it.
    Plain,
    /// By SCRAM with SHA-256.
    ScramSha256,
    /// By SCRAM with SHA-512.
    ScramSha512,
}

impl KafkaSecurity {
    /// Which of the files of TLS cannot be read, and why: librdkafka does not say.
    pub(crate) fn unreadable(&self) -> Option<String> {
        let tls = self.tls.as_ref()?;
        let identity = tls.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        tls.ca.iter().chain(identity).find_map(|path| {
            let error = std::fs::read(path).err()?;
            Some(format!("[kafka] tls: {}: {error}", path.display()))
        })
    }

    /// Sets librdkafka's properties.
    pub(crate) fn apply(&self, config: &mut ClientConfig) {
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            let mut set = |name, path: &PathBuf| {
                config.set(name, path.to_string_lossy());
            };
            if let Some(ca) = &tls.ca {
                set("ssl.ca.location", ca);
            }
            if let Some((certificate, key)) = &tls.identity {
                set("ssl.certificate.location", certificate);
                set("ssl.key.location", key);
            }
        }
        if let Some(sasl) = &self.sasl {
            let mechanism = match sasl.mechanism {
                SaslMechanism::Plain => "PLAIN",
                SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
                SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            config.set("sasl.mechanism", mechanism);
            config.set("sasl.username", &sasl.username).set("sasl.password", &sasl.password);
        }
    }
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .field("password", &"…")
            .finish()
    }
}
