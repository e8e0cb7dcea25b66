//! Tokens of writes.

use std::collections::BTreeSet;

use serde_json::json;
use tandem_model::{Gtid, GtidSet, Phase, PhaseRecord};

use super::{Stage, counts, everything};
use crate::support::{MINUTE, Migration, ORDERS, ORDERS_MAPPING, Probe, Servers, eventually, http};

/// Each token is the GTID of its own transaction and of no other, even with many writes at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_its_own_transaction() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwgtid", &["gateway"]).await?;
    let port = stage.port;
    let writes = (1..=40).map(|id| async move {
        let body = json!({ "customer": id, "note": "x" }).to_string();
        http(port, "PUT", &format!("/v1/order/{id}"), &[], &body).await
    });
    let answers = futures::future::try_join_all(writes).await?;
    let executed = stage.migration.executed().await?;
    let mut tokens = BTreeSet::new();
    for answer in &answers {
        assert_eq!(answer.status, 201, "{answer:?}");
        let token = answer.header("tandem-token");
        assert!(token.parse::<Gtid>().is_ok(), "{token} is not one transaction");
        assert!(token.parse::<GtidSet>().unwrap().is_subset(&executed));
        tokens.insert(token.to_owned());
    }
    assert_eq!(tokens.len(), answers.len());
    stage.end().await
}

/// A client reads its own write a moment later, and Cassandra serves it. Without waiting, apply would be behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_until_its_token_is_applied() -> anyhow::Result<()> {
    let migration = Migration::new(Servers::from_env(), "gwwait", &[ORDERS]).await?;
    let wait = "token_wait_ms = 30000\ncassandra_read_ms = 30000\n";
    let mut stage = Stage::of(migration, wait, ORDERS_MAPPING, &["capture", "apply", "gateway"]).await?;
    stage.order(PhaseRecord { validate: 0.0, ..everything(Phase::ReadSwitch) }).await?;
    for n in 1..=30 {
        let body = json!({ "customer": n, "note": format!("n{n}") }).to_string();
        let written = stage.done("PUT", "/v1/order/1", &body).await?;
        let token = written.header("tandem-token");
        let headers = [("Tandem-Token", token), ("Tandem-Deadline-Ms", "60000")];
        let read = stage.get_with("/v1/order/1", &headers).await?;
        assert_eq!((read.status, read.served_by(), read.fallback()), (200, "cassandra", ""), "{read:?}");
        assert_eq!(read.json()["note"], format!("n{n}"));
        let list = stage.get_with(&format!("/v1/order?target=by_customer&customer={n}"), &headers).await?;
        assert_eq!((list.status, list.served_by()), (200, "cassandra"), "{list:?}");
    }
    let page = stage.metrics().await?;
    let waits = page.lines().find(|line| {
        line.starts_with("tandem_gateway_token_wait_seconds_count") && line.contains("\"applied\"")
    });
    assert_eq!(waits.and_then(|line| line.split(' ').nth(1)), Some("60"), "{page}");
    let mut routed: Vec<&str> =
        page.lines().filter(|line| line.starts_with("tandem_gateway_routed_reads_total{")).collect();
    routed.sort_unstable();
    for (operation, line) in ["get", "list"].iter().zip(&routed) {
        assert!(
            line.contains(operation) && line.contains("token=\"yes\"") && line.ends_with(" 30"),
            "{line}"
        );
        assert!(line.contains("outcome=\"cassandra\""), "{line}");
    }
    assert_eq!(routed.len(), 2, "{routed:?}");
    stage.end().await
}

/// With apply stopped, a read with a token is MySQL's within its deadline. What MySQL served is compared with Cassandra once
/// apply goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_token_is_not_applied_is_compared_later() -> anyhow::Result<()> {
    let mut stage = Stage::new(Servers::from_env(), "gwlater", &["capture", "apply", "gateway"]).await?;
    let all = everything(Phase::ReadSwitch);
    stage.order(PhaseRecord { validate: 0.0, shadow: 1.0, ..all }).await?;
    let written =
        stage.done("PUT", "/v1/order/1", &json!({ "customer": 1, "note": "a" }).to_string()).await?;
    let token = written.header("tandem-token").to_owned();
    stage.until_applied("/v1/order/1", &token).await?;
    let mut n = 0;
    eventually("a read of before its token was applied to be compared", MINUTE, async || {
        let (before, total) = shadowed(&stage).await?;
        n += 1;
        stage.running[1].signal("STOP")?;
        let body = json!({ "note": format!("b{n}") }).to_string();
        let written = stage.done("PATCH", "/v1/order/1", &body).await?;
        let headers = [("Tandem-Token", written.header("tandem-token")), ("Tandem-Deadline-Ms", "20000")];
        let read = stage.get_with("/v1/order/1", &headers).await?;
        assert_eq!((read.status, read.fallback()), (200, "token-not-applied"), "{read:?}");
        assert_eq!(read.json()["note"], format!("b{n}"));
        stage.running[1].signal("CONT")?;
        // Apply may be too late for the comparison, which is counted too. Then the next round tries again.
        eventually("the comparison to end", MINUTE, async || {
            let (_, now) = shadowed(&stage).await?;
            Ok(Probe::when(now > total, format!("{now} comparisons")))
        })
        .await?;
        let (equal, _) = shadowed(&stage).await?;
        Ok(Probe::when(equal > before, format!("{equal} of {n} are equal")))
    })
    .await?;
    stage.end().await
}

/// The reads of MySQL that were compared: those that were equal, and all.
async fn shadowed(stage: &Stage) -> anyhow::Result<(u64, u64)> {
    let counted = counts(&stage.metrics().await?, "shadowed")?;
    Ok((counted.get("equal").copied().unwrap_or(0), counted.values().sum()))
}
