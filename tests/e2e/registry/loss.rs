//! A registry that is down for a while, and one that comes back without its schemas.

use std::net::TcpListener;

use mysql_async::prelude::Queryable;
use serde_json::json;
use tandem_devstack::{Apicurio, ApicurioOptions};
use tandem_kafka::read_all;

use super::{changes, decoded, ended, prepared, request, running};
use crate::support::{Migration, Servers, ready};

async fn published(migration: &Migration) -> anyhow::Result<usize> {
    Ok(read_all(&migration.kafka(), &changes(migration)).await?.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_new_schema_waits_for_a_registry_that_is_down() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let registry = Apicurio::ephemeral(&ApicurioOptions { lasting: true, ..Default::default() })?;
    let mut migration = prepared(servers, "regdown", &registry.url()).await?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    let mut running = running(&mut migration, &["run", "--listen", &address]).await?;

    registry.stop()?;
    migration.mysql.query_drop("UPDATE t SET price = 3 WHERE id = 1").await?;
    migration.drained(&mut running).await?;
    ready(&address, "ready\n").await?;
    let before = published(&migration).await?;
    migration.mysql.query_drop("ALTER TABLE t ADD COLUMN note VARCHAR(10)").await?;
    migration.mysql.query_drop("UPDATE t SET note = 'new' WHERE id = 1").await?;
    ready(&address, &format!("the schema registry at {} does not answer", registry.url())).await?;
    assert_eq!(published(&migration).await?, before, "published under a schema that nobody can find");
    registry.restart()?;
    migration.drained(&mut running).await?;
    ready(&address, "ready\n").await?;
    assert_eq!(published(&migration).await?, before + 1);
    decoded(&registry, &read_all(&migration.kafka(), &changes(&migration)).await?).await?;
    assert!(running.log().contains("the schema registry answers again"));
    running.terminate().await?;
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lost_its_schemas_stops_capture() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let registry = Apicurio::ephemeral(&ApicurioOptions::default())?;
    let mut migration = prepared(servers, "reglost", &registry.url()).await?;
    let mut running = running(&mut migration, &["run"]).await?;
    let before = published(&migration).await?;

    // It kept them in memory. Capture notices without having anything to publish.
    registry.kill()?;
    registry.restart()?;
    let said = ended(&mut running).await?;
    for words in
        [&registry.url(), "does not have the schema of id", "knows no such id", "another kafka.prefix"]
    {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }

    // Nor does a new process go on: not while nobody has the ids, nor when others have been given them.
    migration.mysql.query_drop("UPDATE t SET price = 3 WHERE id = 1").await?;
    let mut running = migration.start(&["run"])?;
    let said = ended(&mut running).await?;
    assert_eq!(said.matches("knows no such id").count(), 2, "{said}");
    for number in 0..8 {
        let url = format!("{}/subjects/other-{number}/versions", registry.url());
        let schema = json!({ "type": "enum", "name": format!("E{number}"), "symbols": ["A"] }).to_string();
        let (status, answer) = request("POST", url, Some(json!({ "schema": schema }))).await?;
        anyhow::ensure!(status == 200, "{answer}");
    }
    let mut running = migration.start(&["run"])?;
    let said = ended(&mut running).await?;
    assert!(said.contains("it has another schema there"), "{said}");
    assert_eq!(published(&migration).await?, before);
    let tail = migration.tandem(&["tail", "--from", "beginning", "--count", "1"]).await?;
    assert!(!tail.success && tail.stderr.contains("none of Tandem's"), "{}", tail.stderr);
    migration.drop().await
}
