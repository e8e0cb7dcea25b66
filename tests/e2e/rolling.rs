//! Processes are restarted one after the other with another mapping.

use std::path::PathBuf;

use mysql_async::prelude::Queryable;
use serde_json::Value as Json;

use crate::support::{
    MINUTE, Migration, Probe, Running, Servers, T_MAPPING, T_WITH_TEXT, captured, eventually, finish,
};

/// How a waiting apply says so.
const WAITS: &str = "apply waits";

const ROWS: &str = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) \
                    SELECT i, 0, 'first' FROM n";

/// A migration whose target lacks the column `s`, all of it applied by two processes. Returns it with its configuration,
/// the processes of capture and apply, and `tandem.toml` with `s`.
struct Begun {
    migration: Migration,
    old: PathBuf,
    capture: Running,
    applies: Vec<Running>,
}

impl Begun {
    async fn new(test: &str) -> anyhow::Result<Self> {
        let mut migration = Migration::new(Servers::from_env(), test, &[T_WITH_TEXT, ROWS]).await?;
        migration.configure("", &format!("{T_MAPPING}exclude_from_target = [\"s\"]\n"))?;
        migration.succeed(&["schema", "create"]).await?;
        let old = migration.configure_as("old", "", |text| text)?;
        let mut capture = migration.start_as("capture", &["capture"])?;
        migration.until_first_watermark(&mut capture).await?;
        let mut applies = Vec::new();
        for name in ["old-a", "old-b"] {
            applies.push(migration.start_with(&old, name, &["apply"])?);
        }
        for apply in &mut applies {
            apply.until_logged("runs role=apply", 0).await?;
        }
        let backfill = migration.start_as("backfill", &["backfill"])?;
        migration.drained(&mut capture).await?;
        drop(backfill);
        migration.cassandra().await?.query_unpaged("ALTER TABLE t ADD s text", ()).await?;
        migration.configure("", T_MAPPING)?;
        Ok(Self { migration, old, capture, applies })
    }

    /// Waits until every record is applied, by whichever mapping.
    async fn applied(&mut self) -> anyhow::Result<Json> {
        let executed = self.migration.executed().await?;
        self.migration
            .until(&mut self.capture, "every change to be applied", |status| {
                captured(status, &executed) && status["lag"]["records"] == 0
            })
            .await
    }

    async fn update(&mut self, value: &str) -> anyhow::Result<()> {
        // A transaction for each row: they spread over the partitions, and so over the processes.
        for id in 1..=60 {
            let update = format!("UPDATE t SET s = '{value}', v = v + 1 WHERE id = {id}");
            self.migration.mysql.query_drop(update).await?;
        }
        Ok(())
    }

    async fn end(self, applies: Vec<Running>) -> anyhow::Result<()> {
        for running in applies.into_iter().chain([self.capture]) {
            running.terminate().await?;
        }
        self.migration.drop().await
    }
}

