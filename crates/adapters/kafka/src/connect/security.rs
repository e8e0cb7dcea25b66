//! TLS and SASL.

use std::fmt;
use std::path::PathBuf;

use rdkafka::ClientConfig;

/// How connections to the brokers are secured.
#[derive(Debug, Clone, Default)]
pub struct KafkaSecurity {
    /// TLS. Without it, connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// The account. Without it, the client is anonymous or identified by its certificate.
    pub sasl: Option<Sasl>,
}

/// The TLS files, all PEM.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// The trusted CAs. Without a file, those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A SASL account.
#[derive(Clone)]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: SaslMechanism,
    /// The account's name.
    pub username: String,
    /// Its password.
    pub password: String,
}

/// How a client proves its password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// PLAIN: sends the password.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

impl KafkaSecurity {
    /// Returns the first TLS file that cannot be read, and why. librdkafka does not report it.
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
