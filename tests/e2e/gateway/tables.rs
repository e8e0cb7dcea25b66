//! Tables that are not live, as clients of the gateway see them.

use serde_json::json;
use tandem_model::{Phase, PhaseRecord};

use super::{Stage, everything};
use crate::support::{Migration, ORDERS, ORDERS_MAPPING, Running, Servers, free_port, http};

const OTHER: &str = "CREATE TABLE other (id INT PRIMARY KEY, n INT NOT NULL)";

const OTHER_MAPPING: &str = "[[table]]\nsource = \"{db}.other\"\nentity = \"other\"\n\
    [[table.target]]\ntable = \"other\"\npartition_key = [\"id\"]\n";

/// A client writes a row and reads it with its token, again and again, while the table halts, resumes, and is live again:
/// it always reads what it wrote. While the table is not live, MySQL serves it, and Cassandra serves the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_live_is_read_from_mysql() -> anyhow::Result<()> {
    let migration = Migration::new(Servers::from_env(), "gwtable", &[ORDERS, OTHER]).await?;
    let wait = "token_wait_ms = 10000\ncassandra_read_ms = 10000\n";
    let mapping = format!("{ORDERS_MAPPING}{OTHER_MAPPING}");
    let mut stage = Stage::of(migration, wait, &mapping, &["run"]).await?;
    let copied = async |stage: &Stage| {
        let status = stage.migration.status().await?;
        Ok(status["copied"]["holds"] == true && status["caught_up"]["holds"] == true)
    };
    stage.until("both tables to be copied", copied).await?;
    // Without validation and fallback, so that a stale answer of Cassandra would be served.
    stage.order(PhaseRecord { validate: 0.0, fallback: false, ..everything(Phase::ReadSwitch) }).await?;
    let table = format!("{}.orders", stage.migration.database);
    let (mut n, mut stores) = (0, Vec::new());
    let mut served = async |stage: &mut Stage| {
        n += 1;
        let body = json!({ "customer": 1, "note": format!("n{n}") }).to_string();
        let token = stage.done("PUT", "/v1/order/1", &body).await?.header("tandem-token").to_owned();
        let headers = [("Tandem-Token", token.as_str()), ("Tandem-Deadline-Ms", "30000")];
        let read = stage.get_with("/v1/order/1", &headers).await?;
        assert_eq!((read.status, &read.json()["note"]), (200, &json!(format!("n{n}"))), "{read:?}");
        anyhow::Ok((read.served_by().to_owned(), read.fallback().to_owned()))
    };
    for _ in 0..5 {
        assert_eq!(served(&mut stage).await?, ("cassandra".to_owned(), String::new()));
    }
    let halting = stage.migration.command(&["table", "halt", &table]).spawn()?;
    while stores.last() != Some(&("mysql".to_owned(), "table-not-live".to_owned())) {
        stores.push(served(&mut stage).await?);
    }
    assert!(halting.wait_with_output()?.status.success());
    let written = stage.done("PUT", "/v1/other/1", r#"{"n": 1}"#).await?;
    let headers = [("Tandem-Token", written.header("tandem-token")), ("Tandem-Deadline-Ms", "30000")];
    let other = stage.get_with("/v1/other/1", &headers).await?;
    assert_eq!((other.served_by(), &other.json()["n"]), ("cassandra", &json!(1)), "{other:?}");

    stage.migration.succeed(&["table", "resume", &table]).await?;
    while stores.last() != Some(&("cassandra".to_owned(), String::new())) {
        stores.push(served(&mut stage).await?);
    }
    for _ in 0..5 {
        assert_eq!(served(&mut stage).await?.0, "cassandra");
    }
    stage.end().await
}

/// A table is added while Cassandra serves the others. MySQL serves it until it is copied and verified, also if the gateway
/// that knows it is started before capture.
#[tokio::test(flavor = "multi_thread")]
async fn an_added_table_is_read_from_mysql_until_it_is_verified() -> anyhow::Result<()> {
    let rows = "INSERT INTO other VALUES (1, 1), (2, 2)";
    let migration = Migration::new(Servers::from_env(), "gwadded", &[ORDERS, OTHER, rows]).await?;
    let mut stage = Stage::of(migration, "", ORDERS_MAPPING, &["run"]).await?;
    let order = stage.done("PUT", "/v1/order/1", r#"{"customer": 1}"#).await?;
    let copied = async |stage: &Stage| Ok(stage.migration.status().await?["copied"]["holds"] == true);
    stage.until("the table to be copied", copied).await?;
    stage.order(PhaseRecord { validate: 0.0, fallback: false, ..everything(Phase::ReadSwitch) }).await?;

    let port = free_port()?;
    let mapping = format!("{ORDERS_MAPPING}{OTHER_MAPPING}");
    let section = format!(
        "[gateway]\nlisten = \"127.0.0.1:{port}\"\ntoken_wait_ms = 10000\ncassandra_read_ms = 10000\n"
    );
    stage.migration.configure("", &mapping)?;
    let with_gateway = stage.migration.configure_as("with-gateway", &section, |roles| roles)?;
    stage.migration.succeed(&["schema", "create"]).await?;
    stage.running.push(stage.migration.start_with(&with_gateway, "new-gateway", &["gateway"])?);
    stage.until_ready(port).await?;
    for id in [1, 2, 1, 2] {
        let read = http(port, "GET", &format!("/v1/other/{id}"), &[], "").await?;
        let told = (read.served_by(), read.fallback(), read.json()["n"].clone());
        assert_eq!(told, ("mysql", "table-not-live", json!(id)), "{read:?}");
    }
    let headers = [("Tandem-Token", order.header("tandem-token"))];
    let known = http(port, "GET", "/v1/order/1", &headers, "").await?;
    assert_eq!((known.status, known.served_by()), (200, "cassandra"), "{known:?}");

    stage.running.remove(0).terminate().await?;
    stage.running.push(stage.migration.start_as("roles", &["run"])?);
    let mut seen = Vec::new();
    for n in 3.. {
        let body = json!({ "n": n }).to_string();
        let written = http(port, "PUT", "/v1/other/1", &[], &body).await?;
        assert!(matches!(written.status, 200 | 204), "{written:?}");
        let headers = [("Tandem-Token", written.header("tandem-token")), ("Tandem-Deadline-Ms", "30000")];
        let read = http(port, "GET", "/v1/other/1", &headers, "").await?;
        assert_eq!((read.status, &read.json()["n"]), (200, &json!(n)), "{read:?}");
        let status = stage.migration.status().await?;
        seen.push(status["tables"][1]["not_live"]["reason"].clone());
        stage.running.iter_mut().try_for_each(Running::check)?;
        if read.served_by() == "cassandra" {
            break;
        }
        assert_eq!(read.fallback(), "table-not-live", "{read:?}");
    }
    assert!(seen.contains(&json!("added")) && seen.last() == Some(&json!(null)), "{seen:?}");
    stage.end().await
}
