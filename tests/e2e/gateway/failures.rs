//! What becomes of second legs that failed.

use tandem_kafka::read_all;
use tandem_model::Phase;
use tandem_wire::control::{DualWriteFailure, encode_control};
use tandem_wire::log::{OutRecord, Topics};

use super::Stage;
use crate::support::Servers;

/// A dual write that failed is on record, and reconcile looks at its row: what is wrong there, and
/// nobody else would look at, is repaired.
#[tokio::test(flavor = "multi_thread")]
async fn the_row_of_a_failed_dual_write_is_checked_and_repaired() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let mut stage = Stage::new(servers, "gwmend", &["capture", "apply", "gateway"]).await?;
    stage.phase(Phase::DualWrite).await?;
    let mut token = String::new();
    for id in 1..=3 {
        let body = format!(r#"{{"customer": {id}, "note": "right{id}"}}"#);
        let written = stage.done("PUT", &format!("/v1/order/{id}"), &body).await?;
        written.header("tandem-token").clone_into(&mut token);
    }
    stage.phase(Phase::ReadSwitch).await?;
    stage.until_applied("/v1/order/3", &token).await?;
    // As if a second leg had half happened: one row is wrong, one is gone, one is well.
    let session = stage.migration.cassandra().await?;
    session.query_unpaged("UPDATE orders SET note = 'half' WHERE id = 1", ()).await?;
    session.query_unpaged("DELETE FROM by_customer WHERE customer = 2 AND id = 2", ()).await?;

    // As a gateway records them. The keys are those of the change topics.
    let topic = Topics::new(&stage.migration.prefix).dual_write_failures();
    let table = format!("{}.orders", stage.migration.database);
    let changes = Topics::new(&stage.migration.prefix).changes(&table.parse().map_err(anyhow::Error::msg)?);
    let mut failures = Vec::new();
    for change in read_all(&stage.migration.kafka(), &changes).await? {
        let source_key = change.key.unwrap_or_default();
        let failure = DualWriteFailure {
            table: table.clone(),
            source_key: source_key.clone(),
            gtid: token.clone(),
            version: 0,
            reason: "a test".into(),
            at_us: 0,
        };
        failures.push(OutRecord {
            topic: topic.as_str().into(),
            partition: 0,
            key: source_key,
            value: Some(encode_control(&failure)?),
            version: None,
            timestamp_ms: None,
        });
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
