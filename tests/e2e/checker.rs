//! The checker as a program, over prepared journals and real stores: it reports every violation that it must
//! report. The unit tests of its judgement are in `tests/checker`.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::support::{Finished, Migration, Servers, finish};

/// Runs the checker. Returns its verdict as well, if there is one.
pub(crate) async fn check(
    folder: &Path,
    stores: &Json,
    journals: &[PathBuf],
) -> anyhow::Result<(Finished, Json)> {
    let (described, verdict) = (folder.join("stores.json"), folder.join("verdict.json"));
    std::fs::write(&described, stores.to_string())?;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tandem-checker"));
    command.arg("--stores").arg(described).arg("--json").arg(&verdict).args(journals);
    let finished = finish(command).await?;
    let verdict = std::fs::read_to_string(verdict).ok().and_then(|text| serde_json::from_str(&text).ok());
    Ok((finished, verdict.unwrap_or_default()))
}

/// The tables of an entity `order` with the columns `id` and `note`.
pub(crate) fn orders(migration: &Migration, targets: &[&str]) -> Json {
    let place = |of: &str, table: &str| json!({ "table": [of, table], "key": ["id"], "value": "note" });
    json!({
        "mysql_url": migration.servers.mysql_url,
        "cassandra_nodes": migration.servers.nodes,
        "entities": [{
            "name": "order",
            "mysql": place(&migration.database, "orders"),
            "cassandra": targets.iter().map(|table| place(&migration.keyspace, table)).collect::<Vec<_>>(),
        }],
    })
}

/// A line of a journal about row 1.
fn line(at: i64, op: &str, value: &str, outcome: &str, token: Option<&str>) -> String {
    let line = json!({
        "client": "c", "began_us": at, "ended_us": at + 1, "entity": "order", "key": ["1"], "op": op,
        "value": value, "outcome": outcome, "token": token, "served_by": "cassandra",
    });
    format!("{line}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_write_and_a_stale_read_are_caught() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let table = "CREATE TABLE orders (id BIGINT PRIMARY KEY, note VARCHAR(40))";
    let rows = "INSERT INTO orders VALUES (1, 'b'), (2, 'not in a journal')";
    let migration = Migration::new(servers, "checker", &[table, rows]).await?;
    let session = migration.create_keyspace().await?;
    session.query_unpaged("CREATE TABLE orders (id bigint PRIMARY KEY, note text)", ()).await?;
    session.query_unpaged("INSERT INTO orders (id, note) VALUES (1, 'b')", ()).await?;
    let stores = orders(&migration, &["orders"]);
    let folder = migration.folder.path();
    let judged = async |lines: &[String]| {
        let journal = folder.join("journal");
        std::fs::write(&journal, lines.concat())?;
        check(folder, &stores, &[journal]).await
    };
    let a = line(1, "write", "a", "ok", Some("t1"));
    let b = |outcome| line(3, "write", "b", outcome, (outcome == "ok").then_some("t2"));
    let read = |value, token| line(5, "read", value, "ok", Some(token));
    let c = |outcome| line(7, "write", "c", outcome, (outcome == "ok").then_some("t3"));
    for (name, lines, lost, stale, impossible) in [
        ("all is well", [a.clone(), b("ok"), read("b", "t2")], 0, 0, 0),
        ("the last is unknown, and came", [a.clone(), b("unknown"), read("a", "t1")], 0, 0, 0),
        ("the last is unknown, and did not come", [b("ok"), read("b", "t2"), c("unknown")], 0, 0, 0),
        // In both stores.
        ("a write is lost", [b("ok"), read("b", "t2"), c("ok")], 2, 0, 0),
        ("a read is stale", [a.clone(), b("ok"), read("a", "t2")], 0, 1, 0),
        ("what was refused is there", [a.clone(), b("failed"), read("a", "t1")], 0, 0, 2),
    ] {
        let (finished, verdict) = judged(&lines).await?;
        assert_eq!(finished.success, lost + stale + impossible == 0, "{name}: {finished:?}");
        for (what, count) in [("lost_writes", lost), ("stale_reads", stale), ("impossible", impossible)] {
            assert_eq!(verdict[what], count, "{name}: {verdict:#}");
        }
    }
    // In one store only.
    session.query_unpaged("UPDATE orders SET note = 'a' WHERE id = 1", ()).await?;
    let (finished, verdict) = judged(&[a, b("ok")]).await?;
    assert!(!finished.success && finished.stdout.contains("LOST WRITE: Cassandra"), "{finished:?}");
    assert_eq!((&verdict["lost_writes"], &verdict["impossible"]), (&json!(1), &json!(1)));
    // Empty journals prove nothing.
    let (finished, _) = judged(&[]).await?;
    assert!(!finished.success && finished.stderr.contains("empty"), "{finished:?}");
    migration.drop().await
}
