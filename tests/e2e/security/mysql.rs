//! TLS to MySQL, with MySQL's own certificates and with others.

use std::path::Path;

use tandem_devstack::Mysql as Server;
use tandem_model::{Disposition, GtidSet};
use tandem_mysql::{
    BinlogError, BinlogStream, ClientPool, Mysql, MysqlConfig, MysqlError, MysqlTls, TlsMode,
};

use crate::support::{Authority, own_server};

fn config(server: &Server, user: &str, tls: Option<MysqlTls>) -> MysqlConfig {
    let mut config = MysqlConfig::new(format!("mysql://{user}@127.0.0.1:{}", server.port()), 4711);
    config.password = Some("correct horse".into());
    config.tls = tls;
    config
}

fn tls(mode: TlsMode, ca: &Path) -> MysqlTls {
    MysqlTls { mode, ca: Some(ca.to_owned()), identity: None }
}

/// A user for whom the server has no cached password, so that the password must be sent again.
fn create_user(server: &Server, user: &str, require: &str) -> anyhow::Result<()> {
    server.query(&format!(
        "CREATE USER {user} IDENTIFIED WITH caching_sha2_password BY 'correct horse' REQUIRE {require}; \
         GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}"
    ))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_connection_is_encrypted_and_shows_its_certificate() -> anyhow::Result<()> {
    let server = own_server(&[])?;
    let data = server.dir().join("data");
    create_user(&server, "certified", "X509")?;
    let identity = Some((data.join("client-cert.pem"), data.join("client-key.pem")));
    let whole = MysqlTls { identity, ..tls(TlsMode::VerifyCa, &data.join("ca.pem")) };
    let good = config(&server, "certified", Some(whole.clone()));
    let mysql = Mysql::connect(&good).await?;
    let _reader = mysql.reader().await?;
    let mut stream = BinlogStream::open(&good, &GtidSet::default(), |_| true).await?;
    stream.next().await?;
    let _pool = ClientPool::connect(&good, 2).await?;
    let kinds = server.query(
        "SELECT DISTINCT CONNECTION_TYPE FROM performance_schema.threads WHERE PROCESSLIST_USER = 'certified'",
    )?;
    assert_eq!(kinds.trim(), "SSL/TLS");

    // The password alone is not enough, nor is TLS without the certificate, nor a connection without TLS.
    let bare = MysqlTls { identity: None, ..whole.clone() };
    for lacking in [Some(bare), None] {
        let error = Mysql::connect(&config(&server, "certified", lacking)).await.unwrap_err();
        assert!(matches!(error, MysqlError::AccessDenied { .. }), "{error:?}");
        assert!(error.to_string().contains("[mysql] tls"), "{error}");
    }
    let mixed =
        MysqlTls { identity: Some((data.join("client-cert.pem"), data.join("server-key.pem"))), ..whole };
    let error = Mysql::connect(&config(&server, "certified", Some(mixed))).await.unwrap_err();
    assert!(error.to_string().contains("server-key.pem: it is not the key of the certificate"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_prove_who_it_is_is_refused() -> anyhow::Result<()> {
    let server = own_server(&[])?;
    create_user(&server, "careful", "SSL")?;
    let folder = tempfile::tempdir()?;
    let ca = Authority::new(folder.path(), "ours")?;
    let own = server.dir().join("data/ca.pem");
    let connect = async |mode, ca: &Path| {
        Mysql::connect(&config(&server, "careful", Some(tls(mode, ca)))).await.map(drop)
    };
    let refused = |error: MysqlError, words: &[&str]| {
        assert!(matches!(error, MysqlError::Tls { .. }) && error.retry() == Disposition::Stop, "{error:?}");
        for word in words {
            assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
        }
    };
    // MySQL's own certificates contain no host name.
    connect(TlsMode::VerifyCa, &own).await?;
    refused(connect(TlsMode::VerifyIdentity, &own).await.unwrap_err(), &["mysql.url", "verify_ca"]);
    refused(connect(TlsMode::VerifyCa, &ca.file()).await.unwrap_err(), &["tls.ca", "certificate"]);
    let nobody = MysqlTls { mode: TlsMode::VerifyCa, ca: None, identity: None };
    let error = Mysql::connect(&config(&server, "careful", Some(nobody))).await.unwrap_err();
    refused(error, &["tls.ca"]);
    let blind = MysqlTls { mode: TlsMode::Required, ca: None, identity: None };
    Mysql::connect(&config(&server, "careful", Some(blind))).await?;

    let identity = ca.sign("server", &["127.0.0.1"])?;
    server.query(&format!(
        "SET GLOBAL ssl_ca = '{}'; SET GLOBAL ssl_cert = '{}'; SET GLOBAL ssl_key = '{}'; ALTER INSTANCE RELOAD TLS",
        ca.file().display(),
        identity.certificate.display(),
        identity.key.display()
    ))?;
    connect(TlsMode::VerifyIdentity, &ca.file()).await?;
    refused(connect(TlsMode::VerifyCa, &own).await.unwrap_err(), &["tls.ca"]);
    // The same certificate, with a host name that it does not contain.
    let mut named = config(&server, "careful", Some(tls(TlsMode::VerifyIdentity, &ca.file())));
    named.url = named.url.replace("127.0.0.1", "localhost");
    refused(Mysql::connect(&named).await.unwrap_err(), &["mysql.url"]);
    let stream = BinlogStream::open(&named, &GtidSet::default(), |_| true).await;
    assert!(matches!(stream.unwrap_err(), BinlogError::Mysql(MysqlError::Tls { .. })));

    for (file, words) in
        [(Path::new("/none"), "[mysql] tls: /none: "), (&identity.key, "no certificate in PEM")]
    {
        let error = connect(TlsMode::VerifyCa, file).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    Ok(())
}

/// The server has cached no password. Without TLS the password is encrypted with the server's RSA key.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_the_server_has_not_cached() -> anyhow::Result<()> {
    let server = own_server(&[])?;
    create_user(&server, "fresh", "NONE")?;
    let plain = config(&server, "fresh", None);
    let encrypted = config(&server, "fresh", Some(tls(TlsMode::VerifyCa, &server.dir().join("data/ca.pem"))));
    for config in [plain, encrypted] {
        server.query("FLUSH PRIVILEGES")?;
        Mysql::connect(&config).await?;
        let mut wrong = config.clone();
        wrong.password = Some("battery staple".into());
        server.query("FLUSH PRIVILEGES")?;
        let error = Mysql::connect(&wrong).await.unwrap_err();
        assert!(matches!(error, MysqlError::AccessDenied { .. }), "{error:?}");
    }
    server.query("SET GLOBAL require_secure_transport = ON")?;
    let error = Mysql::connect(&config(&server, "fresh", None)).await.unwrap_err();
    assert!(error.to_string().contains("set [mysql] tls"), "{error}");
    Ok(())
}
