//! Names of tables in another case, and with dots: what is one table for the server is one table for Tandem.

use std::process::Command;

use mysql_async::prelude::Queryable;
use tandem_model::NameCase;

use crate::support::{Migration, Servers, T, T_MAPPING, TANDEM_BIN, finish, own_server, required};

/// The ids in a target table.
async fn ids(migration: &Migration, target: &str) -> anyhow::Result<Vec<i32>> {
    let session = migration.cassandra().await?;
    let found = session.query_unpaged(format!("SELECT id FROM {target}"), ()).await?.into_rows_result()?;
    let mut ids = found.rows::<(i32,)>()?.map(|row| Ok(row?.0)).collect::<anyhow::Result<Vec<_>>>()?;
    ids.sort_unstable();
    Ok(ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_case_has_one_name_for_a_table() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let mysql = own_server(&["--lower-case-table-names=1"])?;
    servers.mysql_url = mysql.url();
    let mut migration = Migration::new(servers, "case", &[T]).await?;

    // The server answers under any spelling, but the binlog has one only.
    let typed = T_MAPPING.replace(".t\"", ".T\"");
    migration.configure("", &typed)?;
    let right = format!("write source = \"{}\"", migration.table("t"));
    for command in [&["check"][..], &["run"], &["schema", "create"]] {
        let refused = migration.tandem(command).await?;
        assert!(!refused.success && refused.stderr.contains(&right), "{command:?}: {}", refused.stderr);
    }
    // `init` writes the server's spelling.
    let database = migration.database.to_uppercase();
    let mut init = Command::new(required(TANDEM_BIN));
    init.args(["init", "--database", &database, "--mysql-url", &migration.servers.mysql_url]);
    init.args(["--kafka-brokers", &migration.servers.brokers]);
    init.args(["--cassandra-nodes", &migration.servers.nodes.join(",")]);
    let done = finish({
        init.arg("--out").arg(migration.path("init.toml"));
        init
    })
    .await?;
    let written = std::fs::read_to_string(migration.path("init.toml"));
    let source = format!("source = \"{}\"", migration.table("t"));
    assert!(written.is_ok_and(|text| text.contains(&source)), "{}", done.stderr);

    migration.configure("", T_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.mysql.query_drop(format!("INSERT INTO {database}.T VALUES (1, 1), (2, 2)")).await?;
    migration.drained(&mut running).await?;
    assert_eq!(ids(&migration, "t").await?, [1, 2]);
    running.terminate().await?;

    // A TRUNCATE has no row changes, so it must be noticed by its name.
    migration.mysql.query_drop(format!("TRUNCATE {database}.T")).await?;
    let mut capture = migration.start_as("capture", &["capture"])?;
    let halted = |s: &serde_json::Value| s["tables"][0]["not_live"]["reason"] == "truncate";
    migration.until(&mut capture, "the TRUNCATE to halt the table", halted).await?;
    capture.terminate().await?;
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_case_has_two_tables() -> anyhow::Result<()> {
    let statements = [T, "CREATE TABLE T (id INT PRIMARY KEY, v INT)"];
    let mut migration = Migration::new(Servers::from_env(), "twocase", &statements).await?;
    let upper = T_MAPPING.replace(".t\"", ".T\"").replace("\"t\"", "\"upper\"");
    migration.configure("", &format!("{T_MAPPING}{upper}"))?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    migration.mysql.query_drop("INSERT INTO t VALUES (1, 1)").await?;
    migration.mysql.query_drop("INSERT INTO T VALUES (2, 2)").await?;
    migration.drained(&mut running).await?;
    assert_eq!((ids(&migration, "t").await?, ids(&migration, "upper").await?), (vec![1], vec![2]));
    running.terminate().await?;

    // A table that is there in another case only is named.
    migration.configure("", &T_MAPPING.replace("{db}", &migration.database.to_uppercase()))?;
    let refused = migration.tandem(&["check"]).await?;
    let right = format!("write source = \"{}", migration.database);
    assert!(!refused.success && refused.stderr.contains(&right), "{}", refused.stderr);
    migration.drop().await
}

/// `x`.`a.b` and `x.a`.`b` have the same text without quotes.
#[tokio::test(flavor = "multi_thread")]
async fn names_with_dots_are_not_confused() -> anyhow::Result<()> {
    let mut migration = Migration::new(
        Servers::from_env(),
        "dots",
        &["CREATE TABLE `a.b` (id INT PRIMARY KEY, v INT)", "INSERT INTO `a.b` VALUES (1, 1)"],
    )
    .await?;
    let other = format!("`{}.a`.b", migration.database);
    migration.mysql.query_drop(format!("CREATE DATABASE `{}.a`", migration.database)).await?;
    migration.mysql.query_drop(format!("CREATE TABLE {other} (id INT PRIMARY KEY, v INT)")).await?;
    migration.mysql.query_drop(format!("INSERT INTO {other} VALUES (2, 2), (3, 3)")).await?;
    let first = T_MAPPING.replace("{db}.t", "{db}.`a.b`").replace("\"t\"", "\"first\"");
    let second = T_MAPPING.replace("{db}.t", "`{db}.a`.b").replace("\"t\"", "\"second\"");
    migration.configure("", &format!("{first}{second}"))?;
    migration.succeed(&["schema", "create"]).await?;
    let mut running = migration.start(&["run"])?;
    let status = migration.drained(&mut running).await?;
    let rows = |i: usize| status["tables"][i]["backfill"]["rows"].as_i64();
    assert_eq!((rows(0), rows(1)), (Some(1), Some(2)), "each copy has its own progress: {status:#}");
    migration.mysql.query_drop(format!("DELETE FROM {other} WHERE id = 2")).await?;
    migration.drained(&mut running).await?;
    assert_eq!((ids(&migration, "first").await?, ids(&migration, "second").await?), (vec![1], vec![3]));
    migration.succeed(&["verify", "--full", "--exit-code"]).await?;

    // The TRUNCATE of one is not that of the other.
    migration
        .mysql
        .query_drop(format!("CREATE TABLE `{}`.a (id INT PRIMARY KEY)", migration.database))
        .await?;
    migration.mysql.query_drop("TRUNCATE a").await?;
    migration.until_captured(&mut running).await?;
    running.terminate().await?;
    migration.mysql.query_drop(format!("TRUNCATE {other}")).await?;
    let mut capture = migration.start_as("capture", &["capture"])?;
    let halted = |s: &serde_json::Value| {
        s["tables"][1]["not_live"]["reason"] == "truncate" && s["tables"][0]["state"] == "live"
    };
    migration.until(&mut capture, "the TRUNCATE to halt its table", halted).await?;
    capture.terminate().await?;
    migration.mysql.query_drop(format!("DROP DATABASE `{}.a`", migration.database)).await?;
    migration.drop().await
}

/// A name that the server folds and Tandem does not would hide a TRUNCATE.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_folded_as_the_server_folds_them() -> anyhow::Result<()> {
    let mut migration = Migration::new(Servers::from_env(), "fold", &[]).await?;
    migration.mysql.query_drop("SET cte_max_recursion_depth = 70000").await?;
    // Names have no characters beyond U+FFFF. D800 to DFFF are none.
    let folded: Vec<(u32, String)> = migration
        .mysql
        .query(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 65535) \
             SELECT i, LOWER(CONVERT(CHAR(i USING ucs2) USING utf8mb3) COLLATE utf8mb3_tolower_ci) \
             FROM n WHERE i NOT BETWEEN 55296 AND 57343",
        )
        .await?;
    assert_eq!(folded.len(), 65535 - 2048);
    let mut differ = Vec::new();
    for (code, server) in folded {
        let typed = char::from_u32(code).expect("no surrogate").to_string();
        if server != typed && server != NameCase::Insensitive.fold(typed) {
            differ.push(format!("U+{code:04X}: {server}"));
        }
    }
    assert!(differ.is_empty(), "{differ:?}");
    migration.drop().await
}
