//! A real Cassandra with faults and a real controller: clients get right responses, and the controller holds
//! the phase or rolls back.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tandem_devstack::Cassandra;

use super::{Stage, counts};
use crate::support::{
    MINUTE, Migration, ORDERS, ORDERS_MAPPING, Probe, Servers, eventually, free_port, http,
};

const ROWS: u64 = 12;

/// A stage whose phases the controller controls.
struct Controlled {
    stage: Stage,
    control: u16,
    /// The port of the gateway's metrics page.
    metrics: u16,
}

impl Controlled {
    /// With further settings of the controller.
    async fn new(servers: Servers, test: &str, controller: &str) -> anyhow::Result<Self> {
        let migration = Migration::new(servers, test, &[ORDERS]).await?;
        let (port, control, metrics) = (free_port()?, free_port()?, free_port()?);
        // No soak times, and no gates that other tests cover. No reconcile runs here, so a difference that
        // reads find stays an open mismatch.
        let sections = format!(
            "[gateway]\nlisten = \"127.0.0.1:{port}\"\n[controller]\nlisten = \"127.0.0.1:{control}\"\n\
             canary_percents = [100]\ninterval_ms = 200\n{controller}\
             soak_seconds = {{ dual-write = 0, verify = 0, canary = 0 }}\n\
             [controller.gates.backfill]\nevery_row_is_copied = ''\n[controller.gates.verify]\nfull_scan_is_clean = ''\n\
             no_mismatch_is_open = ''\n[controller.gates.canary]\nno_mismatch_is_open = ''\n"
        );
        migration.configure(&sections, ORDERS_MAPPING)?;
        let listen = format!("127.0.0.1:{metrics}");
        // There is no backfill here. Every row is written after the log has begun.
        let commands: [&[&str]; 4] =
            [&["capture"], &["apply"], &["gateway", "--listen", &listen], &["controller"]];
        Ok(Self { stage: Stage::started(migration, port, &commands).await?, control, metrics })
    }

