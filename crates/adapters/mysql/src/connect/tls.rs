//! TLS to the server.

use std::path::{Path, PathBuf};

use mysql_async::{ClientIdentity, SslOpts};
use native_tls::{Certificate, Identity, TlsConnector, TlsConnectorBuilder};
use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::stack::Stack;
use openssl::x509::X509;

use crate::error::MysqlError;

/// How far the server must prove who it is, in MySQL's own words (`--ssl-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Encrypted, whoever the server is: no help against somebody in between.
    Required,
    /// Its certificate is signed by a CA that is trusted.
    VerifyCa,
    /// The same, and the certificate is that of the host in the URL.
    VerifyIdentity,
}

/// TLS to a MySQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MysqlTls {
    /// What the server must prove.
    pub mode: TlsMode,
    /// The CAs to trust, as PEM; none: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, with those between it and its CA behind it, as PEM, and its
    /// private key, as PEM without a passphrase.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl MysqlTls {
    /// What our own connections are encrypted by, in the same way as the driver's. The files are read now.
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

    /// The driver's options. The files are read now.
    pub(crate) fn options(&self) -> Result<SslOpts, MysqlError> {
        let verify_ca = self.mode != TlsMode::Required;
        let mut options = SslOpts::default()
            .with_danger_accept_invalid_certs(!verify_ca)
            .with_danger_skip_domain_validation(self.mode != TlsMode::VerifyIdentity);
        if let (true, Some(path)) = (verify_ca, &self.ca) {
            let pem = read(path)?;
            // The driver would take a file without a certificate for one that trusts nobody.
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

/// What our own connections are encrypted by where only the URL's own parameters ask for it.
pub(crate) fn connector_of(options: &SslOpts) -> TlsConnectorBuilder {
    let mut builder = TlsConnector::builder();
    builder
        .danger_accept_invalid_certs(options.accept_invalid_certs())
        .danger_accept_invalid_hostnames(options.skip_domain_validation())
        .disable_built_in_roots(options.disable_built_in_roots());
    builder
}

/// The client's certificate and key in one archive of PKCS #12, as the driver takes them.
fn archive(certificate: &Path, key: &Path) -> Result<Vec<u8>, MysqlError> {
    let mut chain = certificates(certificate, &read(certificate)?)?.into_iter();
    let own = chain.next().ok_or_else(|| problem(certificate, NO_CERTIFICATE))?;
    // A passphrase is never asked for on a terminal.
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
