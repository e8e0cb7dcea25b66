//! Hostile clients: what they may cost, hold and learn. `api.rs` has the requests that are merely wrong.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Stage;
use super::faults::idempotency;
use crate::support::{Answer, MINUTE, Migration, ORDERS, ORDERS_MAPPING, Probe, Servers, eventually, http};

/// More than a test build takes for a hostile megabyte (release: some milliseconds), and less than what a megabyte of
/// short names takes where each is compared with all others.
const MOST_CPU: Duration = Duration::from_secs(1);

/// Two tokens: `reader` may read orders, and `writer` may write them.
fn tokens(migration: &Migration) -> anyhow::Result<String> {
    let section = |(name, scope): (&str, &str)| {
        let secret = migration.write(name, format!("{name}-of-orders-only\n"))?;
        let secret = secret.display();
        Ok(format!(
            "[[gateway.token]]\nname = \"{name}\"\nsecret = \"file:{secret}\"\nscopes = [\"{scope}\"]\n"
        ))
    };
    [("reader", "order:read"), ("writer", "order:write")].into_iter().map(section).collect()
}

const READER: (&str, &str) = ("Authorization", "Bearer reader-of-orders-only");
const WRITER: (&str, &str) = ("Authorization", "Bearer writer-of-orders-only");

#[tokio::test(flavor = "multi_thread")]
async fn hostile_megabytes_cost_little() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let migration = Migration::new(servers, "gwcpu", &[ORDERS]).await?;
    let extra = format!("max_body_bytes = 1100000\n{}", tokens(&migration)?);
    let stage = Stage::of(migration, &extra, ORDERS_MAPPING, &["gateway"]).await?;
    let megabyte = 1 << 20;
    let names: Vec<String> = (0..megabyte / 9).map(|n| format!("\"{n:x}\":1")).collect();
    let names = format!("{{{}}}", names.join(","));
    let deep = format!("{{\"customer\":{}", "[".repeat(megabyte));
    let digits = format!("{{\"customer\":1,\"amount\":{}}}", "9".repeat(megabyte));
    let operations = vec!["{\"op\":\"insert\",\"entity\":\"order\"}"; megabyte / 34].join(",");
    let operations = format!("{{\"operations\":[{operations}]}}");
    for (path, body, status) in [
        ("/v1/order", &names, 400),
        ("/v1/order", &deep, 400),
        ("/v1/order", &digits, 422),
        ("/v1/batch", &operations, 400),
    ] {
        let before = stage.running[0].cpu()?;
        let answer = http(stage.port, "POST", path, &[WRITER], body).await?;
        let cost = stage.running[0].cpu()?.saturating_sub(before);
        assert_eq!(answer.status, status, "{body:.40}: {answer:?}");
        assert!(cost < MOST_CPU, "{body:.40}: {cost:?}");
        assert!(answer.body.len() < 1000, "{body:.40}");
        // A scope is checked before a byte of the body is looked at.
        let refused = http(stage.port, "POST", path, &[READER], body).await?;
        assert_eq!(refused.status, 403, "{body:.40}: {refused:?}");
    }
    let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    let falling = (1..5000).rev().map(|n| (n * 2).to_string()).collect::<Vec<_>>().join(":");
    for token in [format!("{uuid}:{falling}"), format!("{uuid}:{}:1", "t".repeat(30_000))] {
        let before = stage.running[0].cpu()?;
        let refused = stage.get_with("/v1/order/1", &[READER, ("Tandem-Token", &token)]).await?;
        let cost = stage.running[0].cpu()?.saturating_sub(before);
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(cost < MOST_CPU, "{cost:?}");
    }
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_and_slow_bodies_keep_nobody_out() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let stage = {
        let migration = Migration::new(servers, "gwslow", &[ORDERS]).await?;
        let limits = "max_in_flight = 4\n[gateway.limits]\nmax_connections = 500\nheader_timeout_ms = 120000\n\
                      body_timeout_ms = 3000\n";
        Stage::of(migration, limits, ORDERS_MAPPING, &["gateway"]).await?
    };
    stage.done("PUT", "/v1/order/1", r#"{"customer": 1}"#).await?;
    let mut silent = Vec::new();
    for _ in 0..2000 {
        silent.push(TcpStream::connect(("127.0.0.1", stage.port)).await?);
    }
    for _ in 0..20 {
        assert_eq!(stage.get("/v1/order/1").await?.status, 200);
    }
    drop(silent);
    // More slow bodies than requests may be in flight.
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut client = TcpStream::connect(("127.0.0.1", stage.port)).await?;
        let head = "PUT /v1/order/2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                    Content-Length: 100\r\n\r\n{";
        client.write_all(head.as_bytes()).await?;
        slow.push(client);
    }
    for n in 0..20 {
        let answer =
            stage.send("PATCH", "/v1/order/1", &json!({ "note": format!("n{n}") }).to_string()).await?;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    for mut client in slow {
        let mut answer = [0; 12];
        tokio::time::timeout(MINUTE, client.read_exact(&mut answer)).await??;
        assert_eq!(&answer, b"HTTP/1.1 408");
    }
    assert_eq!(stage.get("/v1/order/2").await?.status, 404);
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_can_change_nothing() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let migration = Migration::new(servers, "gwpage", &[ORDERS]).await?;
    let extra = "allowed_origins = [\"https://admin.example.com\"]\n";
    let stage = Stage::of(migration, extra, ORDERS_MAPPING, &["gateway"]).await?;
    let body = r#"{"customer": 1}"#;
    for (header, status, kind) in [
        (("Origin", "https://evil.example.com"), 403, "foreign-origin"),
        (("Origin", "null"), 403, "foreign-origin"),
        // A name of the page's own that leads to this machine.
        (("Host", "rebound.example.com"), 421, "misdirected"),
        // What a form can send.
        (("Content-Type", "text/plain"), 415, "unsupported-media-type"),
    ] {
        let refused = http(stage.port, "PUT", "/v1/order/1", &[header], body).await?;
        assert_eq!(refused.status, status, "{header:?} {refused:?}");
        assert_eq!(refused.json()["type"], format!("urn:tandem:problem:{kind}"));
    }
    assert_eq!(stage.get("/v1/order/1").await?.status, 404);
    let admin = [("Origin", "https://admin.example.com")];
    assert_eq!(http(stage.port, "PUT", "/v1/order/1", &admin, body).await?.status, 201);
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_only_write_learns_nothing() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let migration = Migration::new(servers, "gwblind", &[ORDERS]).await?;
    let extra = format!("{}{}", idempotency(&migration), tokens(&migration)?);
    let stage = Stage::of(migration, &extra, ORDERS_MAPPING, &["gateway"]).await?;
    let write = async |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        http(stage.port, method, path, &[&[WRITER], headers].concat(), body).await
    };
    let tag = async |path: &str| -> anyhow::Result<String> {
        Ok(stage.get_with(path, &[READER]).await?.header("etag").to_owned())
    };
    let inserted = write("POST", "/v1/order", &[], r#"{"customer": 7, "note": "secret"}"#).await?;
    assert_eq!((inserted.status, inserted.header("location")), (201, "/v1/order/1"), "{inserted:?}");
    assert_eq!((inserted.body.as_str(), inserted.header("etag")), ("", ""), "{inserted:?}");

    // A row that exists, and one that does not. The answers are the same.
    let seen = |answer: &Answer| {
        let told = ["etag", "location"].map(|name| answer.header(name).to_owned());
        (answer.status, answer.body.clone(), told, answer.header("tandem-token").contains(":1-"))
    };
    for (method, body) in [
        ("PATCH", "{}"),
        ("PATCH", r#"{"note": "new"}"#),
        ("PATCH", r#"{"customer": null}"#),
        ("PUT", r#"{"customer": 8}"#),
        ("DELETE", ""),
    ] {
        write("DELETE", "/v1/order/2", &[], "").await?;
        let one = write(method, "/v1/order/1", &[], body).await?;
        let other = write(method, "/v1/order/2", &[], body).await?;
        if method == "PATCH" && body.contains("null") {
            assert_eq!((one.status, other.status), (422, 422), "{one:?} {other:?}");
            continue;
        }
        assert_eq!(one.status, 204, "{method} {body}: {one:?}");
        assert_eq!(seen(&one), seen(&other), "{method} {body}: {one:?} {other:?}");
    }
    // The changes were made, in rows that exist.
    assert_eq!(stage.get_with("/v1/order/1", &[READER]).await?.status, 404);
    write("PUT", "/v1/order/3", &[], r#"{"customer": 9}"#).await?;
    assert_eq!(write("PATCH", "/v1/order/3", &[], r#"{"note": "changed"}"#).await?.status, 204);
    assert_eq!(stage.get_with("/v1/order/3", &[READER]).await?.json()["note"], "changed");

    // A condition on a row would tell whether a guess is right.
    let known = tag("/v1/order/3").await?;
    for headers in [("If-Match", known.as_str()), ("If-Match", "*"), ("If-None-Match", "*")] {
        let refused = write("PUT", "/v1/order/3", &[headers], r#"{"customer": 9}"#).await?;
        assert_eq!(refused.status, 403, "{headers:?} {refused:?}");
    }
    let batch = json!({"operations": [
        {"op": "patch", "entity": "order", "key": ["3"], "values": {"note": "in a batch"}},
        {"op": "patch", "entity": "order", "key": ["4"], "values": {"note": "nobody"}}]});
    let done = write("POST", "/v1/batch", &[], &batch.to_string()).await?;
    let results = &done.json()["results"];
    assert_eq!((done.status, &results[0]["status"], &results[1]["status"]), (200, &json!(204), &json!(204)));
    assert!(!done.body.contains("in a batch") && results[0]["etag"].is_null(), "{done:?}");
    assert_eq!(stage.get_with("/v1/order/3", &[READER]).await?.json()["note"], "in a batch");
    stage.end().await
}

/// MySQL does not notice that a client is gone while its statement waits. Here it would wait for as long as the table is
/// locked.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_statement_in_mysql() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwkill", &["gateway"]).await?;
    stage.done("PUT", "/v1/order/1", r#"{"customer": 1}"#).await?;
    let waiting = format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for table%' AND INFO LIKE '%{}%'",
        stage.migration.database
    );
    stage.sql("LOCK TABLES orders WRITE").await?;
    let mut until_waiting = async |count: u64| {
        eventually(&format!("{count} statements to wait"), Duration::from_secs(30), async || {
            let found: Option<u64> = stage.migration.mysql.query_first(&waiting).await?;
            Ok(Probe::when(found == Some(count), format!("{found:?} wait")))
        })
        .await
    };
    let port = stage.port;
    for (method, body) in [("GET", ""), ("PATCH", r#"{"note": "late"}"#), ("DELETE", "")] {
        let request = tokio::spawn(async move {
            let headers = [("Tandem-Deadline-Ms", "1500"), ("X-Request-Id", "the-late-one")];
            http(port, method, "/v1/order/1", &headers, body).await
        });
        until_waiting(1).await?;
        let late = request.await??;
        assert_eq!((late.status, &late.json()["type"]), (504, &json!("urn:tandem:problem:deadline")));
        assert_eq!(late.header("x-request-id"), "the-late-one");
        until_waiting(0).await?;
    }
    // A client that is gone.
    let mut client = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = "GET /v1/order/1 HTTP/1.1\r\nHost: localhost\r\nTandem-Deadline-Ms: 60000\r\n\r\n";
    client.write_all(request.as_bytes()).await?;
    until_waiting(1).await?;
    drop(client);
    until_waiting(0).await?;
    stage.sql("UNLOCK TABLES").await?;
    let row = stage.get("/v1/order/1").await?;
    assert_eq!((row.status, &row.json()["note"]), (200, &json!(null)), "{row:?}");
    // Each failure is in the log with its request.
    let log = stage.running[0].log();
    let failed: Vec<&str> = log.lines().filter(|line| line.contains("a request failed")).collect();
    assert_eq!(failed.len(), 3, "{log}");
    assert!(failed.iter().all(|line| line.contains("the-late-one") && line.contains("504")), "{failed:?}");
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_bounded_in_bytes() -> anyhow::Result<()> {
    const MOST: usize = 500;
    let servers = Servers::from_env();
    let migration = Migration::new(servers, "gwbytes", &[ORDERS]).await?;
    let extra = format!("max_page_bytes = {MOST}\n");
    let stage = Stage::of(migration, &extra, ORDERS_MAPPING, &["gateway"]).await?;
    let note = "x".repeat(40);
    for _ in 0..20 {
        stage.done("POST", "/v1/order", &json!({ "customer": 5, "note": note }).to_string()).await?;
    }
    let (mut ids, mut next, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = stage.get(&format!("/v1/order?target=by_customer&customer=5&limit=1000{next}")).await?;
        assert!(page.body.len() < MOST + 100, "{page:?}");
        pages += 1;
        let page = page.json();
        ids.extend(page["items"].as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()));
        match page["next"].as_str() {
            Some(token) => next = format!("&page={token}"),
            None => break,
        }
    }
    assert_eq!(ids, (1..=20).rev().collect::<Vec<i64>>());
    assert!(pages > 3, "{pages}");
    stage.end().await
}

/// One statement deletes 2,000 answers. The next one follows at once, not a minute later.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_idempotency_keys_are_deleted_as_fast_as_they_expire() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut migration = Migration::new(servers, "gwprune", &[ORDERS]).await?;
    let kept = "CREATE TABLE tandem_idempotency (id BINARY(32) PRIMARY KEY, request BINARY(32) NOT NULL, answer \
                MEDIUMBLOB, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, KEY (at))";
    let old = "INSERT INTO tandem_idempotency WITH RECURSIVE n AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM n WHERE n < \
               9000) SELECT UNHEX(SHA2(n, 256)), UNHEX(SHA2(n, 256)), NULL, CURRENT_TIMESTAMP - INTERVAL 2 DAY FROM n";
    for statement in ["SET SESSION cte_max_recursion_depth = 10000", kept, old] {
        migration.mysql.query_drop(statement).await?;
    }
    let extra = idempotency(&migration);
    let mut stage = Stage::of(migration, &extra, ORDERS_MAPPING, &["gateway"]).await?;
    eventually("the old answers to be deleted", Duration::from_secs(40), async || {
        let count = "SELECT COUNT(*) FROM tandem_idempotency";
        let left: Option<u64> = stage.migration.mysql.query_first(count).await?;
        Ok(Probe::when(left == Some(0), format!("{left:?} left")))
    })
    .await?;
    stage.end().await
}
