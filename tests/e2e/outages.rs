//! Each store is killed and comes back. `tandem status` says meanwhile what waits for it, and everything goes on by itself.

use std::time::Instant;

use mysql_async::prelude::Queryable;
use serde_json::Value as Json;
use tandem_devstack::{Cassandra, Kafka};

use crate::support::{
    MINUTE, Migration, Probe, Running, Servers, T, T_MAPPING, eventually, own_server, until_readyz,
};

/// The waits of all processes, as `name: cause`.
fn waits(status: &Json) -> Vec<String> {
    let processes = status["processes"].as_array().into_iter().flatten();
    let waits = processes.flat_map(|process| process["waits"].as_array().into_iter().flatten());
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    waits.map(|wait| format!("{}: {}", text(&wait["what"]), text(&wait["cause"]))).collect()
}

/// Waits until a process waits under this name. Returns the status.
async fn until_waiting(migration: &Migration, running: &mut Running, what: &str) -> anyhow::Result<Json> {
    eventually(&format!("the status to say that {what} waits"), MINUTE, async || {
        running.check()?;
        let status = migration.status().await?;
        let waiting = waits(&status).iter().any(|wait| wait.starts_with(what));
        Ok(Probe::some(waiting.then(|| status.clone()), format!("{status:#}; {}", running.tail())))
    })
    .await
}

/// Waits until everything is applied and nothing waits any more.
async fn until_over(migration: &mut Migration, running: &mut Running, what: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    migration.drained(running).await?;
    eventually("the status to say that nothing waits", MINUTE, async || {
        let status = migration.status().await?;
        let over = waits(&status).is_empty() && status["caught_up"]["holds"] == true;
        Ok(Probe::when(over, format!("{status:#}; {}", running.tail())))
    })
    .await?;
    println!("{what}: caught up {:.1} s after it was back", began.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_store_is_killed_and_comes_back() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let (mysql, cassandra, kafka) = (own_server(&[])?, Cassandra::ephemeral()?, Kafka::ephemeral()?);
    servers.mysql_url = mysql.url();
    servers.nodes = vec![cassandra.node()];
    servers.brokers = kafka.brokers();
    let mut migration =
        Migration::new(servers, "outages", &[T, "INSERT INTO t VALUES (1, 1), (2, 2)"]).await?;
    migration.configure("", T_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    let port = running.metrics_ports()[0];

    mysql.kill()?;
    let status = until_waiting(&migration, &mut running, "capture").await?;
    let wait = &status["processes"][0]["waits"][0];
    assert!(wait["since_seconds"].as_f64() >= Some(2.0) && wait["next_try_seconds"].is_f64(), "{wait:#}");
    assert!(wait["cause"].to_string().contains("MySQL at "), "{wait:#}");
    until_readyz(port, "waiting, capture for ").await?;
    mysql.restart()?;
    migration.mysql = migration.session().await?;
    migration.mysql.query_drop("UPDATE t SET v = 10").await?;
    until_over(&mut migration, &mut running, "MySQL").await?;

    cassandra.kill()?;
    migration.mysql.query_drop("UPDATE t SET v = 20").await?;
    let status = until_waiting(&migration, &mut running, "writes to Cassandra").await?;
    assert_eq!(status["copied"]["holds"], true, "{status:#}");
    until_readyz(port, "waiting, writes to Cassandra for ").await?;
    let said = migration.succeed(&["status"]).await?;
    assert!(said.contains("waits, writes to Cassandra, since") && said.contains("  cause: "), "{said}");
    cassandra.restart()?;
    until_over(&mut migration, &mut running, "Cassandra").await?;

    kafka.kill()?;
    migration.mysql.query_drop("UPDATE t SET v = 30").await?;
    until_readyz(port, "waiting, Kafka for ").await?;
    let refused = migration.tandem(&["status"]).await?;
    assert!(!refused.success && refused.stderr.contains("Kafka"), "{}", refused.stderr);
    kafka.restart()?;
    until_over(&mut migration, &mut running, "Kafka").await?;

    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    let status = migration.status().await?;
    assert_eq!(
        (&status["verified"]["holds"], &status["verified"]["rows"]),
        (&true.into(), &4.into()),
        "{status:#}"
    );
    running.terminate().await?;
    let status = migration.status().await?;
    assert_eq!(status["processes"], Json::Array(vec![]), "one that has ended is not silent: {status:#}");
    migration.drop().await
}
