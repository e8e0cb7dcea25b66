//! TLS for the APIs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use tandem_http_api::{ConnectionLimits, HttpListener};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The endpoint of an API, from its section of the configuration.
pub(crate) struct Endpoint<'a> {
    /// The section's name.
    pub(crate) section: &'static str,
    pub(crate) listen: SocketAddr,
    /// Allows serving an address other than loopback without TLS.
    pub(crate) insecure: bool,
    pub(crate) certificate: Option<&'a PathBuf>,
    pub(crate) key: Option<&'a PathBuf>,
}

impl Endpoint<'_> {
    /// Rejects a certificate without a key or the reverse, and an address other than loopback without TLS.
    pub(crate) fn validate(&self) -> Result<()> {
        let Self { section, listen, insecure, certificate, key } = self;
        if certificate.is_some() != key.is_some() {
            bail!("{section}.tls_certificate and {section}.tls_key go together: one of them is missing");
        }
        if !listen.ip().is_loopback() && !insecure && certificate.is_none() {
            bail!(
                "{section}.listen {listen} can be reached by others and is served without TLS: set \
                 {section}.tls_certificate and {section}.tls_key, or listen on a loopback address behind a proxy \
                 that does TLS, or set {section}.insecure = true"
            );
        }
        Ok(())
    }

    /// The certificate and its key, if TLS is configured.
    pub(crate) fn tls(&self) -> Result<Option<Tls>> {
        let pair = self.certificate.zip(self.key);
        pair.map(|(certificate, key)| Tls::load(self.section, certificate, key)).transpose()
    }

    /// Binds the address, so that an address in use fails the start. Returns the listener with its address.
    pub(crate) async fn bind(
        &self,
        tls: Option<Tls>,
        limits: ConnectionLimits,
    ) -> Result<(HttpListener, SocketAddr)> {
        let Self { section, listen, .. } = self;
        let tcp = TcpListener::bind(listen).await.with_context(|| {
            format!("the {section} cannot listen on {listen} (set [{section}] listen to a free address)")
        })?;
        let address = tcp.local_addr()?;
        Ok((HttpListener::new(tcp, tls.map(|tls| tls.0), limits), address))
    }
}

/// A certificate with its key.
pub(crate) struct Tls(TlsAcceptor);

impl Tls {
    /// Reads the PEM files: the certificate, followed by the intermediate certificates, and the key.
    fn load(section: &str, certificate: &Path, key: &Path) -> Result<Self> {
        let of_certificate = || format!("{section}.tls_certificate {}", certificate.display());
        let of_key = || format!("{section}.tls_key {}", key.display());
        let pem = std::fs::read(certificate).with_context(of_certificate)?;
        let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(anyhow::Error::msg)
            .with_context(of_certificate)?;
        if chain.is_empty() {
            bail!("{} holds no PEM certificate", of_certificate());
        }
        let pem = std::fs::read(key).with_context(of_key)?;
        let private = PrivateKeyDer::from_pem_slice(&pem).map_err(anyhow::Error::msg).with_context(of_key)?;
        let chain = chain.into_iter().map(CertificateDer::into_owned).collect();
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .with_context(|| format!("{} does not go with {}", of_key(), of_certificate()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_pair_is_rejected_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let made = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (one, other) = (made(), made());
        let certificate = write("certificate", &one.cert.pem());
        let key = write("key", &one.signing_key.serialize_pem());
        assert!(Tls::load("gateway", &certificate, &key).is_ok());
        let foreign = write("foreign", &other.signing_key.serialize_pem());
        let nonsense = write("nonsense", "nonsense");
        for (certificate, key, said) in [
            (&certificate, &foreign, "does not go with"),
            (&nonsense, &key, "holds no PEM certificate"),
            (&certificate, &nonsense, "gateway.tls_key"),
            (&folder.path().join("none"), &key, "gateway.tls_certificate"),
        ] {
            let error = format!("{:#}", Tls::load("gateway", certificate, key).err().unwrap());
            assert!(error.contains(said) && !error.contains("PRIVATE"), "{error}");
        }
    }
}
