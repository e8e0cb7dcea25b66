//! Reconcile of failed secondary writes.

use tandem_kafka::read_all;
use tandem_model::Phase;
use tandem_wire::control::{DualWriteFailure, encode_control};

use super::Stage;
use crate::support::{Servers, control_record};

/// A failed dual write is on record, and reconcile checks its row. A wrong row that nothing else would check
/// is repaired.
#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_a_failed_dual_write_is_checked_and_repaired() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwrepair", &["capture", "apply", "gateway"]).await?;
    stage.phase(Phase::DualWrite).await?;
    let mut token = String::new();
    for id in 1..=3 {
        let body = format!(r#"{{"customer": {id}, "note": "right{id}"}}"#);
        let written = stage.done("PUT", &format!("/v1/order/{id}"), &body).await?;
        written.header("tandem-token").clone_into(&mut token);
    }
    stage.phase(Phase::ReadSwitch).await?;
    stage.until_applied("/v1/order/3", &token).await?;
    // As if a secondary write had succeeded in part: one row is wrong, one is missing, one is right.
    let session = stage.migration.cassandra().await?;
    session.query_unpaged("UPDATE orders SET note = 'half' WHERE id = 1", ()).await?;
    session.query_unpaged("DELETE FROM by_customer WHERE customer = 2 AND id = 2", ()).await?;

    // As a gateway records them, with the keys of the change topics.
    let (topics, table) = (stage.migration.topics(), stage.migration.table("orders"));
    let (topic, changes) = (topics.dual_write_failures(), topics.changes(&table));
    let mut failures = Vec::new();
    for change in read_all(&stage.migration.kafka(), &changes).await? {
        let source_key = change.key.unwrap_or_default();
        let failure = DualWriteFailure {
            table: table.to_string(),
            source_key: source_key.clone(),
            gtid: token.clone(),
            version: 0,
            reason: "a test".into(),
            at_us: 0,
        };
        failures.push(control_record(&topic, source_key, encode_control(&failure)?));
    }
    assert!(failures.len() >= 3);
    stage.producer.send(failures).await?;
    stage.running.push(stage.migration.start(&["reconcile"])?);
    stage
        .until("both rows to be repaired", async |stage| {
            let moved = "SELECT note FROM by_customer WHERE customer = 2 AND id = 2";
            let moved = session.query_unpaged(moved, ()).await?.into_rows_result()?;
            let moved = moved.maybe_first_row::<(Option<String>,)>()?.and_then(|(note,)| note);
            Ok(stage.in_cassandra(1).await?.as_deref() == Some("right1")
                && moved.as_deref() == Some("right2"))
        })
        .await?;
    assert_eq!(stage.in_cassandra(3).await?.as_deref(), Some("right3"));
    stage.end().await
}
