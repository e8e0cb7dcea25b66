//! Dead letters: a bad row is put aside, all others go on, and it settles without a loss.

use std::time::Instant;

use mysql_async::prelude::Queryable;
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use crate::support::{MINUTE, Migration, Probe, Running, Servers, T, T_MAPPING, eventually, finish, full};

/// A table with a date, which can be a zero date for a client without a strict SQL mode.
const DATED: &str = "CREATE TABLE dated (id INT PRIMARY KEY, place INT NOT NULL, day DATE)";

/// More bytes than Cassandra takes in a mutation.
const OVERSIZED: usize = 17 << 20;

/// By its key, and by the place, so that a row can move.
const DATED_MAPPING: &str = "[[table]]\nsource = \"{db}.dated\"\n\
    [[table.target]]\ntable = \"dated\"\npartition_key = [\"id\"]\n\
    [[table.target]]\ntable = \"by_place\"\npartition_key = [\"place\"]\nclustering_key = [\"id\"]\n";

/// A migration whose sessions may write zero dates.
async fn lax(test: &str, statements: &[&str]) -> anyhow::Result<Migration> {
    let mut all = vec!["SET SESSION sql_mode = ''"];
    all.extend(statements);
    Migration::new(Servers::from_env(), test, &all).await
}

/// Waits until so many dead letters are open.
async fn until_open(migration: &Migration, running: &mut Running, count: u64) -> anyhow::Result<Json> {
    migration
        .until(running, &format!("{count} dead letters to be open"), |s| s["dead_letters"] == count)
        .await
}

/// The open dead letters.
async fn listed(migration: &Migration) -> anyhow::Result<Vec<Json>> {
    let list = migration.json(&["dead-letters", "list", "--json"]).await?;
    Ok(list["dead_letters"].as_array().cloned().unwrap_or_default())
}

/// The rows of `dated`, and of `by_place` in the order of their ids: id, place, and whether there is a day.
async fn in_cassandra(migration: &Migration, table: &str) -> anyhow::Result<Vec<(i32, i32, bool)>> {
    let session = migration.cassandra().await?;
    let rows =
        session.query_unpaged(format!("SELECT id, place, toUnixTimestamp(day) FROM {table}"), ()).await?;
    let rows = rows.into_rows_result()?;
    let mut found = Vec::new();
    for row in rows.rows::<(i32, i32, Option<i64>)>()? {
        let (id, place, day) = row?;
        found.push((id, place, day.is_some()));
    }
    found.sort_unstable();
    Ok(found)
}

