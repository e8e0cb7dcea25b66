//! TLS, with the test's own certificate.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{
    MINUTE, Migration, ORDERS, ORDERS_MAPPING, Probe, SelfSigned, Servers, eventually, free_port, http,
    silent_clients,
};

/// One request over TLS by a client that trusts `trusted`, with a timeout of 20 seconds.
async fn https(port: u16, path: &str, trusted: &CertificateDer<'static>) -> anyhow::Result<String> {
    tokio::time::timeout(Duration::from_secs(20), ask(port, path, trusted)).await?
}

async fn ask(port: u16, path: &str, trusted: &CertificateDer<'static>) -> anyhow::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone())?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost")?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_tls_is_accepted_and_slow_handshakes_block_no_other_client() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let migration = Migration::new(servers, "gwtls", &[ORDERS]).await?;
    let own = SelfSigned::new(migration.folder.path(), "own", "localhost")?;
    let foreign = SelfSigned::new(migration.folder.path(), "foreign", "localhost")?;
    let port = free_port()?;
    let section = format!(
        "[gateway]\nlisten = \"127.0.0.1:{port}\"\ntls_certificate = {:?}\ntls_key = {:?}\n",
        own.certificate, own.key
    );
    migration.configure(&section, ORDERS_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["gateway"])?;
    eventually("an answer over TLS", MINUTE, async || {
        running.check()?;
        let answer = https(port, "/readyz", &own.der).await;
        Ok(Probe::when(answer.is_ok(), format!("{answer:?}; {}", running.tail())))
    })
    .await?;
    let silent = silent_clients(port).await?;
    let answer = https(port, "/v1/order/1", &own.der).await?;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("tandem-generation: 0"), "{answer}");
    let distrusted = https(port, "/v1/order/1", &foreign.der).await;
    assert!(distrusted.is_err(), "{distrusted:?}");
    let plain = http(port, "GET", "/v1/order/1", &[], "").await;
    assert!(plain.is_err(), "{plain:?}");
    running.terminate().await?;
    drop(silent);

    // The key of another certificate is an error at the start.
    std::fs::copy(&foreign.key, &own.key)?;
    let refused = migration.tandem(&["gateway"]).await?;
    assert!(!refused.success && refused.stderr.contains("does not go with"), "{refused:?}");
    migration.drop().await
}
