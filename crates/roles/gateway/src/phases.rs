//! Which phase holds: the newest phase record of the control topic.

use std::sync::Arc;
use std::time::Duration;

use tandem_kafka::{Admin, ConsumeError, KafkaConfig, TailReader};
use tandem_model::PhaseRecord;
use tandem_runtime::Backoff;
use tandem_wire::control::{PHASE_KEY, decode_phase};
use tandem_wire::log::InRecord;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// How long the first reading of the topic may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest pause between two attempts to follow a topic that cannot be followed.
const PAUSE: Duration = Duration::from_secs(1);

/// The phase as the control topic has it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Phases {
    seen: watch::Receiver<Arc<PhaseRecord>>,
}

impl Phases {
    /// Reads the control topic to its end and follows it from then on. Without a record the phase is
    /// `prepare`, of generation 0. Later, while the topic cannot be read, the last record known
    /// holds.
    pub async fn follow(config: &KafkaConfig) -> Result<Self, ConsumeError> {
        let topic = config.topics().control();
        let admin = Admin::connect(config).await?;
        let first = admin.first_offsets(&topic, 1).await?[0];
        let end = admin.end_offsets(&topic, 1).await?[0];
        let (sender, seen) = watch::channel(Arc::new(PhaseRecord::default()));
        let mut reader = TailReader::start(config, vec![(topic.clone(), 0, first)]).await?;
        let begun = tokio::time::Instant::now();
        while reader.consumed_to(&topic, 0).is_none_or(|at| at < end) {
            take(&sender, &reader.next_batch(500, Duration::from_millis(100)).await?);
            if begun.elapsed() > PATIENCE {
                return Err(ConsumeError::Unreachable {
                    brokers: config.brokers.clone(),
                    cause: format!("the control topic `{topic}` was not read to its end in time"),
                });
            }
        }
        let config = config.clone();
        tokio::spawn(async move {
            let mut backoff = Backoff::new(PAUSE, PAUSE);
            while !sender.is_closed() {
                match reader.next_batch(500, Duration::from_millis(500)).await {
                    Ok(records) => take(&sender, &records),
                    Err(error) => {
                        tracing::error!(%error, "the control topic cannot be followed; the last phase known holds");
                        backoff.pause().await;
                        // From its beginning: older generations are refused anyway.
                        if let Ok(anew) = TailReader::start(&config, vec![(topic.clone(), 0, first)]).await {
                            reader = anew;
                        }
                    }
                }
            }
        });
        Ok(Self { seen })
    }

    /// Shows the generation that holds, whether or not anybody asks for anything.
    pub(crate) async fn report(&self, metrics: &Metrics) {
        let mut seen = self.seen.clone();
        loop {
            let generation = seen.borrow_and_update().generation;
            metrics.generation.set(generation as i64);
            if seen.changed().await.is_err() {
                return;
            }
        }
    }

    /// The record that holds now.
    pub fn now(&self) -> Arc<PhaseRecord> {
        Arc::clone(&self.seen.borrow())
    }
}

/// Takes newer phases of these records in.
fn take(sender: &watch::Sender<Arc<PhaseRecord>>, records: &[InRecord]) {
    for record in records {
        let (Some(PHASE_KEY), Some(value)) = (record.key.as_deref(), &record.value) else { continue };
        match decode_phase(value) {
            Ok(found) => {
                sender.send_if_modified(|seen| {
                    let newer = found.supersedes(seen);
                    if newer {
                        tracing::info!(generation = found.generation, phase = %found.phase, "the phase");
                        *seen = Arc::new(found);
                    } else {
                        tracing::warn!(
                            generation = found.generation,
                            seen = seen.generation,
                            "an older phase record is refused"
                        );
                    }
                    newer
                });
            }
            Err(error) => {
                tracing::error!(%error, "a phase record cannot be read; the last phase known holds");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::Phase;
    use tandem_wire::control::encode_phase;

    fn record(key: &[u8], value: Option<Vec<u8>>) -> InRecord {
        InRecord {
            topic: "t".into(),
            partition: 0,
            offset: 0,
            key: Some(key.to_vec()),
            value,
            version: None,
            timestamp_ms: None,
        }
    }

    #[test]
    fn only_newer_generations_are_taken() {
        let (sender, seen) = watch::channel(Arc::new(PhaseRecord::default()));
        let of = |generation, phase| {
            let found = PhaseRecord { generation, phase, ..PhaseRecord::default() };
            record(PHASE_KEY, Some(encode_phase(&found)))
        };
        take(&sender, &[of(2, Phase::Canary), of(1, Phase::DualWrite), of(2, Phase::Verify)]);
        assert_eq!((seen.borrow().generation, seen.borrow().phase), (2, Phase::Canary));
        take(
            &sender,
            &[record(PHASE_KEY, Some(vec![1])), record(PHASE_KEY, None), record(b"backfill/x", None)],
        );
        take(&sender, &[of(3, Phase::Verify)]);
        assert_eq!((seen.borrow().generation, seen.borrow().phase), (3, Phase::Verify));
    }
}