/// A zero date in a copied row, and one by direct SQL: everything else is applied. The one settles with the row's next
/// change, the other by `retry` once it is corrected. A row that has moved meanwhile leaves nothing at its former key.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_is_put_aside_and_settles_with_its_next_change() -> anyhow::Result<()> {
    let mut migration =
        lax("deadletter", &[DATED, "INSERT INTO dated VALUES (1, 1, '2024-01-01'), (2, 1, '0000-00-00')"])
            .await?;
    migration.configure("", DATED_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    until_open(&migration, &mut running, 1).await?;
    let mut session = migration.session().await?;
    session.query_drop("SET SESSION sql_mode = ''").await?;
    session.query_drop("INSERT INTO dated VALUES (3, 1, '2024-03-03'), (4, 1, '2024-04-04')").await?;
    session.query_drop("UPDATE dated SET place = 2, day = '2024-00-00' WHERE id = 3").await?;
    for id in 10..30 {
        session.query_drop(format!("INSERT INTO dated VALUES ({id}, 1, '2024-01-01')")).await?;
    }
    migration.drained(&mut running).await?;
    let status = until_open(&migration, &mut running, 2).await?;
    assert_eq!(status["tables"][0]["dead_letters"], 2);
    assert_eq!(status["caught_up"]["why_not"][0], "2 dead letters are open", "{status:#}");
    assert_eq!(in_cassandra(&migration, "dated").await?.len(), 23);

    let letters = listed(&migration).await?;
    let backfill = format!("{}.backfill/", migration.prefix);
    let copied = letters.iter().filter(|l| l["place"].as_str().is_some_and(|p| p.starts_with(&backfill)));
    assert_eq!((letters.len(), copied.count()), (2, 1), "{letters:#?}");
    assert!(letters.iter().all(|l| l["reason"] == "invalid-date"), "{letters:#?}");
    let changed = letters.iter().find(|l| !l["place"].as_str().unwrap().starts_with(&backfill)).unwrap();
    let place = changed["place"].as_str().unwrap();
    let shown = migration.json(&["dead-letters", "show", place, "--values", "--json"]).await?;
    assert_eq!((&shown["key"]["id"], &shown["after"]["day"]), (&3.into(), &"2024-00-00".into()), "{shown:#}");
    let hidden = migration.succeed(&["dead-letters", "show", place]).await?;
    assert!(!hidden.contains("2024-00-00"), "{hidden}");

    // A check leaves the two out, and says so.
    let verified = migration.tandem(&["verify", "--full", "--json", "--exit-code"]).await?;
    let report: Json = serde_json::from_str(&verified.stdout)?;
    assert!(!verified.success && report["put_aside"].as_u64() >= Some(2), "{report:#}");
    assert_eq!((&report["mismatches"], &report["undecided"]), (&0.into(), &0.into()), "{report:#}");
    // A retry changes nothing while the row is bad.
    let refused = migration.tandem(&["dead-letters", "retry", place]).await?;
    assert!(!refused.success && refused.stdout.contains("stays open"), "{refused:?}");

    session.query_drop("UPDATE dated SET day = '2024-02-02' WHERE id = 2").await?;
    session.query_drop("UPDATE dated SET day = NULL WHERE id = 3").await?;
    let settled = until_open(&migration, &mut running, 0).await?;
    assert_eq!(settled["tables"][0]["dead_letters"], 0);
    assert_eq!(listed(&migration).await?, Vec::<Json>::new());
    migration.drained(&mut running).await?;
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    let by_place = in_cassandra(&migration, "by_place").await?;
    let of = |id| by_place.iter().filter(|row| row.0 == id).collect::<Vec<_>>();
    assert_eq!((of(2), of(3)), (vec![&(2, 1, true)], vec![&(3, 2, false)]));
    running.terminate().await?;
    migration.drop().await
}

/// Somebody changes a column's type in Cassandra. Cassandra refuses what it cannot hold, change by change. Once the table
/// is right again, `retry` settles all of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_cassandra_refuses_is_put_aside_and_retried() -> anyhow::Result<()> {
    let mut migration = Migration::new(Servers::from_env(), "deadrefused", &[T]).await?;
    // Without reconcile, which would retry by itself.
    migration.configure("", T_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let mut capture = migration.start(&["capture"])?;
    migration.until_first_watermark(&mut capture).await?;
    let mut apply = migration.start_as("apply", &["apply"])?;
    apply.until_logged("runs role=apply", 0).await?;
    let session = migration.cassandra().await?;
    let recreate = async |ty: &str| {
        session.query_unpaged("DROP TABLE t", ()).await?;
        session.query_unpaged(format!("CREATE TABLE t (id int PRIMARY KEY, v {ty})"), ()).await?;
        anyhow::Ok(())
    };
    recreate("uuid").await?;
    migration.mysql.query_drop("INSERT INTO t VALUES (4, 4), (5, NULL), (6, 6)").await?;
    until_open(&migration, &mut apply, 2).await?;
    let session = migration.cassandra().await?;
    let ids = session.query_unpaged("SELECT id FROM t", ()).await?.into_rows_result()?;
    assert_eq!(ids.rows::<(i32,)>()?.collect::<Result<Vec<_>, _>>()?, [(5,)]);
    let letters = listed(&migration).await?;
    assert!(letters.iter().all(|l| l["reason"] == "refused-by-cassandra"), "{letters:#?}");
    recreate("int").await?;
    // By a mapping that apply does not use, a retry would leave out `v`.
    let other = migration.configure_as("other", "", |text| text + "exclude_from_target = [\"v\"]\n")?;
    let refused = finish(Migration::command_with(&other, &["dead-letters", "retry", "--all"])).await?;
    assert!(
        !refused.success && refused.stdout.contains("stays open: apply uses another mapping"),
        "{refused:?}"
    );
    assert_eq!(listed(&migration).await?.len(), 2);
    let retried = migration.json(&["dead-letters", "retry", "--all", "--json"]).await?;
    let settled = |letter: &Json| letter["settled"] == true;
    assert!(retried["dead_letters"].as_array().is_some_and(|all| all.len() == 2 && all.iter().all(settled)));
    until_open(&migration, &mut apply, 0).await?;
    let rows = session.query_unpaged("SELECT id, v FROM t", ()).await?.into_rows_result()?;
    let mut rows = rows.rows::<(i32, Option<i32>)>()?.collect::<Result<Vec<_>, _>>()?;
    rows.sort_unstable();
    assert_eq!(rows, [(4, Some(4)), (6, Some(6))]);
    apply.terminate().await?;
    capture.terminate().await?;
    migration.drop().await
}

