//! Differences that reads find: only lasting ones count, and they are repaired.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use tandem_model::{DualWriteMode, Phase, PhaseRecord};

use super::{Stage, everything};
use crate::support::{Servers, http};

/// Rows with constant traffic, and the number of reads that must have found a difference.
const HOT: u64 = 2;
const DIFFERENT: u64 = 20;

/// The results of the reads of hot rows.
#[derive(Default)]
struct Reads {
    all: AtomicU64,
    different: AtomicU64,
}

async fn write(port: u16, id: u64, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let path = format!("/v1/order/{id}");
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        // Inserted and deleted, and moved between two customers.
        let body = json!({ "customer": n % 2, "note": format!("n{n}") }).to_string();
        let written = http(port, if n % 5 == 0 { "DELETE" } else { "PUT" }, &path, &[], &body).await?;
        anyhow::ensure!(written.status < 300, "{written:?}");
    }
    Ok(())
}

async fn read(port: u16, id: u64, stop: Arc<AtomicBool>, reads: Arc<Reads>) -> anyhow::Result<()> {
    let paths = [format!("/v1/order/{id}"), format!("/v1/order?target=by_customer&customer={}", id % 2)];
    for path in paths.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let read = http(port, "GET", path, &[], "").await?;
        anyhow::ensure!(matches!(read.status, 200 | 404), "{read:?}");
        reads.all.fetch_add(1, Ordering::Relaxed);
        if matches!(read.fallback(), "different" | "missing" | "extra") {
            reads.different.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_no_mismatch_and_what_is_wrong_is_repaired() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwconfirm", &["capture", "apply", "gateway"]).await?;
    let quiet = stage.done("PUT", "/v1/order/100", r#"{"customer": 9, "note": "quiet"}"#).await?;
    // The secondary write comes after the response, so the stores differ for a moment after each write.
    let behind = PhaseRecord { dual_write: DualWriteMode::Behind, ..everything(Phase::ReadSwitch) };
    stage.order(behind).await?;
    stage.until_applied("/v1/order/100", quiet.header("tandem-token")).await?;

    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(Reads::default()));
    let mut clients = Vec::new();
    for id in 1..=HOT {
        clients.push(tokio::spawn(write(stage.port, id, Arc::clone(&stop))));
        clients.push(tokio::spawn(read(stage.port, id, Arc::clone(&stop), Arc::clone(&reads))));
    }
    let seen = Arc::clone(&reads);
    let found = stage
        .until("reads that find rows in the middle of a change", async |_| {
            Ok(seen.different.load(Ordering::Relaxed) >= DIFFERENT)
        })
        .await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    found?;
    // Each difference has an outcome in the end, and none is a mismatch.
    let different = reads.different.load(Ordering::Relaxed);
    stage
        .until("every difference to be rechecked", async |stage| {
            let counted = stage.counted("validated").await?;
            let of = |reasons: &[&str]| reasons.iter().filter_map(|r| counted.get(*r)).sum::<u64>();
            anyhow::ensure!(of(&["different", "missing", "extra", "not-checked"]) == 0, "{counted:?}");
            Ok(of(&["changing", "lagging"]) == different)
        })
        .await?;

    // An out-of-band cell is a mismatch, and is repaired.
    let session = stage.migration.cassandra().await?;
    session.query_unpaged("UPDATE orders SET note = 'forged' WHERE id = 100", ()).await?;
    stage.running.push(stage.migration.start(&["reconcile"])?);
    let wrong = stage.get("/v1/order/100").await?;
    assert_eq!((wrong.fallback(), &wrong.json()["note"]), ("different", &json!("quiet")), "{wrong:?}");
    stage
        .until("the mismatch to be counted", async |stage| {
            let counted = stage.counted("validated").await?;
            anyhow::ensure!(
                !counted.contains_key("missing") && !counted.contains_key("extra"),
                "{counted:?}"
            );
            Ok(counted.get("different") == Some(&1))
        })
        .await?;
    stage
        .until("the row to be repaired", async |stage| {
            Ok(stage.in_cassandra(100).await?.as_deref() == Some("quiet"))
        })
        .await?;
    let right = stage.get("/v1/order/100").await?;
    assert_eq!((right.served_by(), right.fallback()), ("cassandra", ""), "{right:?}");
    stage.end().await
}
