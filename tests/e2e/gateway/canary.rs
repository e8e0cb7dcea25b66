//! Which reads Cassandra serves, and what happens when its rows are wrong.

use tandem_model::{Cohort, CohortAttribute, Phase, PhaseRecord, bucket};

use super::{Stage, everything};
use crate::support::{Answer, Migration, ORDERS, ORDERS_MAPPING, Servers};

/// Rows 1 to `rows` of customers 1 to 5, applied.
async fn filled(servers: Servers, test: &str, rows: i64) -> anyhow::Result<Stage> {
    let migration = Migration::new(servers, test, &[ORDERS]).await?;
    // Long enough for a busy machine. None of these tests is about timeouts.
    let timeout = "cassandra_read_ms = 4000\n";
    let mut stage = Stage::of(migration, timeout, ORDERS_MAPPING, &["capture", "apply", "gateway"]).await?;
    let mut token = String::new();
    for id in 1..=rows {
        let body = format!(r#"{{"customer": {}, "note": "n{id}"}}"#, id % 5);
        let written = stage.done("PUT", &format!("/v1/order/{id}"), &body).await?;
        written.header("tandem-token").clone_into(&mut token);
    }
    stage.phase(Phase::ReadSwitch).await?;
    for path in ["/v1/order/1", "/v1/order?target=by_customer&customer=1"] {
        stage.until_applied(path, &token).await?;
    }
    Ok(stage)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cohort_is_sticky_and_exact() -> anyhow::Result<()> {
    const ROWS: i64 = 40;
    let servers = Servers::from_env();
    let mut stage = filled(servers, "gwcohort", ROWS).await?;
    let mut admitted: Vec<Vec<i64>> = Vec::new();
    for percent in [0.0, 20.0, 60.0, 100.0] {
        let cohort = Cohort { by: CohortAttribute::Column("id".into()), percent, values: vec![] };
        stage.order(PhaseRecord { cohort, ..everything(Phase::Canary) }).await?;
        let mut by_cassandra = Vec::new();
        for id in 1..=ROWS {
            let first = stage.get(&format!("/v1/order/{id}")).await?;
            // The same customer, requested again with another spelling.
            let again = stage.get(&format!("/v1/order/0{id}")).await?;
            assert_eq!(first.served_by(), again.served_by());
            assert_eq!((first.status, first.fallback()), (200, ""), "{first:?}");
            let expected = if bucket(&id.to_string()) < percent { "cassandra" } else { "mysql" };
            assert_eq!(first.served_by(), expected, "{id} at {percent} %");
            if expected == "cassandra" {
                by_cassandra.push(id);
            }
        }
        if let Some(before) = admitted.last() {
            assert!(before.iter().all(|id| by_cassandra.contains(id)));
        }
        admitted.push(by_cassandra);
    }
    let counts: Vec<usize> = admitted.iter().map(Vec::len).collect();
    assert!(
        counts[0] == 0 && counts[1] > 0 && counts[1] < counts[2] && counts[3] == ROWS as usize,
        "{counts:?}"
    );

    // By a country that the caller's header names, and by a customer.
    let values = vec![
        (CohortAttribute::Header("tandem-country".into()), "PT".to_owned()),
        (CohortAttribute::Column("customer".into()), "3".to_owned()),
    ];
    let cohort = Cohort { by: CohortAttribute::Key, percent: 0.0, values };
    stage.order(PhaseRecord { cohort, ..everything(Phase::Canary) }).await?;
    for (path, headers, served_by) in [
        ("/v1/order/1", &[("Tandem-Country", "PT")][..], "cassandra"),
        ("/v1/order/1", &[("Tandem-Country", "ES")], "mysql"),
        ("/v1/order/1", &[], "mysql"),
        ("/v1/order?target=by_customer&customer=3", &[], "cassandra"),
        ("/v1/order?target=by_customer&customer=4", &[], "mysql"),
    ] {
        assert_eq!(stage.get_with(path, headers).await?.served_by(), served_by, "{path} {headers:?}");
    }
    stage.end().await
}

/// If Cassandra's row is wrong, MySQL's is served, and the reason is counted.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_rows_of_cassandra_are_not_served() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = filled(servers, "gwwrong", 9).await?;
    let cassandra = stage.migration.cassandra().await?;
    for statement in [
        "UPDATE orders SET note = 'forged' WHERE id = 1",
        "DELETE FROM orders WHERE id = 2",
        "INSERT INTO orders (id, customer, note) VALUES (100, 1, 'extra')",
        "UPDATE by_customer SET note = 'forged' WHERE customer = 3 AND id = 8",
        "DELETE FROM by_customer WHERE customer = 4 AND id = 9",
        "INSERT INTO by_customer (customer, id, note) VALUES (0, 100, 'extra')",
    ] {
        cassandra.query_unpaged(statement, ()).await?;
    }
    let right = |answer: &Answer| !answer.body.contains("forged") && !answer.body.contains("extra");
    let lists = "/v1/order?target=by_customer&customer=";
    for phase in [Phase::Canary, Phase::ReadSwitch] {
        stage.phase(phase).await?;
        for (path, status, reason) in [
            ("/v1/order/1", 200, "different"),
            ("/v1/order/2", 200, "missing"),
            ("/v1/order/100", 404, "extra"),
            (&format!("{lists}3"), 200, "different"),
            (&format!("{lists}4"), 200, "missing"),
            (&format!("{lists}0"), 200, "extra"),
            ("/v1/order/3", 200, ""),
            (&format!("{lists}2"), 200, ""),
        ] {
            let answer = stage.get(path).await?;
            assert_eq!((answer.status, answer.fallback()), (status, reason), "{path}: {answer:?}");
            assert_eq!(answer.served_by(), if reason.is_empty() { "cassandra" } else { "mysql" });
            assert!(right(&answer), "{answer:?}");
        }
    }
    // Without validation, MySQL still serves a row that Cassandra lacks. Without fallback it does not.
    stage.order(PhaseRecord { validate: 0.0, ..everything(Phase::ReadSwitch) }).await?;
    let missing = stage.get("/v1/order/2").await?;
    assert_eq!((missing.status, missing.fallback()), (200, "missing"));
    stage.order(PhaseRecord { validate: 0.0, fallback: false, ..everything(Phase::ReadSwitch) }).await?;
    assert_eq!(stage.get("/v1/order/2").await?.status, 404);
    // Before the canary, a difference is only counted.
    stage.phase(Phase::Verify).await?;
    let shadowed = stage.get("/v1/order/1").await?;
    assert_eq!((shadowed.served_by(), shadowed.fallback(), right(&shadowed)), ("mysql", "", true));
    // By key and in a list, in two phases, and the missing row once more. Waiting for apply adds further
    // reads.
    stage
        .until("every reason to be counted", async |stage| {
            let metrics = stage.metrics().await?;
            let counted = |name: &str, reason: &str, least: u64| {
                let label = format!("tandem_gateway_{name}_total{{entity=\"order\",reason=\"{reason}\"}} ");
                let counts =
                    metrics.lines().filter_map(|line| line.strip_prefix(&label)?.parse::<u64>().ok());
                counts.max().is_some_and(|count| count >= least)
            };
            Ok(counted("fallbacks", "different", 4)
                && counted("fallbacks", "missing", 5)
                && counted("fallbacks", "extra", 4)
                && counted("validated", "equal", 4)
                && counted("shadowed", "different", 1))
        })
        .await?;
    stage.end().await
}