/// Two bad rows among many, while clients change the others: one is copied, one is changed. All others are applied. One settles by
/// itself once it is corrected, one by `retry`.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_among_many_holds_nothing_up() -> anyhow::Result<()> {
    let rows = if full() { 1_000_000 } else { 20_000 };
    let mut migration = lax("deadmany", &[DATED]).await?;
    let filled = format!(
        "INSERT INTO dated WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
         SELECT i, i % 100, IF(i = 777, '0000-00-00', '2024-01-01') FROM n"
    );
    for statement in [&format!("SET SESSION cte_max_recursion_depth = {rows}"), &filled] {
        migration.mysql.query_drop(statement).await?;
    }
    migration.configure("", DATED_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    let (stop, mut client) = (CancellationToken::new(), migration.session().await?);
    let stopped = stop.clone();
    let load = tokio::spawn(async move {
        let mut n = 0;
        while !stopped.is_cancelled() {
            n += 1;
            // Every row but the bad ones.
            let id = 1 + n * 13 % 700;
            client.query_drop(format!("UPDATE dated SET place = {} WHERE id = {id}", n % 100)).await?;
        }
        anyhow::Ok(n)
    });
    migration.mysql.query_drop("UPDATE dated SET day = '2024-00-00' WHERE id = 888").await?;
    let began = Instant::now();
    let copied = |s: &Json| s["copied"]["holds"] == true && s["dead_letters"] == 2;
    let status = eventually("everything but two rows to be applied", 10 * MINUTE, async || {
        running.check()?;
        let status = migration.status().await?;
        Ok(Probe::some(copied(&status).then_some(status.clone()), format!("{status:#}; {}", running.tail())))
    })
    .await?;
    println!(
        "{rows} rows copied {:.0} s after the start; {}",
        began.elapsed().as_secs_f64(),
        status["caught_up"]
    );
    let places: Vec<String> =
        listed(&migration).await?.iter().filter_map(|l| l["place"].as_str().map(str::to_owned)).collect();
    migration.mysql.query_drop("UPDATE dated SET day = '2024-07-07' WHERE id = 777").await?;
    until_open(&migration, &mut running, 1).await?;
    migration.mysql.query_drop("UPDATE dated SET day = '2024-08-08' WHERE id = 888").await?;
    // Whichever of the two comes first.
    let retried = migration
        .tandem(&["dead-letters", "retry", "--table", &format!("{}.dated", migration.database)])
        .await?;
    assert!(retried.success, "{retried:?}; {places:?}");
    until_open(&migration, &mut running, 0).await?;
    stop.cancel();
    assert!(load.await?? > 100);
    migration.drained(&mut running).await?;
    let mut verify = tokio::process::Command::from(migration.command(&["verify", "--full", "--exit-code"]));
    let verified = tokio::time::timeout(10 * MINUTE, verify.kill_on_drop(true).status()).await??;
    assert!(verified.success(), "{verified}");
    running.terminate().await?;
    migration.drop().await
}

