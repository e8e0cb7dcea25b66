//! Native writes that MySQL refuses.

use tandem_kafka::{KafkaConfig, Producer};
use tandem_runtime::now_us;
use tandem_wire::control::DeadLetter;
use tandem_wire::log::InRecord;

use crate::batch::NativeChange;
use crate::error::ReverseError;
use crate::metrics::Metrics;

/// Publishes reverse's dead letters.
pub(crate) struct Letters {
    topic: String,
    producer: Producer,
    metrics: Metrics,
}

impl Letters {
    pub(crate) async fn open(kafka: &KafkaConfig, metrics: Metrics) -> Result<Self, ReverseError> {
        let topic = kafka.topics().reverse_dead_letters();
        Ok(Self { topic, producer: Producer::start(kafka).await?, metrics })
    }

    /// Publishes a dead letter. When this returns, Kafka has acknowledged it.
    pub(crate) async fn put(
        &self,
        record: &InRecord,
        native: &NativeChange,
        cause: String,
    ) -> Result<(), ReverseError> {
        let letter = DeadLetter {
            table: native.change.table.name.to_string(),
            topic: record.topic.to_string(),
            partition: record.partition,
            offset: record.offset,
            record_key: record.key.clone().unwrap_or_default(),
            record_value: record.value.clone().unwrap_or_default(),
            version: native.change.version.0,
            reason: "refused-by-mysql".to_owned(),
            cause,
            at_us: now_us(),
            discarded: None,
        };
        self.producer.send(vec![letter.record(&self.topic)?]).await?;
        self.metrics.dead_letters.inc();
        tracing::warn!(
            table = letter.table, letter = %letter.place(), cause = letter.cause,
            "MySQL refuses a native write: it is a dead letter of reverse"
        );
        Ok(())
    }
}
