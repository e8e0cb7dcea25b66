//! The effect of each phase on writes and reads.

use tandem_model::{DualWriteMode, Phase, PhaseRecord};

use super::{Stage, everything};
use crate::support::Servers;

/// Apply does not run here. All rows in Cassandra come from the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn writes_reach_cassandra_from_dual_write_on() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwdual", &["capture", "gateway"]).await?;
    stage.done("PUT", "/v1/order/1", r#"{"customer": 1, "note": "alone"}"#).await?;
    assert_eq!(stage.in_cassandra(1).await?, None);
    for (id, phase) in (2..).zip(&Phase::ALL[1..]) {
        stage.phase(*phase).await?;
        let path = format!("/v1/order/{id}");
        stage.done("PUT", &path, r#"{"customer": 1, "note": "both"}"#).await?;
        assert_eq!(stage.in_cassandra(id).await?.as_deref(), Some("both"), "{phase}");
        stage.done("DELETE", &path, "").await?;
        assert_eq!(stage.in_cassandra(id).await?, None, "{phase}");
    }
    // After the response.
    let behind = PhaseRecord { dual_write: DualWriteMode::Behind, ..everything(Phase::Canary) };
    stage.order(behind).await?;
    stage.done("PUT", "/v1/order/20", r#"{"customer": 1, "note": "behind"}"#).await?;
    stage.until("the write behind", async |stage| Ok(stage.in_cassandra(20).await?.is_some())).await?;
    // A rollback by one phase takes effect at once.
    stage.phase(Phase::Prepare).await?;
    stage.done("PUT", "/v1/order/21", r#"{"customer": 1}"#).await?;
    assert_eq!(stage.in_cassandra(21).await?, None);
    stage.end().await
}

/// A row that moves to another key of a target leaves no row behind, and a column that became NULL is NULL.
/// The gateway writes the image, not the client's request.
#[tokio::test(flavor = "multi_thread")]
async fn a_dual_write_writes_the_whole_image() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwimage", &["capture", "gateway"]).await?;
    stage
        .sql("CREATE TRIGGER shout BEFORE UPDATE ON orders FOR EACH ROW SET NEW.note = UPPER(NEW.note)")
        .await?;
    stage.phase(Phase::DualWrite).await?;
    stage.done("PUT", "/v1/order/1", r#"{"customer": 1, "note": "old", "amount": 5}"#).await?;
    // A later watermark, so that the next write is above the first one.
    stage.sql("CREATE TABLE tick (id INT PRIMARY KEY)").await?;
    stage
        .until("Cassandra to have the second write", async |stage| {
            stage.done("PATCH", "/v1/order/1", r#"{"customer": 2, "note": "new"}"#).await?;
            let session = stage.migration.cassandra().await?;
            let moved = "SELECT note FROM by_customer WHERE customer = 2 AND id = 1";
            let moved = session.query_unpaged(moved, ()).await?.into_rows_result()?;
            let left = "SELECT note FROM by_customer WHERE customer = 1 AND id = 1";
            let left = session.query_unpaged(left, ()).await?.into_rows_result()?;
            let note = moved.maybe_first_row::<(Option<String>,)>()?.and_then(|(note,)| note);
            Ok(left.rows_num() == 0 && note.as_deref() == Some("NEW"))
        })
        .await?;
    stage
        .until("the note to be null", async |stage| {
            stage.done("PATCH", "/v1/order/1", r#"{"note": null}"#).await?;
            Ok(stage.in_cassandra(1).await?.as_deref() == Some(""))
        })
        .await?;
    stage.end().await
}

/// With apply stopped, a client still reads its own write, from MySQL. Without its token, Cassandra may serve
/// it. Once apply has caught up, Cassandra serves it with the token as well.
#[tokio::test(flavor = "multi_thread")]
async fn clients_read_their_own_writes() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwtoken", &["capture", "gateway"]).await?;
    // Written before dual writes began, so only the log can bring it.
    let written = stage.done("PUT", "/v1/order/1", r#"{"customer": 1, "note": "mine"}"#).await?;
    let token = written.header("tandem-token").to_owned();
    let unvalidated = PhaseRecord { validate: 0.0, fallback: false, ..everything(Phase::ReadSwitch) };
    stage.order(unvalidated).await?;
    let with = [("Tandem-Token", token.as_str())];
    for path in ["/v1/order/1", "/v1/order?target=by_customer&customer=1"] {
        let mine = stage.get_with(path, &with).await?;
        assert_eq!((mine.status, mine.served_by()), (200, "mysql"), "{mine:?}");
        assert_eq!(mine.fallback(), "token-not-applied");
        assert!(mine.body.contains("mine"), "{mine:?}");
    }
    let without = stage.get("/v1/order/1").await?;
    assert_eq!((without.status, without.served_by()), (404, "cassandra"));
    let unknown = stage.get_with("/v1/order/1", &[("Tandem-Token", "unknown")]).await?;
    assert_eq!((unknown.status, unknown.served_by()), (200, "mysql"));

    stage.running.push(stage.migration.start(&["apply"])?);
    stage.until_applied("/v1/order/1", &token).await?;
    let caught_up = stage.get_with("/v1/order/1", &with).await?;
    assert_eq!((caught_up.status, caught_up.served_by()), (200, "cassandra"), "{caught_up:?}");
    assert_eq!(caught_up.json()["note"], "mine");
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_generation_is_refused() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwgen", &["gateway"]).await?;
    stage.generation = 6;
    stage.phase(Phase::DualWrite).await?;
    stage.publish(&PhaseRecord { generation: 3, ..everything(Phase::ReadSwitch) }).await?;
    // The record after it takes effect, so the refused one was read.
    stage.phase(Phase::Verify).await?;
    let answer = stage.get("/v1/order/1").await?;
    assert_eq!((answer.header("tandem-generation"), answer.served_by()), ("8", "mysql"));
    assert!(stage.running[0].log().contains("an older phase record is refused"));
    // A gateway that starts now also finds the newest record.
    stage.running.remove(0).terminate().await?;
    stage.running.push(stage.migration.start(&["gateway"])?);
    stage.until_ready(stage.port).await?;
    assert_eq!(stage.get("/v1/order/1").await?.header("tandem-generation"), "8");
    stage.end().await
}

/// The controller waits for every gateway, even for one without requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_requests_shows_its_generation() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwidle", &["gateway"]).await?;
    stage.publish(&PhaseRecord { generation: 7, ..everything(Phase::DualWrite) }).await?;
    stage
        .until("the generation to be shown", async |stage| {
            Ok(stage.metrics().await?.lines().any(|line| line == "tandem_gateway_generation 7"))
        })
        .await?;
    stage.end().await
}

/// A job or a console that writes directly to MySQL does no harm, and is counted by table.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_bypass_the_gateway_are_counted() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwforeign", &["capture", "gateway"]).await?;
    let counted = async |stage: &Stage, rows: u64, foreign: u64| {
        let table = format!("{}.orders", stage.migration.database);
        let metrics = stage.metrics().await?;
        let of_table = format!("tandem_capture_rows_total{{table=\"{table}\",");
        let published = metrics.lines().filter(|line| line.starts_with(&of_table));
        let published = published.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        let out_of_band = format!("tandem_capture_out_of_band_rows_total{{table=\"{table}\"}} {foreign}");
        Ok(published.sum::<u64>() == rows && metrics.lines().any(|line| line == out_of_band))
    };
    stage.until("nothing to be counted", async |stage| counted(stage, 0, 0).await).await?;
    for (method, path, body) in [
        ("PUT", "/v1/order/1", r#"{"customer": 1}"#),
        ("PATCH", "/v1/order/1", r#"{"note": "x"}"#),
        ("POST", "/v1/order", r#"{"customer": 2}"#),
        ("DELETE", "/v1/order/1", ""),
    ] {
        stage.done(method, path, body).await?;
    }
    stage.until("the gateway's own rows", async |stage| counted(stage, 4, 0).await).await?;
    stage.sql("INSERT INTO orders (id, customer) VALUES (10, 1), (11, 1)").await?;
    stage.sql("UPDATE orders SET note = 'job' WHERE id = 10").await?;
    stage.until("the others", async |stage| counted(stage, 7, 3).await).await?;
    stage.end().await
}
