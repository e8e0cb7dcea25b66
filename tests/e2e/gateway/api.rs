//! What clients may do in every phase.

use serde_json::json;
use tandem_model::Phase;

use super::Stage;
use super::faults::idempotency;
use crate::support::{Migration, ORDERS, ORDERS_MAPPING, Servers, http};

#[tokio::test(flavor = "multi_thread")]
async fn rows_by_every_method() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let stage = Stage::new(servers, "gwrows", &["gateway"]).await?;
    // Generated keys and defaults are in the response.
    let inserted = stage.send("POST", "/v1/order", r#"{"customer": 7, "note": "é\u0000"}"#).await?;
    assert_eq!((inserted.status, inserted.served_by()), (201, "mysql"), "{inserted:?}");
    assert_eq!(inserted.header("tandem-generation"), "0");
    assert!(inserted.header("tandem-token").contains(':'), "{inserted:?}");
    let row = inserted.json();
    assert_eq!((&row["id"], &row["amount"]), (&json!(1), &json!("1.50")));
    assert!(row["placed"].as_str().unwrap().contains('T') && row.get("legacy").is_none(), "{row}");
    assert_eq!(inserted.header("location"), "/v1/order/1");
    let read = stage.get("/v1/order/1").await?;
    assert_eq!((read.status, read.json()), (200, row.clone()));
    assert_eq!(read.header("etag"), inserted.header("etag"));

    // Changes of some columns, and only if the row is as the client has seen it.
    let tag = read.header("etag").to_owned();
    let patched =
        http(stage.port, "PATCH", "/v1/order/1", &[("If-Match", &tag)], r#"{"amount": 12.34}"#).await?;
    assert_eq!((patched.status, &patched.json()["amount"]), (200, &json!("12.34")));
    assert_eq!(patched.json()["note"], row["note"]);
    let stale = http(stage.port, "PATCH", "/v1/order/1", &[("If-Match", &tag)], r#"{"amount": 1}"#).await?;
    assert_eq!((stale.status, stale.header("content-type")), (412, "application/problem+json"));
    assert_eq!(stage.get("/v1/order/1").await?.json()["amount"], "12.34");

    // A replacement sets the columns that it does not name to their defaults.
    let put = stage
        .done("PUT", "/v1/order/1", r#"{"customer": 8, "placed": "2024-02-29T01:02:03.000004"}"#)
        .await?;
    assert_eq!(
        put.json(),
        json!({"id": 1, "customer": 8, "note": null, "amount": "1.50", "placed": "2024-02-29T01:02:03.000004"})
    );
    let created = stage.send("PUT", "/v1/order/50", r#"{"customer": 8}"#).await?;
    assert_eq!((created.status, created.header("location")), (201, "/v1/order/50"));
    let again =
        http(stage.port, "PUT", "/v1/order/50", &[("If-None-Match", "*")], r#"{"customer": 8}"#).await?;
    assert_eq!(again.status, 412);

    let deleted = stage.send("DELETE", "/v1/order/50", "").await?;
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    assert_eq!(stage.get("/v1/order/50").await?.status, 404);
    assert_eq!(stage.send("DELETE", "/v1/order/50", "").await?.status, 404);
    assert_eq!(stage.send("PATCH", "/v1/order/50", "{}").await?.status, 404);

    // An error names the field.
    for (method, path, body, status, field) in [
        ("POST", "/v1/order", r#"{"customer": 1, "id": 1}"#, 409, ""),
        ("POST", "/v1/order", r#"{"customer": "x"}"#, 422, "customer"),
        ("POST", "/v1/order", r#"{"note": "no customer"}"#, 422, "customer"),
        ("POST", "/v1/order", r#"{"customer": 1, "amount": 1.005}"#, 422, "amount"),
        ("PATCH", "/v1/order/1", r#"{"customer": null}"#, 422, "customer"),
        ("PATCH", "/v1/order/1", r#"{"id": 2}"#, 422, "id"),
        ("PATCH", "/v1/order/1", r#"{"note": "01234567890123456789012345678901234567890"}"#, 422, "note"),
        ("GET", "/v1/order/x", "", 422, "id"),
        ("GET", "/v1/order/1/2", "", 404, ""),
        ("GET", "/v1/nothing/1", "", 404, ""),
        ("PATCH", "/v1/order", "{}", 405, ""),
    ] {
        let answer = stage.send(method, path, body).await?;
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        let problem = answer.json();
        assert_eq!(problem["field"].as_str().unwrap_or_default(), field, "{problem}");
        assert!(problem["type"].as_str().unwrap().starts_with("urn:tandem:problem:"), "{problem}");
    }
    let document = stage.get("/openapi.json").await?.json();
    assert!(document["paths"]["/v1/order/{id}"]["patch"].is_object(), "{document}");
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_executed_as_a_whole_or_not_at_all() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let stage = Stage::new(servers, "gwbatch", &["gateway"]).await?;
    let batch = r#"{"operations": [
        {"op": "insert", "entity": "order", "values": {"id": 1, "customer": 1}},
        {"op": "put", "entity": "order", "key": ["2"], "values": {"customer": 2}},
        {"op": "patch", "entity": "order", "key": ["1"], "values": {"note": "twice"}}]}"#;
    let done = stage.done("POST", "/v1/batch", batch).await?;
    let results = done.json()["results"].clone();
    assert_eq!(results[2]["values"]["note"], "twice", "{results}");
    assert_eq!((&results[0]["status"], &results[1]["path"]), (&json!(201), &json!("/v1/order/2")));
    assert!(done.header("tandem-token").contains(':'));

    let failing = r#"{"operations": [
        {"op": "delete", "entity": "order", "key": ["1"]},
        {"op": "patch", "entity": "order", "key": ["99"], "values": {"note": "nobody"}}]}"#;
    let refused = stage.send("POST", "/v1/batch", failing).await?;
    assert_eq!((refused.status, &refused.json()["field"]), (404, &json!("/operations/1")));
    assert_eq!(stage.get("/v1/order/1").await?.status, 200);
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_pages_from_either_store() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwpages", &["capture", "apply", "gateway"]).await?;
    let mut token = String::new();
    for n in 1..=7 {
        let body = format!(r#"{{"customer": {}, "note": "n{n}"}}"#, if n == 4 { 6 } else { 5 });
        token = stage.done("POST", "/v1/order", &body).await?.header("tandem-token").to_owned();
    }
    let query = "/v1/order?target=by_customer&customer=5&id.gt=1&limit=2";
    let mut stores = Vec::new();
    for phase in [Phase::Prepare, Phase::ReadSwitch] {
        stage.phase(phase).await?;
        stage.until_applied(query, &token).await?;
        let mut seen = Vec::new();
        let mut next = String::new();
        loop {
            let page = stage.get(&format!("{query}{next}")).await?;
            assert_eq!((page.status, page.fallback()), (200, ""), "{page:?}");
            assert_eq!(page.served_by(), if phase == Phase::Prepare { "mysql" } else { "cassandra" });
            let page = page.json();
            seen.extend(page["items"].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(token) => next = format!("&page={token}"),
                None => break,
            }
        }
        let ids: Vec<i64> = seen.iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert_eq!(ids, [7, 6, 5, 3, 2], "{phase}");
        stores.push(seen);
    }
    assert_eq!(stores[0], stores[1]);
    let none = stage.get("/v1/order?target=by_customer&customer=99").await?;
    assert_eq!(none.json(), json!({"items": [], "next": null}));
    let bad = stage.get("/v1/order?target=by_customer").await?;
    assert_eq!((bad.status, &bad.json()["field"]), (400, &json!("customer")));
    stage.end().await
}

/// Every type goes through MySQL and Cassandra without a change of its bytes.
#[tokio::test(flavor = "multi_thread")]
async fn every_type_without_loss() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let table = "CREATE TABLE kinds (region VARCHAR(10) COLLATE utf8mb4_0900_ai_ci, n INT UNSIGNED, big BIGINT, huge BIGINT UNSIGNED, \
         price DECIMAL(30,10), f FLOAT, d DOUBLE, y YEAR, day DATE, t TIME(3), at DATETIME(6), stamp TIMESTAMP(3) NULL, \
         e ENUM('a','b'), s SET('x','y','z'), bin BINARY(3), blob_ BLOB, txt TEXT, doc JSON, bits BIT(5), wide BIT(64), PRIMARY KEY (region, n))";
    let mapping = "[[table]]\nsource = \"{db}.kinds\"\n[[table.target]]\ntable = \"kinds\"\n\
                   partition_key = [\"region\"]\nclustering_key = [\"n\"]\n";
    let migration = Migration::new(servers, "gwtypes", &[table]).await?;
    let mut stage = Stage::of(migration, "", mapping, &["capture", "apply", "gateway"]).await?;
    let values = json!({
        "big": "-9223372036854775808", "huge": "18446744073709551615", "price": "12345678901234567890.0123456789",
        "f": 0.1, "d": -1.5e300, "y": 2155, "day": "0001-01-01", "t": "-838:59:59.000",
        "at": "9999-12-31T23:59:59.999999", "stamp": "2038-01-19T03:14:07.000Z", "e": "b", "s": "x,z",
        "bin": "AP8A", "blob_": "/w==", "txt": "a\u{0}\"\\😀",
        "doc": "{\"a\": [1.5, null, \"é\\\"\"], \"b\": 18446744073709551615}", "bits": 21,
        "wide": "18446744073709551615",
    });
    let path = "/v1/kinds/N%C3%B6rd%2F/4294967295";
    let put = stage.done("PUT", path, &values.to_string()).await?;
    let token = put.header("tandem-token").to_owned();
    let mut whole = values.clone();
    whole["region"] = "Nörd/".into();
    whole["n"] = 4_294_967_295_u64.into();
    assert_eq!(put.json(), whole);
    // A key that is equal only by a collation is another key.
    assert_eq!(stage.get("/v1/kinds/nord%2F/4294967295").await?.status, 404);
    let by_mysql = stage.get(path).await?;
    stage.phase(Phase::Canary).await?;
    stage.until_applied(path, &token).await?;
    let by_cassandra = stage.get(path).await?;
    assert_eq!((by_mysql.served_by(), by_cassandra.served_by()), ("mysql", "cassandra"), "{by_cassandra:?}");
    assert_eq!(by_mysql.body, by_cassandra.body);
    assert_eq!(by_mysql.header("etag"), by_cassandra.header("etag"));
    let listed = stage.get("/v1/kinds?region=N%C3%B6rd%2F&n.lte=4294967295").await?;
    assert_eq!((listed.served_by(), &listed.json()["items"][0]), ("cassandra", &whole));
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_its_key_is_done_once() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let migration = Migration::new(servers, "gwidem", &[ORDERS]).await?;
    let extra = idempotency(&migration);
    let stage = Stage::of(migration, &extra, ORDERS_MAPPING, &["gateway"]).await?;
    let insert = |key: &'static str, body: &'static str| {
        let port = stage.port;
        async move { http(port, "POST", "/v1/order", &[("Idempotency-Key", key)], body).await }
    };
    let (first, beside) =
        tokio::try_join!(insert("k1", r#"{"customer": 1}"#), insert("k1", r#"{"customer": 1}"#))?;
    let again = insert("k1", r#"{"customer": 1}"#).await?;
    for answer in [&first, &beside, &again] {
        assert_eq!((answer.status, &answer.json()["id"]), (201, &first.json()["id"]), "{answer:?}");
        assert_eq!(answer.body, first.body);
    }
    assert_eq!(again.header("idempotency-replayed"), "true");
    let other = insert("k1", r#"{"customer": 2}"#).await?;
    assert_eq!(
        (other.status, &other.json()["type"]),
        (422, &json!("urn:tandem:problem:idempotency-key-reused"))
    );
    // A failed response is not stored.
    assert_eq!(insert("k2", r#"{"customer": null}"#).await?.status, 422);
    let corrected = insert("k2", r#"{"customer": 3}"#).await?;
    assert_eq!((corrected.status, corrected.header("idempotency-replayed")), (201, ""));
    let listed = stage.get("/v1/order?target=by_customer&customer=1").await?;
    assert_eq!(listed.json()["items"].as_array().unwrap().len(), 1);
    stage.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_and_missing_scopes() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let migration = Migration::new(servers, "gwhostile", &[ORDERS]).await?;
    let reader = migration.write("reader", "a-reader-of-orders\n")?;
    let writer = migration.write("writer", "a-writer-of-orders\n")?;
    let extra = format!(
        "max_body_bytes = 2000\n[[gateway.token]]\nname = \"reader\"\nsecret = \"file:{}\"\nscopes = [\"*:read\"]\n\
         [[gateway.token]]\nname = \"writer\"\nsecret = \"file:{}\"\nscopes = [\"order:write\"]\n",
        reader.display(),
        writer.display()
    );
    let stage = Stage::of(migration, &extra, ORDERS_MAPPING, &["gateway"]).await?;
    let reader = ("Authorization", "Bearer a-reader-of-orders");
    let writer = ("Authorization", "Bearer a-writer-of-orders");
    let send = async |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        http(stage.port, method, path, headers, body).await.map(|answer| (answer.status, answer))
    };
    for (method, path, headers, status) in [
        ("GET", "/v1/order/1", &[][..], 401),
        ("GET", "/v1/order/1", &[("Authorization", "Bearer nobody-knows-this")], 401),
        ("GET", "/v1/order/1", &[writer], 403),
        ("GET", "/v1/order?target=by_customer&customer=1", &[writer], 403),
        ("POST", "/v1/order", &[reader], 403),
        ("DELETE", "/v1/order/1", &[reader], 403),
        ("GET", "/v1/order/1", &[reader], 404),
        ("GET", "/v1/order/1", &[reader, ("Tandem-Token", "x")], 400),
        ("GET", "/v1/order/1", &[reader, ("Tandem-Deadline-Ms", "soon")], 400),
        ("GET", "/v1/order/%ff", &[reader], 422),
        ("GET", "/v1/order/9223372036854775808", &[reader], 422),
        ("GET", "/v1/order/1'%20OR%20'1'='1", &[reader], 422),
        ("GET", "/v1/%00/1", &[reader], 404),
        ("GET", "/", &[reader], 404),
    ] {
        let (found, answer) = send(method, path, headers, r#"{"customer": 1}"#).await?;
        assert_eq!(found, status, "{method} {path} {headers:?}: {answer:?}");
    }
    let batch = r#"{"operations": [{"op": "delete", "entity": "order", "key": ["1"]}]}"#;
    assert_eq!(send("POST", "/v1/batch", &[reader], batch).await?.0, 403);
    let deep = format!(r#"{{"customer": {}1"#, "[".repeat(1900));
    let large = format!(r#"{{"customer": 1, "note": "{}"}}"#, "x".repeat(3000));
    for (body, status) in [
        (deep.as_str(), 400),
        (large.as_str(), 413),
        ("", 400),
        ("nonsense", 400),
        ("[]", 400),
        (r#"{"customer": 1, "customer": 2}"#, 400),
        (r#"{"customer": 1e400}"#, 422),
        (r#"{"customer": 1, "__proto__": 2}"#, 422),
        (r#"{"customer": {"$gt": 0}}"#, 422),
        (r#"{"customer": 1, "note": "'; DROP TABLE orders; --"}"#, 201),
    ] {
        let (found, answer) = send("POST", "/v1/order", &[writer], body).await?;
        assert_eq!(found, status, "{body}: {answer:?}");
    }
    // The table still exists and has one row.
    let (_, listed) = send("GET", "/v1/order?target=by_customer&customer=1", &[reader], "").await?;
    assert_eq!(listed.json()["items"][0]["note"], "'; DROP TABLE orders; --");
    for secret in ["a-reader-of-orders", "DROP TABLE"] {
        assert!(!stage.running[0].log().contains(secret));
    }
    stage.end().await
}
