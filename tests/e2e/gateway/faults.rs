//! Stores that die, hang or close connections.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use serde_json::json;
use tandem_devstack::{Cassandra, Kafka};
use tandem_kafka::read_all;
use tandem_model::{Phase, PhaseRecord};
use tandem_wire::control::{DualWriteFailure, decode_control};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Stage, everything};
use crate::support::{
    Answer, Fault, Link, Migration, ORDERS, ORDERS_MAPPING, Probe, Servers, control_record, eventually, http,
};

/// A stage whose link to MySQL can break. Apply does not run.
async fn breakable(servers: Servers, test: &str) -> anyhow::Result<(Stage, Link)> {
    let mut migration = Migration::new(servers, test, &[ORDERS]).await?;
    let (link, url) = Link::to_mysql(&migration.servers.mysql_url).await?;
    migration.servers.mysql_url = url;
    let extra = idempotency(&migration);
    let stage = Stage::of(migration, &extra, ORDERS_MAPPING, &["capture", "gateway"]).await?;
    Ok((stage, link))
}

/// The setting that makes the gateway store idempotency keys.
pub(super) fn idempotency(migration: &Migration) -> String {
    format!("idempotency_table = \"{}.tandem_idempotency\"\n", migration.database)
}

impl Stage {
    /// Waits until this many statements wait for locks in the database.
    async fn until_lock_waits(&mut self, count: u64) -> anyhow::Result<()> {
        let waiting = format!(
            "SELECT COUNT(*) FROM performance_schema.data_locks WHERE OBJECT_SCHEMA = '{}' AND LOCK_STATUS = 'WAITING'",
            self.migration.database
        );
        eventually(&format!("{count} requests to wait for locks"), Duration::from_secs(20), async || {
            let waiting: Option<u64> = self.migration.mysql.query_first(&waiting).await?;
            Ok(Probe::when(waiting >= Some(count), format!("{waiting:?} wait")))
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_commit_is_reported_as_unknown() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let (mut stage, link) = breakable(servers, "gwunknown").await?;
    stage.phase(Phase::DualWrite).await?;
    for (id, fault, committed) in [(1, Fault::CloseBeforeCommit, false), (2, Fault::CloseAfterCommit, true)] {
        let path = format!("/v1/order/{id}");
        let headers = [("Idempotency-Key", if committed { "after" } else { "before" })];
        let body = r#"{"customer": 1, "note": "perhaps"}"#;
        link.set(fault);
        let unknown = http(stage.port, "PUT", &path, &headers, body).await?;
        link.set(Fault::None);
        assert_eq!(
            (unknown.status, &unknown.json()["type"]),
            (502, &json!("urn:tandem:problem:commit-outcome-unknown"))
        );
        assert_eq!(unknown.header("tandem-token"), "");
        // The change log brings it, if it was committed.
        assert_eq!(stage.in_cassandra(id).await?, None);
        assert_eq!(stage.get(&path).await?.status, if committed { 200 } else { 404 });
        // The retry is executed once in either case.
        let retried = http(stage.port, "PUT", &path, &headers, body).await?;
        let replayed = if committed { "true" } else { "" };
        assert_eq!((retried.status, retried.header("idempotency-replayed")), (201, replayed), "{retried:?}");
        assert!(retried.header("tandem-token").contains(':'));
    }
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_mysql_is_an_error_at_once() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let (mut stage, link) = breakable(servers, "gwdead").await?;
    stage.done("PUT", "/v1/order/1", r#"{"customer": 1}"#).await?;
    for phase in [Phase::Prepare, Phase::Verify, Phase::Canary] {
        stage.phase(phase).await?;
        link.set(Fault::Close);
        for (method, body) in [("GET", ""), ("PATCH", r#"{"note": "x"}"#), ("DELETE", "")] {
            let began = Instant::now();
            let answer = stage.send(method, "/v1/order/1", body).await?;
            assert_eq!(
                (answer.status, &answer.json()["type"]),
                (503, &json!("urn:tandem:problem:mysql-unavailable"))
            );
            assert!(!answer.header("retry-after").is_empty());
            // The deadline is 5 s. The driver must give up before that.
            assert!(began.elapsed() < Duration::from_secs(5), "{method}");
        }
        link.set(Fault::None);
        let again = stage.get("/v1/order/1").await?;
        assert_eq!((again.status, &again.json()["note"]), (200, &json!(null)), "{again:?}");
    }
    // Cassandra does not have the row, since apply does not run. That does not prove that the row is gone.
    stage.done("PUT", "/v1/order/2", r#"{"customer": 1}"#).await?;
    assert_eq!(stage.in_cassandra(1).await?, None);
    for validate in [1.0, 0.0] {
        stage.order(PhaseRecord { validate, ..everything(Phase::ReadSwitch) }).await?;
        link.set(Fault::Close);
        let unknown = stage.get("/v1/order/1").await?;
        assert_eq!(
            (unknown.status, &unknown.json()["type"]),
            (503, &json!("urn:tandem:problem:mysql-unavailable")),
            "{unknown:?}"
        );
        link.set(Fault::None);
        assert_eq!(stage.get("/v1/order/1").await?.status, 200);
    }
    // Capture has lost MySQL as well. Whether it ends or recovers is not tested here.
    stage.running.truncate(0);
    stage.end().await
}

/// In every phase, with Cassandra hanging and then dead: right responses, counted by reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_cassandra_harms_no_client() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let cassandra = Cassandra::ephemeral()?;
    servers.nodes = vec![cassandra.node()];
    let mut stage = Stage::new(servers, "gwnocass", &["capture", "gateway"]).await?;
    stage.phase(Phase::DualWrite).await?;
    stage.done("PUT", "/v1/order/1", r#"{"customer": 1, "note": "n"}"#).await?;
    let mut failed: Vec<String> = Vec::new();
    for kill in [false, true] {
        if kill {
            cassandra.resume()?;
            cassandra.kill()?;
        } else {
            cassandra.pause()?;
        }
        for phase in Phase::ALL {
            for validate in [1.0, 0.0] {
                stage.order(PhaseRecord { validate, ..everything(phase) }).await?;
                let note = format!("{kill} {phase} {validate}");
                let body = json!({ "note": note }).to_string();
                let written = stage.send("PATCH", "/v1/order/1", &body).await?;
                assert_eq!((written.status, written.served_by()), (200, "mysql"), "{note}: {written:?}");
                if phase.writes_both() {
                    failed.push(written.header("tandem-token").to_owned());
                }
                let read = stage.get("/v1/order/1").await?;
                assert_eq!((read.status, &read.json()["note"]), (200, &json!(note)), "{read:?}");
                let reads_cassandra = phase >= Phase::Canary;
                let reasons = if reads_cassandra { &["late", "failed", "down"][..] } else { &[""] };
                assert!(reasons.contains(&read.fallback()), "{note}: {read:?}");
            }
        }
    }
    // Every failed secondary write is on record, with its transaction.
    let kafka = stage.migration.kafka();
    let topic = stage.migration.topics().dual_write_failures();
    stage
        .until("every failure to be on record", async |_| {
            let mut found = Vec::new();
            for record in read_all(&kafka, &topic).await? {
                let failure: DualWriteFailure = decode_control(record.value.as_deref().unwrap_or_default())?;
                anyhow::ensure!(failure.table.ends_with(".orders") && failure.version > 0, "{failure:?}");
                found.push(failure.gtid);
            }
            Ok(found == failed)
        })
        .await?;
    // Without fallback there is no store to answer.
    stage.order(PhaseRecord { fallback: false, validate: 0.0, ..everything(Phase::ReadSwitch) }).await?;
    let none = stage.get("/v1/order/1").await?;
    assert_eq!(
        (none.status, &none.json()["type"]),
        (503, &json!("urn:tandem:problem:cassandra-unavailable"))
    );
    while let Some(running) = stage.running.pop() {
        running.terminate().await?;
    }
    Ok(())
}

/// Without Kafka the last known phase holds, for reads and writes, and no write is lost.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_control_topic_the_last_phase_holds() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let kafka = Kafka::ephemeral()?;
    servers.brokers = kafka.brokers();
    let mut stage = Stage::new(servers, "gwnokafka", &["capture", "gateway"]).await?;
    stage.phase(Phase::Canary).await?;
    stage.done("PUT", "/v1/order/1", r#"{"customer": 1, "note": "before"}"#).await?;
    kafka.kill()?;
    for n in 0..5 {
        let note = format!("n{n}");
        let written = stage.send("PATCH", "/v1/order/1", &json!({ "note": note }).to_string()).await?;
        assert_eq!((written.status, written.header("tandem-generation")), (200, "1"), "{written:?}");
        let read = stage.get_with("/v1/order/1", &[("Tandem-Token", written.header("tandem-token"))]).await?;
        assert_eq!((read.status, &read.json()["note"]), (200, &json!(note)), "{read:?}");
        assert_eq!((read.served_by(), read.fallback()), ("mysql", "token-not-applied"));
    }
    stage.running.clear();
    stage.migration.drop().await
}

/// A gateway at its limit refuses at once, and a request that waits ends at its deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_gateway_says_so_and_deadlines_hold() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let migration = Migration::new(servers, "gwfull", &[ORDERS]).await?;
    let mut stage = Stage::of(migration, "max_in_flight = 2\n", ORDERS_MAPPING, &["gateway"]).await?;
    stage.done("PUT", "/v1/order/1", r#"{"customer": 1}"#).await?;
    stage.sql("BEGIN").await?;
    stage.sql("UPDATE orders SET note = 'locked' WHERE id = 1").await?;
    let port = stage.port;
    let blocked = |ms: &'static str| {
        let body = r#"{"note": "late"}"#;
        tokio::spawn(
            async move { http(port, "PATCH", "/v1/order/1", &[("Tandem-Deadline-Ms", ms)], body).await },
        )
    };
    let waiting = [blocked("4000"), blocked("4000")];
    let refused =
        |answer: &Answer| answer.status == 503 && answer.json()["type"] == "urn:tandem:problem:overloaded";
    // A request that comes before both of them wait may take the place of one of them.
    stage.until_lock_waits(2).await?;
    let full = stage.get("/v1/order/1").await?;
    assert!(refused(&full) && full.header("retry-after") == "1", "{full:?}");
    for one in waiting {
        let late = one.await??;
        assert_eq!((late.status, &late.json()["type"]), (504, &json!("urn:tandem:problem:deadline")));
    }
    stage.sql("COMMIT").await?;
    let after = stage.get("/v1/order/1").await?;
    assert_eq!((after.status, &after.json()["note"]), (200, &json!("locked")));
    stage.done("PATCH", "/v1/order/1", r#"{"note": "free"}"#).await?;
    stage.end().await
}

/// A request that claims an idempotency key waits for the request that has it. If that one gives up, those
/// that wait can deadlock. This is no reason to fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_over_an_idempotency_key_is_tried_again() -> anyhow::Result<()> {
    const WAITING: u64 = 4;
    let servers = Servers::from_env();
    let migration = Migration::new(servers, "gwclaim", &[ORDERS]).await?;
    let extra = idempotency(&migration);
    let mut stage = Stage::of(migration, &extra, ORDERS_MAPPING, &["gateway"]).await?;
    stage.done("PUT", "/v1/order/1", r#"{"customer": 1}"#).await?;
    stage.sql("BEGIN").await?;
    stage.sql("DELETE FROM orders WHERE id = 1").await?;
    let port = stage.port;
    let patch = || {
        let headers = [("Idempotency-Key", "k"), ("Tandem-Deadline-Ms", "30000")];
        tokio::spawn(async move { http(port, "PATCH", "/v1/order/1", &headers, r#"{"note": "n"}"#).await })
    };
    let mut requests = Vec::new();
    // The first request waits for the row, the others for its key.
    for n in 0..=WAITING {
        requests.push(patch());
        stage.until_lock_waits(n + 1).await?;
    }
    stage.sql("COMMIT").await?;
    // Each finds no row when it gets the key, and stores no response.
    for request in requests {
        let answer = request.await??;
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    stage.end().await
}

/// A request whose client has disconnected does not count as under way for ever.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_away_are_not_counted_as_under_way() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwgone", &["gateway"]).await?;
    stage.done("PUT", "/v1/order/1", r#"{"customer": 1}"#).await?;
    stage.sql("LOCK TABLES orders WRITE").await?;
    let under_way = async |stage: &Stage, count: &str| {
        Ok(stage.metrics().await?.lines().any(|line| line == format!("tandem_gateway_in_flight {count}")))
    };
    let mut client = TcpStream::connect(("127.0.0.1", stage.port)).await?;
    client.write_all(b"GET /v1/order/1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    stage.until("the request to be under way", async |stage| under_way(stage, "1").await).await?;
    drop(client);
    stage.until("it to be over", async |stage| under_way(stage, "0").await).await?;
    stage.sql("UNLOCK TABLES").await?;
    stage.end().await
}

/// A gateway whose watermark reader has ended would borrow old watermarks and send every token to MySQL, for
/// ever and without a message.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_cannot_follow_watermarks_ends() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwwatermarks", &["gateway"]).await?;
    let nonsense = control_record(&stage.migration.topics().watermarks(), "nonsense", "nonsense");
    stage.producer.send(vec![nonsense]).await?;
    let ended = stage.running[0].until_ended().await?;
    assert!(ended.contains("the watermark topic is no longer followed"), "{ended}");
    stage.migration.drop().await
}