/// Only what both stores hold is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost() -> anyhow::Result<()> {
    let mut begun = Begun::new("rolling").await?;
    let (b, a) = (begun.applies.pop().expect("two"), begun.applies.pop().expect("two"));
    a.terminate().await?;
    let mut new_a = begun.migration.start_as("new-a", &["apply"])?;
    let backfill = begun.migration.start_as("backfill", &["backfill"])?;
    // The copy with the new column is made, or it waits.
    eventually("the new mapping to be met", MINUTE, async || {
        new_a.check()?;
        let status = begun.migration.status().await?;
        let copied = status["tables"][0]["backfill"]["done"] == true && status["lag"]["records"] == 0;
        Ok(Probe::when(copied || new_a.logged(WAITS) > 0, format!("{status:#}; {}", new_a.tail())))
    })
    .await?;
    begun.update("while both ran").await?;
    begun.applied().await?;
    b.terminate().await?;
    let new_b = begun.migration.start_as("new-b", &["apply"])?;
    begun.update("after both were new").await?;
    begun.migration.mysql.query_drop("UPDATE t SET s = NULL WHERE id % 7 = 0").await?;
    begun.migration.drained(&mut new_a).await?;
    begun.migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    drop(backfill);
    begun.end(vec![new_a, new_b]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_what_waits_for_what() -> anyhow::Result<()> {
    let mut begun = Begun::new("rolled").await?;
    let before = begun.migration.status().await?;
    assert_eq!(before["mapping"]["generation"], 1, "{before:#}");
    assert_eq!(before["mapping"]["in_use"], false, "no process has the new one yet: {before:#}");
    let (mut b, a) = (begun.applies.pop().expect("two"), begun.applies.pop().expect("two"));
    a.terminate().await?;
    let mut new_a = begun.migration.start_as("new-a", &["apply"])?;
    new_a.until_logged(WAITS, 0).await?;
    let mut backfill = begun.migration.start_as("new-backfill", &["backfill"])?;
    backfill.until_logged("the backfill waits", 0).await?;
    let refused = begun.migration.tandem(&["verify", "--full"]).await?;
    assert!(!refused.success && refused.stderr.contains("does not use the mapping"), "{}", refused.stderr);
    // The old process applies everything meanwhile.
    begun.update("while the new one waits").await?;
    let status = begun.applied().await?;
    assert_eq!(status["mapping"]["applies"].as_array().map(Vec::len), Some(1), "{status:#}");
    let why = status["copied"]["why_not"].to_string();
    assert!(why.contains("when the apply processes with the former one have ended: 127.0.0.1"), "{why}");

    let mut old_checks = begun.migration.start_with(&begun.old, "old-checks", &["reconcile"])?;
    old_checks.until_logged("runs role=reconcile", 0).await?;
    b.kill()?;
    let mut new_b = begun.migration.start_as("new-b", &["apply"])?;
    let status = begun.migration.drained(&mut new_b).await?;
    assert_eq!(
        (&status["mapping"]["generation"], &status["mapping"]["in_use"]),
        (&2.into(), &true.into()),
        "{status:#}"
    );

    let log = old_checks.until_ended().await?;
    assert!(log.contains("apply uses another mapping now"), "{log}");

    // A process that comes back with the old file waits, and commits nothing.
    let mut stale = begun.migration.start_with(&begun.old, "stale", &["apply"])?;
    stale.until_logged(WAITS, 0).await?;
    begun.update("while a stale one waits").await?;
    begun.migration.drained(&mut new_a).await?;
    begun.migration.succeed(&["verify", "--full", "--exit-code"]).await?;

    // Back to the old mapping: once no process has the new one.
    new_a.terminate().await?;
    new_b.terminate().await?;
    eventually("the old mapping to be in use", MINUTE, async || {
        stale.check()?;
        let status = finish(Migration::command_with(&begun.old, &["status", "--json"])).await?;
        let status: Json = serde_json::from_str(&status.stdout)?;
        let used = status["mapping"]["generation"] == 3 && status["mapping"]["in_use"] == true;
        Ok(Probe::when(used, format!("{status:#}; {}", stale.tail())))
    })
    .await?;
    drop(backfill);

    // Forward again: the old mapping did not write `s`, so its NULLs are not there yet.
    begun.migration.mysql.query_drop("UPDATE t SET s = NULL WHERE id % 2 = 0").await?;
    begun.applied().await?;
    stale.terminate().await?;
    let mut last = begun.migration.start_as("last", &["apply"])?;
    let mut backfill = begun.migration.start_as("last-backfill", &["backfill"])?;
    begun
        .migration
        .until(&mut last, "the new mapping to be in use again", |status| {
            status["mapping"]["generation"] == 4 && status["mapping"]["in_use"] == true
        })
        .await?;
    backfill.until_ended().await?;
    begun.migration.drained(&mut last).await?;
    begun.migration.succeed(&["verify", "--full", "--exit-code"]).await?;
    begun.end(vec![last]).await
}
