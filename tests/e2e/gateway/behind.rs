//! Gateways that act on different generations at the same time.

use tandem_kafka::Producer;
use tandem_model::{GtidSet, Phase, PhaseRecord};
use tandem_wire::control::{PHASE_KEY, encode_phase};
use tandem_wire::log::{OutRecord, Topics};

use super::{MAPPING, Stage, everything, free_port, http};
use crate::support::{Migration, Running, Servers};

/// One gateway has not heard of anything that the other acts on: it follows a control topic of its own,
/// where an older phase stands. Whoever writes through the one and reads through the other, with the
/// token, reads that write.
#[tokio::test(flavor = "multi_thread")]
async fn gateways_on_different_generations_agree_under_a_token() -> anyhow::Result<()> {
    let Some(servers) = Servers::from_env() else { return Ok(()) };
    let mut stage = Stage::new(servers, "gwapart", &["capture", "apply", "gateway"]).await?;
    let late = free_port()?;
    let config = stage.migration.folder.path().join("late.toml");
    let section = format!("[gateway]\nlisten = \"127.0.0.1:{late}\"\n");
    stage.migration.configure(&section, MAPPING)?;
    let prefix = format!("{}-late", stage.migration.prefix);
    let text = std::fs::read_to_string(stage.migration.config())?;
    std::fs::write(&config, text.replace(&stage.migration.prefix, &prefix))?;
    let log = stage.migration.folder.path().join("late.log");
    stage.running.push(Running::of(Migration::command_with(&config, &["gateway"]), log)?);
    stage
        .until("the gateway that is behind", async |_| {
            Ok(http(late, "GET", "/readyz", &[], "").await.is_ok_and(|answer| answer.status == 200))
        })
        .await?;
    let mut kafka = stage.migration.kafka();
    kafka.prefix.clone_from(&prefix);
    let producer = Producer::start(&kafka).await?;
    let mut number = 0;
    for (generation, behind) in (1..).zip([Phase::Prepare, Phase::DualWrite, Phase::Verify]) {
        let record = OutRecord {
            topic: Topics::new(&prefix).control().into(),
            partition: 0,
            key: PHASE_KEY.to_vec(),
            value: Some(encode_phase(&PhaseRecord { generation, ..everything(behind) })),
            version: None,
            timestamp_ms: None,
        };
        producer.send(vec![record]).await?;
        stage
            .until("the older generation", async |_| {
                let seen = http(late, "GET", "/openapi.json", &[], "").await?;
                Ok(seen.header("tandem-generation") == generation.to_string())
            })
            .await?;
        for ahead in [Phase::Canary, Phase::ReadSwitch] {
            stage.order(PhaseRecord { validate: 0.0, ..everything(ahead) }).await?;
            for (writer, reader) in [(late, stage.port), (stage.port, late)].repeat(3) {
                number += 1;
                // Captured, and not applied: what the one wrote to MySQL alone is not in Cassandra.
                stage.running[1].signal("STOP")?;
                let body = format!(r#"{{"customer": {}, "note": "n{number}"}}"#, number % 3);
                let written = http(writer, "PUT", "/v1/order/1", &[], &body).await?;
                assert!(matches!(written.status, 200 | 201), "{written:?}");
                let token = written.header("tandem-token").to_owned();
                stage
                    .until("the write to be captured", async |stage| {
                        let status = stage.migration.status().await?;
                        let captured = status["source"]["gtid_set"].as_str().unwrap_or_default();
                        let captured: GtidSet = captured.parse().map_err(anyhow::Error::msg)?;
                        Ok(token.parse::<GtidSet>().map_err(anyhow::Error::msg)?.is_subset(&captured))
                    })
                    .await?;
                for port in [reader, writer] {
                    let read = http(port, "GET", "/v1/order/1", &[("Tandem-Token", &token)], "").await?;
                    let note = read.json()["note"].clone();
                    assert_eq!(note, format!("n{number}"), "{behind} beside {ahead}: {read:?}");
                }
                stage.running[1].signal("CONT")?;
                // The log brings it.
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
