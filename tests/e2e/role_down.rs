//! A role of `tandem run` that ends: the others go on, and it returns by itself.

use mysql_async::prelude::Queryable;
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use crate::support::{
    MINUTE, Migration, Probe, Servers, T, T_MAPPING, eventually, free_port, host_of, http, unique_id,
    until_readyz,
};

/// MySQL refuses Tandem's account, which ends capture. Apply, which needs no MySQL, goes on. Everything returns once the
/// account is right again.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_fails_is_started_again_and_the_others_go_on() -> anyhow::Result<()> {
    let mut migration =
        Migration::new(Servers::from_env(), "roledown", &[T, "INSERT INTO t VALUES (1, 1), (2, 0)"]).await?;
    let account = unique_id();
    for statement in
        [format!("CREATE USER {account} IDENTIFIED BY 'right'"), format!("GRANT ALL ON *.* TO {account}")]
    {
        migration.mysql.query_drop(statement).await?;
    }
    let host = host_of(&migration.servers.mysql_url);
    migration.servers.mysql_url = format!("mysql://{account}:right@{host}");
    migration.configure("", T_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    let port = running.metrics_ports()[0];
    until_readyz(port, "ready\n").await?;

    migration.mysql.query_drop(format!("ALTER USER {account} IDENTIFIED BY 'wrong'")).await?;
    let connections: Vec<u64> = migration
        .mysql
        .query(format!("SELECT id FROM information_schema.processlist WHERE user = '{account}'"))
        .await?;
    for id in connections {
        // It may have ended by itself.
        let _ = migration.mysql.query_drop(format!("KILL {id}")).await;
    }
    migration.mysql.query_drop("UPDATE t SET v = 10 WHERE id = 1").await?;
    until_readyz(port, "capture has been down for ").await?;
    let down = state_of(&migration, "capture", "down").await?;
    assert!(down["cause"].to_string().contains("refused the user"), "{down:#}");
    let metrics = http(port, "GET", "/metrics", &[], "").await?.body;
    for line in ["tandem_role_up{role=\"capture\"} 0", "tandem_role_up{role=\"apply\"} 1"] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(running.logged("ended, and is started again") > 0, "{}", running.tail());

    migration.mysql.query_drop(format!("ALTER USER {account} IDENTIFIED BY 'right'")).await?;
    until_readyz(port, "ready\n").await?;
    migration.drained(&mut running).await?;
    assert_eq!(running.logged("runs role=apply"), 1, "apply was not to start again: {}", running.log());
    running.terminate().await?;
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    migration.mysql.query_drop(format!("DROP USER {account}")).await?;
    migration.drop().await
}

/// Waits until the status says that a role is in this state. Returns what else it says about the role.
async fn state_of(migration: &Migration, role: &str, state: &str) -> anyhow::Result<Json> {
    eventually(&format!("the status to say that {role} is {state}"), MINUTE, async || {
        let status = migration.status().await?;
        let processes = status["processes"].as_array().into_iter().flatten();
        let mut roles = processes.flat_map(|process| process["roles"].as_array().into_iter().flatten());
        let found = roles.find(|one| one["role"] == role && one["state"] == state).cloned();
        Ok(Probe::some(found, format!("{status:#}")))
    })
    .await
}

/// A killed process takes nothing back. Its silence is seen, until another process runs its role.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_silent_until_another_one_has_its_role() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let migration = Migration::new(servers, "silent", &[T, "INSERT INTO t VALUES (1, 1)"]).await?;
    migration.configure("", T_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let (capture, mut apply) = (migration.start(&["capture"])?, migration.start_as("apply", &["apply"])?);
    state_of(&migration, "apply", "running").await?;
    apply.kill()?;
    let silent = state_of(&migration, "apply", "silent").await?;
    assert!(silent["since_seconds"].as_f64() > Some(5.0), "{silent:#}");
    let said = migration.succeed(&["status"]).await?;
    assert!(said.contains("has said nothing since") && said.contains("it was killed"), "{said}");
    let again = migration.start_as("again", &["apply"])?;
    state_of(&migration, "apply", "running").await?;
    let status = migration.status().await?;
    assert!(!status["processes"].to_string().contains("silent\":true"), "{status:#}");
    again.terminate().await?;
    capture.terminate().await?;
    migration.drop().await
}

/// Each role is killed in a process of its own, and then all of them in one, while a client changes rows. The status says which
/// role is silent. Nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn each_role_is_killed_and_nothing_is_lost() -> anyhow::Result<()> {
    let mut migration =
        Migration::new(Servers::from_env(), "rolekill", &[T, "INSERT INTO t VALUES (1, 1), (2, 0)"]).await?;
    let sections = format!(
        "[gateway]\nlisten = \"127.0.0.1:{}\"\n[controller]\nlisten = \"127.0.0.1:{}\"\n",
        free_port()?,
        free_port()?
    );
    migration
        .configure(&sections, &T_MAPPING.replace("[[table.target]]", "entity = \"t\"\n[[table.target]]"))?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.drained(&mut running).await?;
    running.kill()?;
    let (stop, mut client) = (CancellationToken::new(), migration.session().await?);
    let stopped = stop.clone();
    let load = tokio::spawn(async move {
        let mut n = 10;
        while !stopped.is_cancelled() {
            n += 1;
            client.query_drop(format!("INSERT INTO t VALUES ({n}, 0)")).await?;
            client.query_drop(format!("UPDATE t SET v = v + 1 WHERE id > {}", n - 5)).await?;
        }
        anyhow::Ok(n)
    });
    let roles = ["capture", "apply", "verify", "reconcile", "gateway", "controller"];
    let mut processes = roles.map(|role| migration.start_as(role, &[role]));
    for role in roles {
        state_of(&migration, role, "running").await?;
    }
    for (role, process) in roles.iter().zip(&mut processes) {
        let process = process.as_mut().map_err(|error| anyhow::anyhow!("{role}: {error}"))?;
        process.kill()?;
        state_of(&migration, role, "silent").await?;
        *process = migration.start_as(role, &[role])?;
        state_of(&migration, role, "running").await?;
    }
    for process in processes {
        process?.kill()?;
    }
    let mut running = migration.start_as("all", &["run"])?;
    for role in roles {
        state_of(&migration, role, "running").await?;
    }
    stop.cancel();
    assert!(load.await?? > 100);
    migration.drained(&mut running).await?;
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    running.terminate().await?;
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
