//! A registry that is down for a while, and one that has lost its schemas.

use mysql_async::prelude::Queryable;
use serde_json::json;
use tandem_devstack::{Apicurio, ApicurioOptions};
use tandem_kafka::read_all;

use super::{changes, decoded, prepared, request, running};
use crate::support::{Migration, Servers, free_port, until_readyz};

async fn published(migration: &Migration) -> anyhow::Result<usize> {
    Ok(read_all(&migration.kafka(), &changes(migration)).await?.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_new_schema_waits_for_a_registry_that_is_down() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let registry = Apicurio::ephemeral(&ApicurioOptions { lasting: true, ..Default::default() })?;
    let mut migration = prepared(servers, "regdown", &registry.url()).await?;
    let port = free_port()?;
    let arguments = ["run", "--listen", &format!("127.0.0.1:{port}")];
    let mut running = running(&mut migration, &arguments).await?;

    registry.stop()?;
    migration.mysql.query_drop("UPDATE t SET price = 3 WHERE id = 1").await?;
    migration.drained(&mut running).await?;
    until_readyz(port, "ready\n").await?;
    let before = published(&migration).await?;
    migration.mysql.query_drop("ALTER TABLE t ADD COLUMN note VARCHAR(10)").await?;
    migration.mysql.query_drop("UPDATE t SET note = 'new' WHERE id = 1").await?;
    until_readyz(port, &format!("the schema registry at {} does not answer", registry.url())).await?;
    assert_eq!(published(&migration).await?, before, "published under a schema that is not in the registry");
    registry.restart()?;
    migration.drained(&mut running).await?;
    until_readyz(port, "ready\n").await?;
    assert_eq!(published(&migration).await?, before + 1);
    decoded(&registry, &read_all(&migration.kafka(), &changes(&migration)).await?).await?;
    assert!(running.log().contains("the schema registry answers again"));
    running.terminate().await?;
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lost_its_schemas_stops_capture() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let registry = Apicurio::ephemeral(&ApicurioOptions::default())?;
    let mut migration = prepared(servers, "reglost", &registry.url()).await?;
    let mut running = running(&mut migration, &["run"]).await?;
    let before = published(&migration).await?;

    // The schemas were in memory only. Capture notices the loss even without anything to publish.
    registry.kill()?;
    registry.restart()?;
    let said = running.until_role_down(0).await?;
    running.kill()?;
    for words in
        [&registry.url(), "does not have the schema of id", "knows no such id", "another kafka.prefix"]
    {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }

    // A new process refuses as well: while the ids do not exist, and once they belong to other schemas.
    migration.mysql.query_drop("UPDATE t SET price = 3 WHERE id = 1").await?;
    let mut running = migration.start(&["capture"])?;
    let said = running.until_ended().await?;
    assert_eq!(said.matches("knows no such id").count(), 2, "{said}");
    for number in 0..8 {
        let path = format!("/subjects/other-{number}/versions");
        let schema = json!({ "type": "enum", "name": format!("E{number}"), "symbols": ["A"] }).to_string();
        request(&registry, "POST", &path, &json!({ "schema": schema }).to_string()).await?;
    }
    let mut running = migration.start(&["capture"])?;
    let said = running.until_ended().await?;
    assert!(said.contains("it has another schema there"), "{said}");
    assert_eq!(published(&migration).await?, before);
    let tail = migration.tandem(&["tail", "--from", "beginning", "--count", "1"]).await?;
    assert!(!tail.success && tail.stderr.contains("none of Tandem's"), "{}", tail.stderr);
    migration.drop().await
}
