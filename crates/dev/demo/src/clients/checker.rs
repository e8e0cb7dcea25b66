//! The verdict of the checker, a separate program, on the clients' journals.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value as Json, json};

use tandem_compare::stores::config::Config;

use super::entity::Entity;

/// What the checker found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict(pub(crate) Json);

impl Verdict {
    /// Whether the checker found no lost write, no stale read and no impossible value.
    pub(crate) fn clean(&self) -> bool {
        ["lost_writes", "stale_reads", "impossible"].iter().all(|what| self.0[*what] == 0)
    }
}

/// Runs the checker on the journals.
pub(crate) async fn check(
    checker: &Path,
    folder: &Path,
    database: &str,
    config: &Config,
    entity: &Entity,
    journals: &[PathBuf],
) -> Result<Verdict> {
    let place = |of: &str, table: &str| json!({ "table": [of, table], "key": ["id"], "value": entity.value });
    let stores = json!({
        "mysql_url": config.mysql.url,
        "cassandra_nodes": config.cassandra.nodes,
        "entities": [{
            "name": entity.name,
            "mysql": place(database, entity.table),
            "cassandra": [place(&config.cassandra.keyspace, entity.target)],
        }],
    });
    let (described, verdict) = (folder.join("stores.json"), folder.join("verdict.json"));
    std::fs::write(&described, stores.to_string()).context("describe the stores to the checker")?;
    let mut command = tokio::process::Command::new(checker);
    command.arg("--stores").arg(described).arg("--json").arg(&verdict).args(journals).kill_on_drop(true);
    let done = tokio::time::timeout(Duration::from_mins(2), command.output());
    let done =
        done.await.context("the checker did not end within two minutes")?.context("run the checker")?;
    match done.status.code() {
        Some(0 | 1) => {
            let text = std::fs::read_to_string(&verdict).context("read the checker's verdict")?;
            Ok(Verdict(serde_json::from_str(&text).context("understand the checker's verdict")?))
        }
        _ => bail!("the checker failed: {}", String::from_utf8_lossy(&done.stderr).trim()),
    }
}
