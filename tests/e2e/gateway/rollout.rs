//! The whole rollout: one process with every role. Its controller advances from `prepare` to the read switch
//! by itself, rolls back when a row is corrupt, and advances again once the row is repaired.

use serde_json::Value as Json;

use super::Stage;
use crate::support::{Migration, ORDERS, ORDERS_MAPPING, Servers, free_port};

const ROWS: i64 = 30;

impl Stage {
    async fn rollout(servers: Servers) -> anyhow::Result<Self> {
        let rows: Vec<String> = (1..=ROWS).map(|id| format!("({id}, {}, 'old{id}')", id % 3)).collect();
        let insert = format!("INSERT INTO orders (id, customer, note) VALUES {}", rows.join(","));
        let migration = Migration::new(servers, "gwrollout", &[ORDERS, &insert]).await?;
        let (port, control, metrics) = (free_port()?, free_port()?, free_port()?);
        let sections = format!(
            "[gateway]\nlisten = \"127.0.0.1:{port}\"\n[controller]\nlisten = \"127.0.0.1:{control}\"\nauto = true\n\
             canary_percents = [50, 100]\ninterval_ms = 200\n\
             soak_seconds = {{ dual-write = 0, verify = 0, canary = 0 }}\n"
        );
        migration.configure(&sections, ORDERS_MAPPING)?;
        Self::started(migration, port, &[&["run", "--listen", &format!("127.0.0.1:{metrics}")]]).await
    }

    async fn phase_status(&self) -> anyhow::Result<Json> {
        let status = self.migration.tandem(&["phase", "status", "--json"]).await?;
        // There is no status before the first measurement.
        Ok(serde_json::from_str(&status.stdout).unwrap_or(Json::Null))
    }

    /// The phases of the history, in order.
    async fn phases(&self) -> anyhow::Result<Vec<String>> {
        let history = self.migration.json(&["phase", "history", "--json"]).await?;
        let entries = history["history"].as_array().into_iter().flatten();
        Ok(entries.filter_map(|entry| entry["phase"].as_str().map(str::to_owned)).collect())
    }

    async fn until_phase(&mut self, phases: &[&str]) -> anyhow::Result<()> {
        self.until(&format!("one of {phases:?}"), async |stage| {
            // The gates need writes to both stores, and the canary's gates need compared reads.
            stage
                .done("PUT", &format!("/v1/order/{}", ROWS + 1), r#"{"customer": 1, "note": "more"}"#)
                .await?;
            for id in 1..=ROWS {
                let read = stage.get(&format!("/v1/order/{id}")).await?;
                anyhow::ensure!(read.status == 200, "{read:?}");
            }
            let status = stage.phase_status().await?;
            Ok(phases.iter().any(|phase| status["phase"] == **phase))
        })
        .await
    }

    /// Runs full verifications until one finds no difference.
    async fn verified(&mut self) -> anyhow::Result<()> {
        self.until("a clean verification", async |stage| {
            Ok(stage.migration.tandem(&["verify", "--full", "--exit-code"]).await?.success)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_advances_rolls_back_after_a_corruption_and_advances_again() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::rollout(servers).await?;
    stage.until_phase(&["verify"]).await?;
    stage.verified().await?;
    stage.until_phase(&["read-switch"]).await?;

    // Cassandra serves the rows of the backfill, the gateway's writes, and writes that bypass the gateway.
    let old = stage.get("/v1/order/7").await?;
    assert_eq!((old.served_by(), old.json()["note"].as_str()), ("cassandra", Some("old7")), "{old:?}");
    let written = stage.done("PUT", "/v1/order/7", r#"{"customer": 1, "note": "new"}"#).await?;
    let token = written.header("tandem-token").to_owned();
    let own = stage.get_with("/v1/order/7", &[("Tandem-Token", &token)]).await?;
    assert_eq!(own.json()["note"], "new");
    stage.sql("UPDATE orders SET note = 'console' WHERE id = 8").await?;
    stage
        .until("the log to bring it", async |stage| {
            Ok(stage.in_cassandra(8).await?.as_deref() == Some("console"))
        })
        .await?;

    // An out-of-band write makes a row wrong: MySQL serves it, and the controller rolls back by itself.
    let session = stage.migration.cassandra().await?;
    session.query_unpaged("UPDATE orders SET note = 'forged' WHERE id = 9", ()).await?;
    let right = stage.get("/v1/order/9").await?;
    assert_eq!((right.served_by(), right.fallback()), ("mysql", "different"), "{right:?}");
    assert_eq!(right.json()["note"], "old9");
    // The mismatch is confirmed, so it counts. It is repaired at once, so the controller rolls back and
    // advances again.
    stage
        .until("a rollback", async |stage| {
            let phases = stage.phases().await?;
            let switched = phases.iter().position(|phase| phase == "read-switch");
            Ok(switched.is_some_and(|at| phases[at..].iter().any(|phase| phase != "read-switch")))
        })
        .await?;
    stage.until_phase(&["read-switch"]).await?;
    let repaired = stage.get("/v1/order/9").await?;
    assert_eq!((repaired.served_by(), repaired.fallback()), ("cassandra", ""), "{repaired:?}");
    assert_eq!(repaired.json()["note"], "old9");

    let phases = stage.phases().await?;
    let first = phases.iter().position(|phase| phase == "read-switch").unwrap();
    let forth = ["dual-write", "backfill", "verify", "canary", "canary", "read-switch"].map(str::to_owned);
    assert!(phases[..=first].ends_with(&forth), "{phases:?}");
    assert!(phases[first..].iter().any(|phase| phase == "canary"), "{phases:?}");
    assert_eq!(phases.last().map(String::as_str), Some("read-switch"));
    stage.end().await
}
