//! TLS to the MySQL server.

use std::path::{Path, PathBuf};

use mysql_async::{ClientIdentity, SslOpts};
use native_tls::{Certificate, Identity, TlsConnector, TlsConnectorBuilder};
use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::stack::Stack;
use openssl::x509::X509;

use crate::error::MysqlError;

/// How strictly the server's identity is verified. The names are those of MySQL's `--ssl-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Encrypts, but does not verify the server. Does not stop a man in the middle.
    Required,
    /// Requires a certificate that a trusted CA signed.
    VerifyCa,
    /// Requires also that the certificate names the host in the URL.
    VerifyIdentity,
}

/// TLS to a MySQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MysqlTls {
    /// How strictly the server's identity is verified.
    pub mode: TlsMode,
    /// The trusted CAs, as PEM. Without a file, those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The client's certificate and its private key, both PEM. Intermediate certificates follow the client's
    /// certificate in its file. The key has no passphrase.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl MysqlTls {
    /// Builds the connector of Tandem's own connections, equivalent to the driver's options. Reads the files.
    pub(crate) fn connector(&self) -> Result<TlsConnectorBuilder, MysqlError> {
        let verify_ca = self.mode != TlsMode::Required;
        let mut builder = TlsConnector::builder();
        builder
            .danger_accept_invalid_certs(!verify_ca)
            .danger_accept_invalid_hostnames(self.mode != TlsMode::VerifyIdentity);
        if let (true, Some(path)) = (verify_ca, &self.ca) {
            builder.disable_built_in_roots(true);
            for ca in certificates(path, &read(path)?)? {
                let ca = ca.to_der().map_err(|e| problem(path, &e.to_string()))?;
                let ca = Certificate::from_der(&ca).map_err(|e| problem(path, &e.to_string()))?;
                builder.add_root_certificate(ca);
            }
        }
        if let Some((certificate, key)) = &self.identity {
            let archive = archive(certificate, key)?;
            let identity = Identity::from_pkcs12(&archive, "");
            builder.identity(identity.map_err(|e| problem(certificate, &e.to_string()))?);
        }
        Ok(builder)
    }

    /// Builds the driver's options. Reads the files.
    pub(crate) fn options(&self) -> Result<SslOpts, MysqlError> {
        let verify_ca = self.mode != TlsMode::Required;
        let mut options = SslOpts::default()
            .with_danger_accept_invalid_certs(!verify_ca)
            .with_danger_skip_domain_validation(self.mode != TlsMode::VerifyIdentity);
        if let (true, Some(path)) = (verify_ca, &self.ca) {
            let pem = read(path)?;
            // The driver would accept a file without certificates and then trust no server.
            certificates(path, &pem)?;
            options = options.with_root_certs(vec![pem.into()]).with_disable_built_in_roots(true);
        }
        if let Some((certificate, key)) = &self.identity {
            let identity = ClientIdentity::new(archive(certificate, key)?.into()).with_password("");
            options = options.with_client_identity(Some(identity));
        }
        Ok(options)
    }
}

/// Builds the connector of Tandem's own connections from the URL parameters alone.
pub(crate) fn connector_of(options: &SslOpts) -> TlsConnectorBuilder {
    let mut builder = TlsConnector::builder();
    builder
        .danger_accept_invalid_certs(options.accept_invalid_certs())
        .danger_accept_invalid_hostnames(options.skip_domain_validation())
        .disable_built_in_roots(options.disable_built_in_roots());
    builder
}

/// Packs the client's certificate and key into a PKCS #12 archive, the form that the driver accepts.
fn archive(certificate: &Path, key: &Path) -> Result<Vec<u8>, MysqlError> {
    let mut chain = certificates(certificate, &read(certificate)?)?.into_iter();
    let own = chain.next().ok_or_else(|| problem(certificate, NO_CERTIFICATE))?;
    // The empty callback prevents a passphrase prompt on the terminal.
    let pkey = PKey::private_key_from_pem_callback(&read(key)?, |_| Ok(0))
        .map_err(|_| problem(key, "it holds no private key in PEM without a passphrase"))?;
    if !own.public_key().is_ok_and(|public| public.public_eq(&pkey)) {
        return Err(problem(key, "it is not the key of the certificate"));
    }
    let archive = (|| {
        let mut between = Stack::new()?;
        for certificate in chain {
            between.push(certificate)?;
        }
        Pkcs12::builder().pkey(&pkey).cert(&own).ca(between).build2("")?.to_der()
    })();
    archive.map_err(|e: openssl::error::ErrorStack| problem(certificate, &e.to_string()))
}

const NO_CERTIFICATE: &str = "it holds no certificate in PEM";

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<X509>, MysqlError> {
    match X509::stack_from_pem(pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(problem(path, NO_CERTIFICATE)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, MysqlError> {
    std::fs::read(path).map_err(|e| problem(path, &e.to_string()))
}

fn problem(path: &Path, problem: &str) -> MysqlError {
    MysqlError::TlsFile { path: path.to_owned(), problem: problem.to_owned() }
}