    async fn phase(&self) -> anyhow::Result<Json> {
        let answer = http(self.control, "GET", "/v1/phase", &[], "").await;
        Ok(answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.json()).unwrap_or_default())
    }

    async fn order(&self, order: &str) -> anyhow::Result<(u16, Json)> {
        let body = json!({ "reason": "a test" }).to_string();
        let answer = http(self.control, "POST", &format!("/v1/phase/{order}"), &[], &body).await?;
        Ok((answer.status, answer.json()))
    }

    /// Advances to the phase. Meanwhile the rows from 4 on, which are never corrupted, are read and written.
    /// Earlier failures leave the rates only with their window of a minute.
    async fn advance_to(&self, phase: &str) -> anyhow::Result<()> {
        eventually(phase, Duration::from_mins(3), async || {
            if self.phase().await?["phase"] == phase {
                return Ok(Probe::Done(()));
            }
            self.right(4..=ROWS).await?;
            self.write(4).await?;
            let (status, body) = self.order("advance").await?;
            anyhow::ensure!(matches!(status, 200 | 409 | 503), "{body:#}");
            Ok(Probe::Pending(format!("{body:#}")))
        })
        .await
    }

    /// Changes a row in a column that no read checks.
    async fn write(&self, id: u64) -> anyhow::Result<()> {
        let body = json!({ "amount": rand::random_range(1..1_000_000) }).to_string();
        self.stage.done("PATCH", &format!("/v1/order/{id}"), &body).await?;
        Ok(())
    }

    /// Reads these rows, which must be equal to MySQL's whatever Cassandra does.
    async fn right(&self, rows: impl Iterator<Item = u64>) -> anyhow::Result<Vec<String>> {
        let mut reasons = Vec::new();
        for id in rows {
            let read = self.stage.get(&format!("/v1/order/{id}")).await?;
            anyhow::ensure!(read.status == 200 && read.json()["note"] == format!("n{id}"), "{id}: {read:?}");
            reasons.push(read.fallback().to_owned());
        }
        Ok(reasons)
    }

    /// Reads these rows, which must be right, until the controller has rolled back to `phase`. Returns the
    /// reasons why MySQL served.
    async fn back_to(&self, phase: &str, rows: std::ops::RangeInclusive<u64>) -> anyhow::Result<Vec<String>> {
        let mut reasons = Vec::new();
        eventually(&format!("the controller to roll back to {phase}"), MINUTE, async || {
            let found = self.phase().await?;
            if found["phase"] == phase {
                return Ok(Probe::Done(()));
            }
            reasons.extend(self.right(rows.clone()).await?);
            Ok(Probe::Pending(format!("{found:#}")))
        })
        .await?;
        reasons.retain(|reason| !reason.is_empty());
        Ok(reasons)
    }

    /// The same for a row that Cassandra has wrongly, which `reason` must name. Then waits until each difference that
    /// reads found is rechecked and the controller knows the outcome: a mismatch that became known in a later phase would
    /// roll that phase back.
    async fn mismatch_takes_back_to(&self, phase: &str, id: u64, reason: &str) -> anyhow::Result<()> {
        let reasons = self.back_to(phase, id..=id).await?;
        anyhow::ensure!(reasons.iter().any(|found| found == reason), "{id}: {reasons:?}");
        eventually("every difference to be rechecked", MINUTE, async || {
            let page = http(self.metrics, "GET", "/metrics", &[], "").await?.body;
            let (found, rechecked) = (counts(&page, "fallbacks")?, counts(&page, "validated")?);
            let sum = |all: &HashMap<String, u64>, reasons: &[&str]| -> u64 {
                reasons.iter().filter_map(|reason| all.get(*reason)).sum()
            };
            let differing = ["different", "missing", "extra"];
            let outcomes = ["different", "missing", "extra", "lagging", "changing", "not-checked"];
            let settled = sum(&rechecked, &outcomes) >= sum(&found, &differing);
            Ok(Probe::when(settled, format!("{found:?}, rechecked: {rechecked:?}")))
        })
        .await?;
        // The round under way may have read the log before. The one after it has not.
        for _ in 0..2 {
            let before = self.phase().await?["measurements"]["capture_age_seconds"].clone();
            self.measured(|now| now["capture_age_seconds"] != before).await?;
        }
        Ok(())
    }

    /// A client that changes a row and reads it with its token. It sees its own write, whoever serves it.
    async fn client(&self, amount: &mut u32) -> anyhow::Result<()> {
        *amount += 1;
        let wanted = format!("{amount}.00");
        let written =
            self.stage.done("PATCH", "/v1/order/1", &json!({ "amount": wanted }).to_string()).await?;
        let headers = [("Tandem-Token", written.header("tandem-token"))];
        let read = self.stage.get_with("/v1/order/1", &headers).await?;
        anyhow::ensure!(read.status == 200 && read.json()["amount"] == wanted, "{wanted}: {read:?}");
        Ok(())
    }

    /// Clients write and read until the controller has come to this phase by itself.
    async fn clients_until(&self, phase: &str, amount: &mut u32) -> anyhow::Result<()> {
        eventually(&format!("the controller to come to {phase}"), Duration::from_mins(3), async || {
            self.client(amount).await?;
            let found = self.phase().await?;
            Ok(Probe::when(found["phase"] == phase, format!("{found:#}")))
        })
        .await
    }

    /// Waits until the measurements meet the condition.
    async fn measured(&self, so: impl Fn(&Json) -> bool) -> anyhow::Result<()> {
        eventually("the controller to measure it", MINUTE, async || {
            let found = self.phase().await?;
            Ok(Probe::when(so(&found["measurements"]), format!("{found:#}")))
        })
        .await
    }

    /// Once writes are counted, `advance` must be refused because of this gate, while writes and reads
    /// succeed.
    async fn held_by(&self, gate: &str) -> anyhow::Result<()> {
        self.measured(|measured| !measured["dual_writes"].is_null()).await?;
        for id in 4..=ROWS {
            self.write(id).await?;
        }
        self.right(1..=ROWS).await?;
        self.measured(|measured| measured["dual_writes"].as_f64() > Some(0.0)).await?;
        let (status, body) = self.order("advance").await?;
        let held = body["obstacles"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == gate));
        anyhow::ensure!(status == 409 && held, "{gate} does not hold it: {body:#}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_cassandra_holds_the_migration_or_rolls_it_back() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let cassandra = Cassandra::ephemeral()?;
    servers.nodes = vec![cassandra.node()];
    let mut all = Controlled::new(servers, "gwctl", "").await?;
    let mut token = String::new();
    for id in 1..=ROWS {
        let body = json!({ "customer": id, "note": format!("n{id}") }).to_string();
        let written = all.stage.done("PUT", &format!("/v1/order/{id}"), &body).await?;
        written.header("tandem-token").clone_into(&mut token);
    }
    all.advance_to("canary").await?;
    all.stage.until_applied("/v1/order/12", &token).await?;

    // Corrupted and missing, in the canary and after the switch.
    let session = all.stage.migration.cassandra().await?;
    session.query_unpaged("UPDATE orders SET note = 'forged' WHERE id = 1", ()).await?;
    all.mismatch_takes_back_to("verify", 1, "different").await?;
    all.advance_to("canary").await?;
    session.query_unpaged("DELETE FROM orders WHERE id = 2", ()).await?;
    all.mismatch_takes_back_to("verify", 2, "missing").await?;
    all.advance_to("read-switch").await?;
    all.mismatch_takes_back_to("canary", 1, "different").await?;

    // Slow: rolled back from the canary, and held in each phase that writes both stores.
    all.advance_to("canary").await?;
    cassandra.pause()?;
    let reasons = all.back_to("verify", 3..=ROWS).await?;
    assert!(
        !reasons.is_empty() && reasons.iter().all(|r| ["late", "down", "failed"].contains(&r.as_str())),
        "{reasons:?}"
    );
    for phase in ["verify", "backfill", "dual-write"] {
        assert_eq!(all.phase().await?["phase"], phase);
        all.held_by("dual_writes_succeed").await?;
        assert_eq!(all.order("back").await?.0, 200);
    }
    all.right(1..=ROWS).await?;

    // Once it is healthy, the migration advances. When it is dead, the migration rolls back.
    cassandra.resume()?;
    all.advance_to("canary").await?;
    cassandra.kill()?;
    let reasons = all.back_to("verify", 3..=ROWS).await?;
    assert!(
        reasons.iter().any(|reason| ["late", "down", "failed"].contains(&reason.as_str())),
        "{reasons:?}"
    );
    all.held_by("dual_writes_succeed").await?;
    // Apply waits for a dead store. The others end without an error.
    all.stage.running.remove(1);
    while let Some(running) = all.stage.running.pop() {
        running.terminate().await?;
    }
    Ok(())
}

