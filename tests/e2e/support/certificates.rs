//! Certificates for one test.

use std::path::{Path, PathBuf};

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use tokio_rustls::rustls::pki_types::CertificateDer;

/// A CA, with its certificate in a file.
pub(crate) struct Authority {
    key: PKey<Private>,
    certificate: X509,
    folder: PathBuf,
    name: String,
}

/// A certificate and its key, in files.
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let key = PKey::from_rsa(Rsa::generate(2048)?)?;
        let mut builder = builder(name, &key)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().build()?)?;
        let subject = builder_name(name)?;
        builder.set_issuer_name(&subject)?;
        builder.sign(&key, MessageDigest::sha256())?;
        let this = Self { key, certificate: builder.build(), folder: folder.to_owned(), name: name.into() };
        std::fs::write(this.file(), this.certificate.to_pem()?)?;
        Ok(this)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// Signs a certificate for a name, which is also the name of its files. `addresses` are those of a
    /// server.
    pub(crate) fn sign(&self, name: &str, addresses: &[&str]) -> anyhow::Result<Identity> {
        let key = PKey::from_rsa(Rsa::generate(2048)?)?;
        let mut builder = builder(name, &key)?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        if !addresses.is_empty() {
            let mut names = SubjectAlternativeName::new();
            for address in addresses {
                names.ip(address);
            }
            let names = names.build(&builder.x509v3_context(Some(&self.certificate), None))?;
            builder.append_extension(names)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        let at = |kind| self.folder.join(format!("{}-{name}-{kind}.pem", self.name));
        let made = Identity { certificate: at("certificate"), key: at("key") };
        std::fs::write(&made.certificate, builder.build().to_pem()?)?;
        std::fs::write(&made.key, key.private_key_to_pem_pkcs8()?)?;
        Ok(made)
    }
}

fn builder_name(name: &str) -> anyhow::Result<openssl::x509::X509Name> {
    let mut subject = X509NameBuilder::new()?;
    subject.append_entry_by_text("CN", name)?;
    Ok(subject.build())
}

/// The common parts of all certificates.
fn builder(name: &str, key: &PKey<Private>) -> anyhow::Result<X509Builder> {
    let mut serial = BigNum::new()?;
    serial.rand(120, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*Asn1Integer::from_bn(&serial)?)?;
    let (yesterday, later) = (Asn1Time::from_unix(now() - 86_400)?, Asn1Time::days_from_now(30)?);
    builder.set_not_before(&yesterday)?;
    builder.set_not_after(&later)?;
    let subject = builder_name(name)?;
    builder.set_subject_name(&subject)?;
    builder.set_pubkey(key)?;
    Ok(builder)
}

/// A certificate for one host, signed with its own key, and the key, in files.
pub(crate) struct SelfSigned {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) der: CertificateDer<'static>,
}

impl SelfSigned {
    pub(crate) fn new(folder: &Path, name: &str, host: &str) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()])?;
        let at = |kind| folder.join(format!("{name}-{kind}.pem"));
        let this = Self { certificate: at("certificate"), key: at("key"), der: made.cert.der().clone() };
        std::fs::write(&this.certificate, made.cert.pem())?;
        std::fs::write(&this.key, made.signing_key.serialize_pem())?;
        Ok(this)
    }
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}