/// A row that is larger than Cassandra's largest mutation is put aside, a copied one and a changed one. The others of its batch
/// are applied, and it settles once it is smaller.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_larger_than_a_mutation_is_put_aside() -> anyhow::Result<()> {
    let table = "CREATE TABLE large (id INT PRIMARY KEY, body LONGBLOB)";
    let copied = format!("INSERT INTO large VALUES (1, REPEAT('x', {OVERSIZED})), (2, 'small')");
    let migration = Migration::new(Servers::from_env(), "deadlarge", &[table, &copied]).await?;
    let mapping =
        "[[table]]\nsource = \"{db}.large\"\n[[table.target]]\ntable = \"large\"\npartition_key = [\"id\"]\n";
    migration.configure("", mapping)?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    until_open(&migration, &mut running, 1).await?;
    let mut session = migration.session().await?;
    session.query_drop("INSERT INTO large VALUES (3, 'small')").await?;
    session.query_drop(format!("UPDATE large SET body = REPEAT('y', {OVERSIZED}) WHERE id = 2")).await?;
    session.query_drop("INSERT INTO large VALUES (4, 'small')").await?;
    until_open(&migration, &mut running, 2).await?;
    let letters = listed(&migration).await?;
    assert!(letters.iter().all(|letter| letter["reason"] == "refused-by-cassandra"), "{letters:#?}");
    session.query_drop("UPDATE large SET body = 'small'").await?;
    until_open(&migration, &mut running, 0).await?;
    let mut migration = migration;
    migration.drained(&mut running).await?;
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    running.terminate().await?;
    migration.drop().await
}

/// `on_bad_row = "halt"` halts the table at the record. A discarded dead letter is remembered with its reason, and voids the
/// full verification from before.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_can_halt_at_a_bad_row_and_a_dead_letter_be_given_up() -> anyhow::Result<()> {
    let mut migration = lax("deadhalt", &[DATED]).await?;
    let mapping =
        |extra: &str| DATED_MAPPING.replacen("[[table.target]]", &format!("{extra}\n[[table.target]]"), 1);
    migration.configure("", &mapping("on_bad_row = \"halt\""))?;
    migration.succeed(&["schema", "create"]).await?;
    let mut capture = migration.start(&["capture"])?;
    migration.until_first_watermark(&mut capture).await?;
    migration.mysql.query_drop("INSERT INTO dated VALUES (1, 1, 0)").await?;
    let mut apply = migration.start_as("halted", &["apply"])?;
    let halted = |s: &Json| s["tables"][0]["not_live"]["reason"] == "invalid-date";
    migration.until(&mut apply, "the table to be halted", halted).await?;
    assert!(listed(&migration).await?.is_empty());
    apply.terminate().await?;

    migration.configure("", DATED_MAPPING)?;
    let mut apply = migration.start_as("apply", &["apply"])?;
    migration.succeed(&["table", "resume", &format!("{}.dated", migration.database)]).await?;
    until_open(&migration, &mut apply, 1).await?;
    let place = listed(&migration).await?[0]["place"].as_str().unwrap().to_owned();
    let unknown = migration.tandem(&["dead-letters", "discard", "t/0/1", "--reason", "none"]).await?;
    assert!(!unknown.success && unknown.stderr.contains("not an open dead letter"), "{unknown:?}");
    migration.succeed(&["dead-letters", "discard", &place, "--reason", "a test row"]).await?;
    until_open(&migration, &mut apply, 0).await?;
    let given_up = migration.json(&["dead-letters", "list", "--discarded", "--json"]).await?;
    let given_up = &given_up["dead_letters"][0];
    assert_eq!((&given_up["discarded"]["reason"], &given_up["place"]), (&"a test row".into(), &place.into()));
    apply.terminate().await?;
    capture.terminate().await?;
    migration.drop().await
}

/// Apply is killed between a dead letter and its offset. The change is met again, and is still one dead letter.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_apply_puts_a_change_aside_once() -> anyhow::Result<()> {
    let mut migration = lax("deadkill", &[DATED]).await?;
    migration.configure("", DATED_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let mut capture = migration.start(&["capture"])?;
    migration.until_first_watermark(&mut capture).await?;
    let mut apply = migration.start_as("first", &["apply"])?;
    migration.mysql.query_drop("INSERT INTO dated VALUES (1, 1, 0)").await?;
    apply.until_logged("a change is a dead letter", 0).await?;
    apply.kill()?;
    let mut apply = migration.start_as("second", &["apply"])?;
    migration.mysql.query_drop("INSERT INTO dated VALUES (2, 1, '2024-01-01')").await?;
    eventually("the second row to be in Cassandra", MINUTE, async || {
        apply.check()?;
        let rows = in_cassandra(&migration, "dated").await?;
        Ok(Probe::when(rows == [(2, 1, true)], format!("{rows:?}")))
    })
    .await?;
    assert_eq!(listed(&migration).await?.len(), 1);
    apply.terminate().await?;
    capture.terminate().await?;
    migration.drop().await
}