/// Clients that write and read with their tokens keep Cassandra busy. With apply stopped their reads are MySQL's, the
/// controller rolls back, and everything returns by itself.
#[tokio::test(flavor = "multi_thread")]
async fn reads_that_stay_in_mysql_roll_the_migration_back_until_they_move() -> anyhow::Result<()> {
    let all = Controlled::new(Servers::from_env(), "gwmove", "auto = true\nwindow_seconds = 8\n").await?;
    let body = json!({ "customer": 1, "note": "n" }).to_string();
    all.stage.done("PUT", "/v1/order/1", &body).await?;
    let mut amount = 0;
    all.clients_until("read-switch", &mut amount).await?;
    let share = async || {
        let measured = &all.phase().await?["measurements"];
        anyhow::Ok(measured["cassandra_read_share"].as_f64())
    };
    eventually("the share of reads to be measured", MINUTE, async || {
        all.client(&mut amount).await?;
        let share = share().await?;
        Ok(Probe::when(share >= Some(0.95), format!("{share:?}")))
    })
    .await?;
    all.stage.running[1].signal("STOP")?;
    all.clients_until("verify", &mut amount).await?;
    let history = http(all.control, "GET", "/v1/history", &[], "").await?.json();
    let reasons = history.to_string();
    anyhow::ensure!(reasons.contains("reads_stay_in_mysql"), "{history:#}");
    all.stage.running[1].signal("CONT")?;
    all.clients_until("read-switch", &mut amount).await?;
    all.stage.end().await
}
