//! Debezium and Tandem capture the same binlog: only intended differences occur.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value as Json;

use crate::support::{COMPARE_BIN, required};

/// Runs `cargo xtask compare debezium` on servers of its own. Returns whether it succeeded, its output and
/// its report.
async fn compare(layout: &str, sql: Option<&str>) -> anyhow::Result<(bool, String, Json)> {
    let folder = tempfile::tempdir()?;
    let (json, file) = (folder.path().join("report.json"), folder.path().join("statements.sql"));
    let mut command = Command::new(required(COMPARE_BIN));
    command.args(["debezium", "--layout", layout, "--json"]).arg(&json).stdin(Stdio::null());
    if let Some(sql) = sql {
        std::fs::write(&file, sql)?;
        command.arg("--sql").arg(&file);
    }
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let done = tokio::time::timeout(Duration::from_mins(5), command.output()).await??;
    let printed =
        format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let report = std::fs::read_to_string(&json).map_err(|_| anyhow::anyhow!("no report: {printed}"))?;
    Ok((done.status.success(), printed, serde_json::from_str(&report)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn events_equal_debeziums_except_for_the_rules() -> anyhow::Result<()> {
    let applied = equal_but_for_rules("own").await?;
    assert!(!applied.contains_key("key-table-identifier"), "{applied:?}");
    Ok(())
}

/// In a shared topic, as with Debezium's `ByLogicalTableRouter`.
#[tokio::test(flavor = "multi_thread")]
async fn events_in_a_shared_topic_equal_debeziums() -> anyhow::Result<()> {
    let applied = equal_but_for_rules("shared").await?;
    assert!(applied.get("key-table-identifier") > Some(&0), "{applied:?}");
    Ok(())
}

/// Compares, and returns how often each rule was applied.
async fn equal_but_for_rules(layout: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let (success, printed, report) = compare(layout, None).await?;
    assert!(success && report["holds"] == true, "{printed}");
    // It really compared: events of every table, and every rule was applied.
    assert!(report["events"].as_u64() > Some(1000), "{printed}");
    for table in report["tables"].as_array().expect("tables") {
        assert_ne!(table["debezium"], 0, "{table}");
    }
    let applied: BTreeMap<String, u64> = report["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .filter_map(|rule| Some((rule["rule"].as_str()?.to_owned(), rule["applied"].as_u64()?)))
        .collect();
    for rule in ["bit-as-number", "no-date-as-text", "geometry-as-bytes", "table-without-key", "source-pos"] {
        assert!(applied.get(rule) > Some(&0), "{rule}: {applied:?}");
    }
    Ok(applied)
}
