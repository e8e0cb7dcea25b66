//! Many clients, two gateways, phases that change, processes that are killed: whoever reads with the
//! token of its last acknowledged write reads that write, or one that came after it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tandem_model::{Gtid, Phase, PhaseRecord};

use super::{MAPPING, Stage, everything, free_port, http};
use crate::support::Servers;

/// What the clients saw, all together.
#[derive(Default)]
struct Seen {
    acknowledged: AtomicU64,
    by_mysql: AtomicU64,
    by_cassandra: AtomicU64,
    errors: AtomicU64,
    /// What no client may ever see.
    wrong: Mutex<Option<String>>,
}

impl Seen {
    fn sound(&self) -> anyhow::Result<()> {
        match self.wrong.lock().unwrap().as_ref() {
            Some(wrong) => anyhow::bail!("{wrong}"),
            None => Ok(()),
        }
    }
}

/// One client with a row of its own. Each value is written once. A write whose outcome is unknown may
/// be read, or not.
async fn client(id: u64, ports: [u16; 2], stop: Arc<AtomicBool>, seen: Arc<Seen>) -> anyhow::Result<()> {
    let path = format!("/v1/order/{id}");
    let (mut acknowledged, mut token) = (String::new(), String::new());
    let mut possible: BTreeSet<String> = BTreeSet::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let value = format!("{id}-{number}");
        let body = json!({ "customer": id, "note": value }).to_string();
        let port = ports[number % 2];
        match http(port, "PUT", &path, &[], &body).await {
            Ok(answer) if matches!(answer.status, 200 | 201) => {
                seen.acknowledged.fetch_add(1, Ordering::Relaxed);
                answer.header("tandem-token").clone_into(&mut token);
                acknowledged = value;
                possible.clear();
            }
            // It may still come: nothing was said of it.
            _ => {
                seen.errors.fetch_add(1, Ordering::Relaxed);
                possible.insert(value);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        // Long enough for apply to come so far at times.
        for attempt in 0..12 {
            if acknowledged.is_empty() {
                break;
            }
            let port = ports[attempt % 2];
            let Ok(read) = http(port, "GET", &path, &[("Tandem-Token", &token)], "").await else { continue };
            if read.status >= 500 {
                seen.errors.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            anyhow::ensure!(read.status == 200, "{acknowledged} is lost: {read:?}");
            let note = read.json()["note"].as_str().unwrap_or_default().to_owned();
            anyhow::ensure!(
                note == acknowledged || possible.contains(&note),
                "{note} is older than {acknowledged}: {read:?}"
            );
            let counter = if read.served_by() == "cassandra" { &seen.by_cassandra } else { &seen.by_mysql };
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

async fn watched(id: u64, ports: [u16; 2], stop: Arc<AtomicBool>, seen: Arc<Seen>) {
    if let Err(wrong) = client(id, ports, stop, Arc::clone(&seen)).await {
        *seen.wrong.lock().unwrap() = Some(wrong.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_or_read_stale() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let mut stage = Stage::new(servers, "gwhist", &["capture", "apply", "gateway"]).await?;
    // The second gateway has a port of its own, and nothing else.
    let second = free_port()?;
    stage.migration.configure(&format!("[gateway]\nlisten = \"127.0.0.1:{second}\"\n"), MAPPING)?;
    stage.running.push(stage.migration.start(&["gateway"])?);
    let ports = [stage.port, second];
    stage
        .until("the second gateway", async |_| {
            Ok(http(second, "GET", "/readyz", &[], "").await.is_ok_and(|answer| answer.status == 200))
        })
        .await?;
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
    let clients: Vec<_> =
        (1..=6).map(|id| tokio::spawn(watched(id, ports, Arc::clone(&stop), Arc::clone(&seen)))).collect();

    // Nothing is validated: what Cassandra says is what the clients get.
    let bare = |phase| PhaseRecord { validate: 0.0, ..everything(phase) };
    for phase in [Phase::DualWrite, Phase::Canary, Phase::ReadSwitch, Phase::Verify, Phase::ReadSwitch] {
        stage.order(bare(phase)).await?;
        for (place, role) in [(1, "apply"), (3, "gateway"), (0, "capture")] {
            let before = seen.acknowledged.load(Ordering::Relaxed);
            stage.running[place].kill()?;
            stage.running[place] = stage.migration.start(&[role])?;
            stage
                .until("writes to go on", async |_| {
                    seen.sound()?;
                    Ok(seen.acknowledged.load(Ordering::Relaxed) > before + 12)
                })
                .await?;
        }
        if phase == Phase::ReadSwitch {
            let before = seen.by_cassandra.load(Ordering::Relaxed);
            stage
                .until("Cassandra to serve", async |_| {
                    seen.sound()?;
                    Ok(seen.by_cassandra.load(Ordering::Relaxed) > before + 10)
                })
                .await?;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?;
    }
    seen.sound()?;
    assert!(seen.errors.load(Ordering::Relaxed) > 0, "the kills were not felt");
    stage.end().await
}

/// Each token is the GTID of its own transaction and of no other, also with many at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_its_own_transaction() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let mut stage = Stage::new(servers, "gwgtid", &["gateway"]).await?;
    let port = stage.port;
    let writes = (1..=40).map(|id| async move {
        let body = json!({ "customer": id, "note": "x" }).to_string();
        http(port, "PUT", &format!("/v1/order/{id}"), &[], &body).await
    });
    let answers = futures::future::try_join_all(writes).await?;
    let executed = stage.migration.executed().await?;
    let mut tokens = BTreeSet::new();
    for answer in &answers {
        assert_eq!(answer.status, 201, "{answer:?}");
        let token = answer.header("tandem-token");
        assert!(token.parse::<Gtid>().is_ok(), "{token} is not one transaction");
        assert!(token.parse::<tandem_model::GtidSet>().unwrap().is_subset(&executed));
        tokens.insert(token.to_owned());
    }
    assert_eq!(tokens.len(), answers.len());
    stage.end().await
}
