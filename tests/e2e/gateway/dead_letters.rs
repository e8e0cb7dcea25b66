//! Rows with dead letters, as clients of the gateway see them.

use mysql_async::prelude::Queryable;
use serde_json::json;
use tandem_model::{Phase, PhaseRecord};

use super::{Stage, everything};
use crate::support::{Migration, Servers};

const DAYS: &str = "CREATE TABLE days (id INT PRIMARY KEY, place INT NOT NULL, day DATE)";

const DAYS_MAPPING: &str = "[[table]]\nsource = \"{db}.days\"\nentity = \"day\"\n\
    [[table.target]]\ntable = \"days\"\npartition_key = [\"id\"]\n\
    [[table.target]]\ntable = \"by_place\"\npartition_key = [\"place\"]\nclustering_key = [\"id\"]\n";

/// While a change of a row is a dead letter, MySQL serves the row, and every list of its table. All other rows come from
/// Cassandra. A client can correct the row through the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_with_a_dead_letter_is_read_from_mysql() -> anyhow::Result<()> {
    let migration = Migration::new(Servers::from_env(), "gwletter", &[DAYS]).await?;
    let commands = ["capture", "apply", "reconcile", "gateway"];
    let mut stage = Stage::of(migration, "cassandra_read_ms = 4000\n", DAYS_MAPPING, &commands).await?;
    for (id, day) in [(1, "2024-01-01"), (2, "2024-02-02")] {
        stage.done("PUT", &format!("/v1/day/{id}"), &format!(r#"{{"place": 7, "day": "{day}"}}"#)).await?;
    }
    let (row, other, list) = ("/v1/day/1", "/v1/day/2", "/v1/day?target=by_place&place=7");
    // Without validation and fallback, so that only the dead letter leads to MySQL.
    let alone = PhaseRecord { validate: 0.0, fallback: false, ..everything(Phase::ReadSwitch) };
    stage.order(alone).await?;

    let mut lax = stage.migration.session().await?;
    lax.query_drop("SET SESSION sql_mode = ''").await?;
    lax.query_drop("UPDATE days SET day = 0 WHERE id = 1").await?;
    // A token of a later transaction: apply has met the bad change once the token is applied.
    let token = stage.done("PUT", "/v1/day/3", r#"{"place": 8, "day": "2024-03-03"}"#).await?;
    let token = token.header("tandem-token").to_owned();
    stage
        .until("the token to be applied", async |stage| {
            let answer = stage.get_with(row, &[("Tandem-Token", &token)]).await?;
            Ok(answer.fallback() != "token-not-applied")
        })
        .await?;
    for path in [row, list] {
        let read = stage.get_with(path, &[("Tandem-Token", &token)]).await?;
        assert_eq!((read.served_by(), read.fallback()), ("mysql", "dead-letter"), "{path}: {read:?}");
        assert!(read.body.contains("0000-00-00"), "{path}: {read:?}");
    }
    assert_eq!(stage.get(other).await?.served_by(), "cassandra");

    // A client cannot write such a row, and can correct it.
    let again = stage.send("PATCH", row, r#"{"place": 9}"#).await?;
    assert_eq!(
        (again.status, &again.json()["type"]),
        (422, &json!("urn:tandem:problem:invalid-value")),
        "{again:?}"
    );
    stage.done("PATCH", row, r#"{"place": 9, "day": "2024-01-05"}"#).await?;
    stage
        .until("the row to come from Cassandra again", async |stage| {
            Ok(stage.get(row).await?.served_by() == "cassandra")
        })
        .await?;
    let read = stage.get(row).await?;
    assert_eq!((&read.json()["place"], &read.json()["day"]), (&json!(9), &json!("2024-01-05")), "{read:?}");
    assert_eq!(stage.get(list).await?.served_by(), "cassandra");
    stage.end().await
}

/// A row that Cassandra cannot hold is refused in `prepare` already, before its change would become a dead letter.
#[tokio::test(flavor = "multi_thread")]
async fn prepare_refuses_what_cassandra_cannot_hold() -> anyhow::Result<()> {
    let table = "CREATE TABLE names (name VARCHAR(40) PRIMARY KEY, n INT)";
    let mapping = "[[table]]\nsource = \"{db}.names\"\nentity = \"name\"\n\
        [[table.target]]\ntable = \"names\"\npartition_key = [\"name\"]\n";
    let migration = Migration::new(Servers::from_env(), "gwunfit", &[table]).await?;
    let stage = Stage::of(migration, "", mapping, &["capture", "gateway"]).await?;
    let refused = stage.send("POST", "/v1/name", r#"{"name": "", "n": 1}"#).await?;
    assert_eq!(
        (refused.status, &refused.json()["type"]),
        (422, &json!("urn:tandem:problem:invalid-value")),
        "{refused:?}"
    );
    stage.done("POST", "/v1/name", r#"{"name": "a", "n": 1}"#).await?;
    stage.end().await
}
