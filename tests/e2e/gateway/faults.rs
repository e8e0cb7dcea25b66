//! Stores that die, hang and cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use serde_json::json;
use tandem_devstack::{Cassandra, Kafka};
use tandem_kafka::read_all;
use tandem_model::{Phase, PhaseRecord};
use tandem_wire::control::{DualWriteFailure, decode_control};
use tandem_wire::log::{OutRecord, Topics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{MAPPING, ORDERS, Stage, everything, http};
use crate::support::{Migration, Servers};

/// Passes everything on.
const PASS: u8 = 0;
/// Cuts a connection when a COMMIT comes, before it is passed on.
const CUT_BEFORE: u8 = 1;
/// Passes a COMMIT on, and cuts the connection before its answer.
const CUT_AFTER: u8 = 2;
/// Cuts every connection.
const DEAD: u8 = 3;

/// A way to MySQL that can break.
struct Proxy {
    port: u16,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    async fn before(url: &str) -> anyhow::Result<(Self, String)> {
        let (user, address) = url.rsplit_once('@').ok_or_else(|| anyhow::anyhow!("a URL without a user"))?;
        let (address, user) = (address.to_owned(), user.to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let mode = Arc::new(AtomicU8::new(PASS));
        let shared = Arc::clone(&mode);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, address.clone(), Arc::clone(&shared)));
            }
        });
        Ok((Self { port, mode }, format!("{user}@127.0.0.1:{port}")))
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }
}

/// One connection. COM_QUERY is the byte 3 after a packet's header of four.
async fn pass(mut client: TcpStream, address: String, mode: Arc<AtomicU8>) -> anyhow::Result<()> {
    let mut server = TcpStream::connect(address).await?;
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let sent = &up[..read?];
                if sent.is_empty() || mode.load(Ordering::SeqCst) == DEAD {
                    return Ok(());
                }
                let commits = sent.get(4..).is_some_and(|rest| rest.starts_with(b"\x03COMMIT"));
                match mode.load(Ordering::SeqCst) {
                    CUT_BEFORE if commits => return Ok(()),
                    CUT_AFTER if commits => {
                        server.write_all(sent).await?;
                        // Its answer says that it is done; nobody else hears it.
                        let _ = server.read(&mut down).await?;
                        return Ok(());
                    }
                    _ => server.write_all(sent).await?,
                }
            }
            read = server.read(&mut down) => {
                let received = &down[..read?];
                if received.is_empty() {
                    return Ok(());
                }
                client.write_all(received).await?;
            }
            _ = tick.tick() => {
                if mode.load(Ordering::SeqCst) == DEAD {
                    return Ok(());
                }
            }
        }
    }
}

