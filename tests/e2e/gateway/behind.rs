//! Gateways that act on different generations at the same time.

use tandem_kafka::Producer;
use tandem_model::{GtidSet, Phase, PhaseRecord};

use super::{Stage, everything};
use crate::support::{Migration, ORDERS_MAPPING, Servers, captured, finish, free_port, http, phase_record};

/// One gateway does not know the phase of the other. It follows a control topic of its own with an older
/// phase. A client that writes through one and reads through the other with the write's token reads that
/// write.
#[tokio::test(flavor = "multi_thread")]
async fn gateways_on_different_generations_agree_under_a_token() -> anyhow::Result<()> {
    let servers = Servers::from_env();
    let mut stage = Stage::new(servers, "gwapart", &["capture", "apply", "gateway"]).await?;
    let late = free_port()?;
    let section = format!("[gateway]\nlisten = \"127.0.0.1:{late}\"\n");
    stage.migration.configure("", ORDERS_MAPPING)?;
    let prefix = format!("{}-late", stage.migration.prefix);
    let own_topics = |text: String| text.replace(&stage.migration.prefix, &prefix);
    let config = stage.migration.configure_as("late", &section, own_topics)?;
    // A table has one owner. The roles that run already are not asked again.
    let take_over = ["schema", "create", "--take-over", &stage.migration.prefix];
    let taken = finish(Migration::command_with(&config, &take_over)).await?;
    assert!(taken.success, "{}", taken.stderr);
    stage.running.push(stage.migration.start_with(&config, "late", &["gateway"])?);
    stage.until_ready(late).await?;
    let mut kafka = stage.migration.kafka();
    kafka.prefix.clone_from(&prefix);
    let producer = Producer::start(&kafka).await?;
    let mut number = 0;
    for (generation, behind) in (1..).zip([Phase::Prepare, Phase::DualWrite, Phase::Verify]) {
        let record = PhaseRecord { generation, ..everything(behind) };
        producer.send(vec![phase_record(&prefix, &record)]).await?;
        stage.until_generation(late, generation).await?;
        for ahead in [Phase::Canary, Phase::ReadSwitch] {
            stage.order(PhaseRecord { validate: 0.0, ..everything(ahead) }).await?;
            for (writer, reader) in [(late, stage.port), (stage.port, late)].repeat(3) {
                number += 1;
                // Captured but not applied: a write that one gateway made only to MySQL is not in Cassandra.
                stage.running[1].signal("STOP")?;
                let body = format!(r#"{{"customer": {}, "note": "n{number}"}}"#, number % 3);
                let written = http(writer, "PUT", "/v1/order/1", &[], &body).await?;
                assert!(matches!(written.status, 200 | 201), "{written:?}");
                let token = written.header("tandem-token").to_owned();
                let written: GtidSet = token.parse().map_err(anyhow::Error::msg)?;
                stage
                    .until("the write to be captured", async |stage| {
                        Ok(captured(&stage.migration.status().await?, &written))
                    })
                    .await?;
                for port in [reader, writer] {
                    let read = http(port, "GET", "/v1/order/1", &[("Tandem-Token", &token)], "").await?;
                    let note = read.json()["note"].clone();
                    assert_eq!(note, format!("n{number}"), "{behind} beside {ahead}: {read:?}");
                }
                stage.running[1].signal("CONT")?;
                // The log brings the write.
                if number % 3 == 0 {
                    stage.until_applied("/v1/order/1", &token).await?;
                    let read = stage.get_with("/v1/order/1", &[("Tandem-Token", &token)]).await?;
                    assert_eq!(
                        (read.served_by(), read.json()["note"].as_str()),
                        ("cassandra", Some(&*format!("n{number}")))
                    );
                }
            }
        }
    }
    stage.end().await
}
