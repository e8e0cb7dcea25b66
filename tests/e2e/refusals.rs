//! A wrong setting is one clear error with its remedy, and ends the process with a non-zero status.

use crate::support::{Finished, Migration, Servers, T, T_MAPPING, own_server};

/// Requires that the roles and the check refuse with the same words.
pub(crate) async fn refused(migration: &Migration, words: &[&str]) -> anyhow::Result<()> {
    for command in ["run", "check"] {
        let Finished { success, stderr, .. } = migration.tandem(&[command]).await?;
        assert!(!success, "{command} did not refuse: {stderr}");
        let errors: Vec<&str> = stderr.lines().filter(|l| l.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "{command}: not one error: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{command}: {word:?} is not in: {stderr}");
        }
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    Ok(())
}

async fn prepared(test: &str, statements: &[&str]) -> anyhow::Result<Migration> {
    let migration = Migration::new(Servers::from_env(), test, statements).await?;
    migration.configure("", T_MAPPING)?;
    Ok(migration)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password() -> anyhow::Result<()> {
    let mut migration = prepared("password", &[T]).await?;
    migration.succeed(&["schema", "create"]).await?;
    let right = migration.servers.mysql_url.clone();
    let (user, host) = right.split_once('@').expect("the URL names a user");
    assert!(user.ends_with("root"), "the servers of the tests have a root without a password");
    migration.servers.mysql_url = format!("{user}:not-the-password@{host}");
    migration.configure("", T_MAPPING)?;
    refused(&migration, &["mysql:", "root", "password"]).await?;
    let said = migration.tandem(&["run"]).await?.stderr;
    assert!(!said.contains("not-the-password"), "{said}");
    migration.servers.mysql_url = right;
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_kafka() -> anyhow::Result<()> {
    let mut migration = prepared("nokafka", &[T]).await?;
    migration.succeed(&["schema", "create"]).await?;
    // The discard port, without a listener.
    migration.servers.brokers = "127.0.0.1:9".into();
    migration.configure("", T_MAPPING)?;
    refused(&migration, &["kafka:", "127.0.0.1:9", "is Kafka up", "kafka.brokers"]).await?;
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_primary_key() -> anyhow::Result<()> {
    let table = "CREATE TABLE t (id INT NOT NULL, v INT)";
    let migration = prepared("nokey", &[table]).await?;
    // Its Cassandra table cannot be created either, so only the keyspace exists.
    let applied = migration.tandem(&["schema", "create"]).await?;
    assert!(!applied.success && applied.stderr.contains("ADD PRIMARY KEY"), "{}", applied.stderr);
    migration.create_keyspace().await?;
    refused(&migration, &["no primary key", "ALTER TABLE", "ADD PRIMARY KEY"]).await?;
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key() -> anyhow::Result<()> {
    let migration = prepared("unknown", &[T]).await?;
    migration.configure("[capture]\nmax_recrods = 7\n", T_MAPPING)?;
    refused(&migration, &["tandem.toml", "max_recrods", "max_records"]).await?;
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_without_a_result_for_every_row() -> anyhow::Result<()> {
    let migration = prepared("filter", &[T]).await?;
    migration.succeed(&["schema", "create"]).await?;
    for (filter, words) in [
        ("status != 'draft'", vec!["at 1:1", "no column `status`", "`id`, `v`"]),
        ("v == 'draft'", vec!["at 1:3", "column `v` (int, int in CEL)", "string"]),
        ("v > 3", vec!["at 1:1", "NULL", "guard"]),
        ("id > 3 &&", vec!["at 1:10", "not a CEL expression"]),
        ("id > now()", vec!["`now`"]),
        ("id % 2", vec!["must be given bool"]),
    ] {
        migration.configure("", &format!("{T_MAPPING}where = {filter:?}\n"))?;
        let words: Vec<&str> = words.into_iter().chain(["target `t`", "`where = \""]).collect();
        refused(&migration, &words).await?;
    }
    migration.configure("", &format!("{T_MAPPING}derive.w = \"v\"\n"))?;
    refused(&migration, &["unknown field `derive`"]).await?;
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn minimal_row_metadata() -> anyhow::Result<()> {
    let mut servers = Servers::from_env();
    let mysql = own_server(&["--binlog-row-metadata=MINIMAL"])?;
    servers.mysql_url = mysql.url();
    let migration = Migration::new(servers, "minimal", &[T]).await?;
    migration.configure("", T_MAPPING)?;
    migration.succeed(&["schema", "create"]).await?;
    refused(
        &migration,
        &["binlog_row_metadata", "`MINIMAL`", "must be `FULL`", "SET PERSIST binlog_row_metadata = FULL"],
    )
    .await?;
    migration.drop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_target_tables() -> anyhow::Result<()> {
    let migration = prepared("noschema", &[T]).await?;
    let said = migration.tandem(&["run"]).await?;
    assert!(!said.success && said.stderr.contains("tandem schema create"), "{}", said.stderr);
    migration.drop().await
}
