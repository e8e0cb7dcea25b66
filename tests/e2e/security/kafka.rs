//! TLS and SASL to Kafka.

use std::path::Path;

use tandem_devstack::{Kafka, KafkaOptions};
use tandem_kafka::{
    Admin, Cleanup, ConsumeError, KafkaConfig, KafkaSecurity, Producer, PublishError, Sasl, SaslMechanism,
    TlsFiles, TopicSpec, TransactionalPublisher, read_all,
};
use tandem_model::Disposition;

use crate::support::{Authority, Identity, control_record};

/// The indexes of the listeners.
pub(super) const SSL: usize = 0;
pub(super) const SASL_PLAINTEXT: usize = 1;
pub(super) const SASL_SSL: usize = 2;

/// A broker with every security protocol and, for every mechanism, the account `alice`.
pub(super) fn options(ca: &Authority, folder: &Path) -> anyhow::Result<KafkaOptions> {
    let broker = ca.sign("broker", &["127.0.0.1"])?;
    let store = folder.join("broker.pem");
    std::fs::write(&store, [std::fs::read(&broker.key)?, std::fs::read(&broker.certificate)?].concat())?;
    let mut properties = vec![
        "ssl.keystore.type=PEM".to_owned(),
        format!("ssl.keystore.location={}", store.display()),
        "ssl.truststore.type=PEM".to_owned(),
        format!("ssl.truststore.location={}", ca.file().display()),
        "listener.name.ssl.ssl.client.auth=required".to_owned(),
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned(),
    ];
    let security = "org.apache.kafka.common.security";
    for listener in ["sasl_plaintext", "sasl_ssl"] {
        for mechanism in ["scram-sha-256", "scram-sha-512"] {
            properties.push(format!(
                "listener.name.{listener}.{mechanism}.sasl.jaas.config={security}.scram.ScramLoginModule required;"
            ));
        }
        properties.push(format!(
            "listener.name.{listener}.plain.sasl.jaas.config={security}.plain.PlainLoginModule required \
             user_alice=\"wonderland\";"
        ));
    }
    let account = |mechanism| format!("{mechanism}=[name=alice,password=wonderland]");
    Ok(KafkaOptions {
        listeners: ["SSL", "SASL_PLAINTEXT", "SASL_SSL"].map(str::to_owned).to_vec(),
        properties,
        scram: ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(account).to_vec(),
    })
}

fn alice(mechanism: SaslMechanism) -> Sasl {
    Sasl { mechanism, username: "alice".into(), password: "wonderland".into() }
}

fn trusting(ca: &Authority) -> TlsFiles {
    TlsFiles { ca: Some(ca.file()), identity: None }
}

fn config(kafka: &Kafka, listener: usize, tls: Option<TlsFiles>, sasl: Option<Sasl>) -> KafkaConfig {
    let mut config = KafkaConfig::new(kafka.listener(listener).unwrap(), "secure");
    config.security = KafkaSecurity { tls, sasl };
    config
}

/// Writes a record and reads it back.
async fn round_trip(config: &KafkaConfig, topic: &str) -> anyhow::Result<()> {
    let spec = TopicSpec { name: topic.to_owned(), partitions: 1, cleanup: Cleanup::KeepAll };
    Admin::connect(config).await?.ensure_topics(&[spec]).await?;
    let record = control_record(topic, "key", topic);
    Producer::start(config).await?.send(vec![record]).await?;
    let read = read_all(config, topic).await?;
    anyhow::ensure!(read.len() == 1 && read[0].value.as_deref() == Some(topic.as_bytes()), "{read:?}");
    Ok(())
}

async fn refused(config: &KafkaConfig, words: &[&str]) {
    let error = Admin::connect(config).await.map(drop).unwrap_err();
    assert!(matches!(error, ConsumeError::Refused { .. }) && error.retry() == Disposition::Stop, "{error:?}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
    assert!(!format!("{error} {config:?}").contains("wonderland"));
    let error = TransactionalPublisher::start(config, "secure.capture").await.map(drop).unwrap_err();
    assert!(matches!(error, PublishError::Refused { .. }) && error.retry() == Disposition::Stop, "{error:?}");
    assert!(config.refusals.current().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_and_mechanism() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let ca = Authority::new(folder.path(), "ours")?;
    let other = Authority::new(folder.path(), "other")?;
    let kafka = Kafka::ephemeral_with(&options(&ca, folder.path())?)?;
    let certified =
        |Identity { certificate, key }| TlsFiles { ca: Some(ca.file()), identity: Some((certificate, key)) };

    for (mechanism, name) in [
        (SaslMechanism::Plain, "plain"),
        (SaslMechanism::ScramSha256, "scram-sha-256"),
        (SaslMechanism::ScramSha512, "scram-sha-512"),
    ] {
        let sasl = Some(alice(mechanism));
        round_trip(&config(&kafka, SASL_PLAINTEXT, None, sasl.clone()), name).await?;
        round_trip(&config(&kafka, SASL_SSL, Some(trusting(&ca)), sasl.clone()), &format!("{name}-ssl"))
            .await?;
        let wrong = Sasl { password: "looking-glass".into(), ..alice(mechanism) };
        refused(&config(&kafka, SASL_SSL, Some(trusting(&ca)), Some(wrong)), &["kafka.sasl"]).await;
    }
    let client = config(&kafka, SSL, Some(certified(ca.sign("client", &[])?)), None);
    round_trip(&client, "ssl").await?;

    refused(&config(&kafka, SSL, Some(trusting(&ca)), None), &["kafka.tls.certificate"]).await;
    let stranger = config(&kafka, SSL, Some(certified(other.sign("client", &[])?)), None);
    refused(&stranger, &["kafka.tls.certificate"]).await;
    let sasl = Some(alice(SaslMechanism::Plain));
    refused(&config(&kafka, SASL_SSL, Some(trusting(&other)), sasl.clone()), &["kafka.tls.ca"]).await;
    let mut named = config(&kafka, SASL_SSL, Some(trusting(&ca)), sasl);
    named.brokers = named.brokers.replace("127.0.0.1", "localhost");
    refused(&named, &["kafka.tls.ca", "addresses"]).await;
    let open = Admin::connect(&config(&kafka, SSL, None, None)).await.map(drop).unwrap_err();
    assert!(open.to_string().contains("kafka.security"), "{open}");
    let nowhere = TlsFiles { ca: Some("/no/such/file".into()), identity: None };
    let no_file = Admin::connect(&config(&kafka, SSL, Some(nowhere), None)).await.map(drop).unwrap_err();
    assert!(no_file.to_string().contains("/no/such/file"), "{no_file}");
    Ok(())
}
