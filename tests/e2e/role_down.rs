//! A role of `tandem run` that ends: the others go on, and it returns by itself.

use mysql_async::prelude::Queryable;

use crate::support::{Migration, Servers, T, T_MAPPING, http, until_readyz};

/// A column that somebody drops in Cassandra ends apply and the checks. Capture goes on, and everything returns once the
/// column is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_fails_is_started_again_and_the_others_go_on() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut migration =
        Migration::new(servers, "roledown", &[T, "INSERT INTO t VALUES (1, 1), (2, 2)"]).await?;
    migration.configure("", T_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    let port = running.metrics_ports()[0];
    until_readyz(port, "ready\n").await?;

    let session = migration.cassandra().await?;
    session.query_unpaged("ALTER TABLE t DROP v", ()).await?;
    migration.mysql.query_drop("UPDATE t SET v = 10 WHERE id = 1").await?;
    until_readyz(port, "apply has been down for ").await?;
    migration.mysql.query_drop("UPDATE t SET v = 20 WHERE id = 2").await?;
    migration.until_captured(&mut running).await?;
    let metrics = http(port, "GET", "/metrics", &[], "").await?.body;
    for line in ["tandem_role_up{role=\"apply\"} 0", "tandem_role_up{role=\"capture\"} 1"] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(running.logged("ended, and is started again") > 0, "{}", running.tail());

    session.query_unpaged("ALTER TABLE t ADD v int", ()).await?;
    migration.drained(&mut running).await?;
    until_readyz(port, "ready\n").await?;
    running.terminate().await?;
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    migration.drop().await
}

/// The server commits between the question what it has executed and capture's first watermark. That watermark is borrowed
/// all the same, and not only after the timeout of a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_waits_for_capture_begins_with_its_first_watermark() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut migration = Migration::new(servers, "copyfirst", &[T, "INSERT INTO t VALUES (1, 1)"]).await?;
    migration.configure("", T_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let mut backfill = migration.start(&["backfill"])?;
    backfill.until_logged("runs role=backfill", 0).await?;
    migration.mysql.query_drop("INSERT INTO t VALUES (2, 2)").await?;
    let capture = migration.start(&["capture"])?;
    backfill.until_ended().await?;
    assert_eq!(backfill.logged("pauses and continues"), 0, "{}", backfill.log());
    capture.terminate().await?;
    migration.drop().await
}