/// A stage whose way to MySQL can break. Apply does not run.
async fn breakable(servers: Servers, test: &str) -> anyhow::Result<(Stage, Proxy)> {
    let mut migration = Migration::new(servers, test, &[ORDERS]).await?;
    let (proxy, url) = Proxy::before(&migration.servers.mysql_url).await?;
    migration.servers.mysql_url = url;
    let extra = format!("idempotency_table = \"{}.tandem_idempotency\"\n", migration.database);
    let stage = Stage::of(migration, &extra, MAPPING, &["capture", "gateway"]).await?;
    Ok((stage, proxy))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_commit_is_said_to_be_unknown() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let (mut stage, proxy) = breakable(servers, "gwunknown").await?;
    stage.phase(Phase::DualWrite).await?;
    for (id, mode, committed) in [(1, CUT_BEFORE, false), (2, CUT_AFTER, true)] {
        let path = format!("/v1/order/{id}");
        let headers = [("Idempotency-Key", if committed { "after" } else { "before" })];
        let body = r#"{"customer": 1, "note": "perhaps"}"#;
        proxy.set(mode);
        let unknown = http(stage.port, "PUT", &path, &headers, body).await?;
        proxy.set(PASS);
        assert_eq!(
            (unknown.status, &unknown.json()["type"]),
            (502, &json!("urn:tandem:problem:commit-outcome-unknown"))
        );
        assert_eq!(unknown.header("tandem-token"), "");
        // Left to the change log, whether it happened or not.
        assert_eq!(stage.in_cassandra(id).await?, None);
        assert_eq!(stage.get(&path).await?.status, if committed { 200 } else { 404 });
        // The retry is done once, in either case.
        let retried = http(stage.port, "PUT", &path, &headers, body).await?;
        let replayed = if committed { "true" } else { "" };
        assert_eq!((retried.status, retried.header("idempotency-replayed")), (201, replayed), "{retried:?}");
        assert!(retried.header("tandem-token").contains(':'));
    }
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_mysql_is_an_error_at_once() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let (mut stage, proxy) = breakable(servers, "gwdead").await?;
    stage.done("PUT", "/v1/order/1", r#"{"customer": 1}"#).await?;
    for phase in [Phase::Prepare, Phase::Verify, Phase::Canary] {
        stage.phase(phase).await?;
        proxy.set(DEAD);
        for (method, body) in [("GET", ""), ("PATCH", r#"{"note": "x"}"#), ("DELETE", "")] {
            let began = Instant::now();
            let answer = stage.send(method, "/v1/order/1", body).await?;
            assert_eq!(
                (answer.status, &answer.json()["type"]),
                (503, &json!("urn:tandem:problem:mysql-unavailable"))
            );
            assert!(!answer.header("retry-after").is_empty());
            // The deadline is 5 s; that the driver gives up before is what is promised.
            assert!(began.elapsed() < Duration::from_secs(5), "{method}");
        }
        proxy.set(PASS);
        let again = stage.get("/v1/order/1").await?;
        assert_eq!((again.status, &again.json()["note"]), (200, &json!(null)), "{again:?}");
    }
    // Cassandra has not got the row, since apply does not run. It is not gone: nobody knows.
    stage.done("PUT", "/v1/order/2", r#"{"customer": 1}"#).await?;
    assert_eq!(stage.in_cassandra(1).await?, None);
    for validate in [1.0, 0.0] {
        stage.order(PhaseRecord { validate, ..everything(Phase::ReadSwitch) }).await?;
        proxy.set(DEAD);
        let unknown = stage.get("/v1/order/1").await?;
        assert_eq!(
            (unknown.status, &unknown.json()["type"]),
            (503, &json!("urn:tandem:problem:mysql-unavailable")),
            "{unknown:?}"
        );
        proxy.set(PASS);
        assert_eq!(stage.get("/v1/order/1").await?.status, 200);
    }
    assert!(proxy.port > 0);
    // Capture has met the same; it ends or goes on by itself, and is not what is tested here.
    stage.running.truncate(0);
    stage.end().await
}

/// In every phase, with Cassandra hanging and then dead: right answers, counted by reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_cassandra_harms_no_client() -> anyhow::Result<()> {
    let Some(mut servers) = Servers::from_env() else { return Ok(()) };
    let cassandra = Cassandra::ephemeral()?;
    servers.nodes = cassandra.node();
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
    // Every second leg that was not made is on record, with the transaction that it belongs to.
    let kafka = stage.migration.kafka();
    let topic = Topics::new(&stage.migration.prefix).dual_write_failures();
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
    // Without fallback there is nobody to answer.
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

/// Kafka gone: the last phase known holds, in both directions, and what is written is kept.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_control_topic_the_last_phase_holds() -> anyhow::Result<()> {
    let Some(mut servers) = Servers::from_env() else { return Ok(()) };
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

/// Beyond what it can hold the gateway says so at once, and a request that waits ends at its deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_gateway_says_so_and_deadlines_hold() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let migration = Migration::new(servers, "gwfull", &[ORDERS]).await?;
    let mut stage = Stage::of(migration, "max_in_flight = 2\n", MAPPING, &["gateway"]).await?;
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
    let refused = |answer: &super::Answer| {
        answer.status == 503 && answer.json()["type"] == "urn:tandem:problem:overloaded"
    };
    // Whoever asks before both of them wait may be let in, in place of one of them.
    let began = Instant::now();
    let locks = format!(
        "SELECT COUNT(*) FROM performance_schema.data_locks WHERE OBJECT_SCHEMA = '{}' AND LOCK_STATUS = 'WAITING'",
        stage.migration.database
    );
    while stage.migration.mysql.query_first::<u64, _>(&locks).await? < Some(2) {
        anyhow::ensure!(began.elapsed() < Duration::from_secs(20), "the requests do not wait for the lock");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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

/// Whoever claims an idempotency key waits for the one who has it. If that one gives up, those who wait
/// get in each other's way, which is no reason to fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_over_an_idempotency_key_is_tried_again() -> anyhow::Result<()> {
    const WAITING: usize = 4;
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let migration = Migration::new(servers, "gwclaim", &[ORDERS]).await?;
    let extra = format!("idempotency_table = \"{}.tandem_idempotency\"\n", migration.database);
    let mut stage = Stage::of(migration, &extra, MAPPING, &["gateway"]).await?;
    stage.done("PUT", "/v1/order/1", r#"{"customer": 1}"#).await?;
    stage.sql("BEGIN").await?;
    stage.sql("DELETE FROM orders WHERE id = 1").await?;
    let port = stage.port;
    let patch = || {
        let headers = [("Idempotency-Key", "k"), ("Tandem-Deadline-Ms", "30000")];
        tokio::spawn(async move { http(port, "PATCH", "/v1/order/1", &headers, r#"{"note": "n"}"#).await })
    };
    let locks = format!(
        "SELECT COUNT(*) FROM performance_schema.data_locks WHERE OBJECT_SCHEMA = '{}' AND LOCK_STATUS = 'WAITING'",
        stage.migration.database
    );
    let mut requests = Vec::new();
    // The first waits for the row, the others for its key.
    for n in 0..=WAITING {
        requests.push(patch());
        let began = Instant::now();
        while stage.migration.mysql.query_first::<u64, _>(&locks).await? < Some(n as u64 + 1) {
            anyhow::ensure!(began.elapsed() < Duration::from_secs(20), "request {n} does not wait");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    stage.sql("COMMIT").await?;
    // Each in its turn finds no row, and keeps no answer.
    for request in requests {
        let answer = request.await??;
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    stage.end().await
}

/// A request whose client is gone is not under way for ever.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_away_are_not_counted_as_under_way() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
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

/// A gateway whose reader of watermarks has ended would borrow an old one, and send every token to
/// MySQL, for ever and in silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_cannot_follow_watermarks_ends() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let mut stage = Stage::new(servers, "gwwatermarks", &["gateway"]).await?;
    let nonsense = OutRecord {
        topic: Topics::new(&stage.migration.prefix).watermarks().into(),
        partition: 0,
        key: b"nonsense".to_vec(),
        value: Some(b"nonsense".to_vec()),
        version: None,
        timestamp_ms: None,
    };
    stage.producer.send(vec![nonsense]).await?;
    let began = Instant::now();
    let ended = loop {
        if let Err(ended) = stage.running[0].check() {
            break ended.to_string();
        }
        assert!(began.elapsed() < Duration::from_mins(1), "it goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(ended.contains("the watermark topic is no longer followed"), "{ended}");
    stage.migration.drop().await
}
