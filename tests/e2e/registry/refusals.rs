//! A registry that is unreachable or refuses is one clear error.

use mysql_async::prelude::Queryable;
use tandem_devstack::{Apicurio, ApicurioOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{MAPPING, configure, prepared, running, set_level};
use crate::refusals::refused;
use crate::support::{Authority, Servers};

/// A reverse proxy that requires an account, as is common in front of registries. Returns its address.
async fn guarded(server: String, authorization: &'static str) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    if client.read_buf(&mut head).await? == 0 {
                        return Ok(());
                    }
                }
                let wanted = format!("authorization: {authorization}").to_lowercase();
                if !String::from_utf8_lossy(&head).to_lowercase().contains(&wanted) {
                    let no = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    return client.write_all(no).await;
                }
                let mut server = TcpStream::connect(server).await?;
                server.write_all(&head).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
            });
        }
    });
    Ok(address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_account_or_authority() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let folder = tempfile::tempdir()?;
    let (ca, other) = (Authority::new(folder.path(), "ours")?, Authority::new(folder.path(), "other")?);
    let identity = ca.sign("registry", &["127.0.0.1"])?;
    let registry = Apicurio::ephemeral(&ApicurioOptions {
        identity: Some((identity.certificate, identity.key)),
        ..Default::default()
    })?;
    let migration = prepared(servers, "regno", &registry.url()).await?;
    migration.succeed(&["check"]).await?;

    // The discard port, without a listener.
    configure(&migration, "http://127.0.0.1:9/apis/ccompat/v7")?;
    refused(&migration, &["schema_registry:", "127.0.0.1:9", "is it up", "schema_registry.url"]).await?;
    configure(&migration, &registry.url().replace("/apis/ccompat/v7", ""))?;
    refused(&migration, &["schema_registry:", "HTTP 404", "schema_registry.url", "/apis/ccompat/v7"]).await?;
    let tail = migration.tandem(&["tail", "--from", "beginning", "--count", "1"]).await?;
    assert!(!tail.success, "{}", tail.stdout);

    let secure = |ca: &Authority| {
        let url = registry.tls_url().unwrap();
        let section = format!("[schema_registry]\nurl = {url:?}\nca = {:?}\n", ca.file());
        migration.configure(&section, MAPPING)
    };
    secure(&ca)?;
    migration.succeed(&["check"]).await?;
    secure(&other)?;
    refused(&migration, &["schema_registry:", "certificate", "ca right"]).await?;

    let address = guarded(format!("127.0.0.1:{}", registry.port()), "Basic YWxpY2U6d29uZGVybGFuZA==").await?;
    let account = |secret: &str| {
        let password = migration.write("password", secret)?;
        let section = format!(
            "[schema_registry]\nurl = \"http://{address}/apis/ccompat/v7\"\nuser = \"alice\"\npassword = \"file:{}\"\n",
            password.display()
        );
        migration.configure(&section, MAPPING)
    };
    account("wonderland")?;
    migration.succeed(&["check"]).await?;
    account("looking-glass")?;
    refused(&migration, &["schema_registry:", "HTTP 401", "schema_registry.user and password"]).await?;
    let said = migration.tandem(&["check", "--json"]).await?;
    assert!(!format!("{said:?}").contains("looking-glass"), "{said:?}");
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_the_subjects_level_forbids() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let registry = Apicurio::ephemeral(&ApicurioOptions::default())?;
    set_level(&registry, "", "BACKWARD").await?;
    let mut migration = prepared(servers, "reglevel", &registry.url()).await?;
    let mut running = running(&mut migration, &["run"]).await?;
    migration.mysql.query_drop("ALTER TABLE t ADD COLUMN n INT NOT NULL").await?;
    migration.mysql.query_drop("UPDATE t SET n = 7 WHERE id = 1").await?;
    let said = running.until_role_down(0).await?;
    running.kill()?;
    let [subject, of_backfill] = migration.topics().value_subjects(&migration.table("t"));
    for words in ["incompatible", subject.as_str(), &format!("PUT /config/{subject}"), "NONE"] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    // The table is copied again with the column, under another subject.
    for subject in [subject, of_backfill] {
        set_level(&registry, &format!("/{subject}"), "NONE").await?;
    }
    migration.cassandra().await?.query_unpaged("ALTER TABLE t ADD n int", ()).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    running.terminate().await?;
    migration.drop().await
}
