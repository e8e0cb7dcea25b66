//! Repairs what verification confirmed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tandem_event_log::{GroupConsumer, KafkaConfig, Producer, Topics};
use tandem_mapping::Difference;
use tandem_model::{TargetKey, Version};
use tandem_mysql_source::Reader;
use tandem_wire::control::{Mismatch, MismatchState, decode_control};
use tokio_util::sync::CancellationToken;

use crate::check::{CheckError, CheckedTable, Checker, Outcome, Suspect};
use crate::events;

/// Repairs of one mismatch before it is called unrepairable. Each uses a later watermark, so that
/// a foreign write of the last seconds is overtaken by the source's clock.
const ATTEMPTS: usize = 8;

/// How long a key that keeps changing is left alone before it is looked at again.
const HOT_KEY: Duration = Duration::from_secs(1);

/// First and longest pause after an error that may pass.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Consumes mismatch events, repairs Cassandra from MySQL, and says what has become of each.
pub struct Reconciler {
    /// Checks.
    pub checker: Checker,
    /// The mapped tables.
    pub tables: Vec<Arc<CheckedTable>>,
    /// The log.
    pub kafka: KafkaConfig,
}

impl Reconciler {
    /// Repairs until `stop`.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), CheckError> {
        let topics = Topics::new(&self.kafka.prefix);
        let mut consumer =
            GroupConsumer::start(&self.kafka, &topics.reconcile_group(), &[topics.mismatches()]).await?;
        let outcome = tokio::select! {
            outcome = self.consume(&mut consumer) => outcome,
            () = stop.cancelled() => Ok(()),
        };
        consumer.close().await;
        outcome
    }

    async fn consume(&self, consumer: &mut GroupConsumer) -> Result<(), CheckError> {
        let producer = Producer::start(&self.kafka).await?;
        let by_name: HashMap<String, &Arc<CheckedTable>> =
            self.tables.iter().map(|t| (t.source().name.to_string(), t)).collect();
        loop {
            let records = consumer.next_batch(100, Duration::from_secs(1)).await?;
            for record in &records {
                let Some(value) = &record.value else { continue };
                let event: Mismatch = decode_control(value)?;
                if event.state != MismatchState::Found {
                    continue;
                }
                let Some(table) = by_name.get(&event.table) else {
                    tracing::warn!(
                        table = event.table,
                        "a mismatch of a table that is no longer mapped is left alone"
                    );
                    continue;
                };
                let resolved = self.resolve_patiently(table, event).await?;
                producer.send(vec![events::record(&self.kafka, &resolved)?]).await?;
            }
            // An event's offset is committed after what became of it is on the log.
            consumer.done(&records)?;
        }
    }

    async fn resolve_patiently(&self, table: &CheckedTable, event: Mismatch) -> Result<Mismatch, CheckError> {
        let mut pause = BACKOFF.0;
        loop {
            let resolved = async {
                let mut reader = self.checker.mysql.reader().await?;
                self.resolve(&mut reader, table, event.clone()).await
            };
            match resolved.await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "the repair is tried again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
                outcome => return outcome,
            }
        }
    }

    /// Checks the row of an event again, repairs it while the mismatch is confirmed, and says how
    /// that ended.
    async fn resolve(
        &self,
        reader: &mut Reader,
        table: &CheckedTable,
        mut event: Mismatch,
    ) -> Result<Mismatch, CheckError> {
        let target = table.plan.targets().iter().position(|t| t.table().name == event.target);
        let suspect = Suspect {
            key: table.key_values(&event.source_key)?,
            candidates: target.map(|t| (t, event.raw_target_key.clone())).into_iter().collect(),
        };
        let mut used: Option<Version> = None;
        let mut repairs = 0;
        while repairs < ATTEMPTS {
            if let Some(used) = used {
                self.later_watermark(used).await;
            }
            let outcome = self.checker.settle(reader, table, std::slice::from_ref(&suspect)).await?.pop();
            match outcome {
                Some(Outcome::Match) => {
                    event.state = MismatchState::Resolved;
                    event.detected_at_us = events::now_us();
                    self.checker.metrics.resolved.inc();
                    return Ok(event);
                }
                Some(Outcome::Mismatch(confirmed)) => {
                    let extra: Vec<(usize, TargetKey)> = confirmed
                        .differences
                        .iter()
                        .filter(|d| d.difference == Difference::Extra)
                        .map(|d| (d.target, d.key.clone()))
                        .collect();
                    // At W₁'s version: the log holds no change of the key after it, and whatever
                    // comes later has a higher version and wins.
                    let version = confirmed.lower.version;
                    let repair = table.plan.repair(confirmed.row.as_ref(), &extra, version)?;
                    self.checker.target.write(repair).await?;
                    self.checker.metrics.repairs.inc();
                    repairs += 1;
                    event.lower = version.0;
                    event.upper = confirmed.upper.version.0;
                    used = Some(version);
                }
                // The key keeps changing: its changes write the row anew, but an extra row elsewhere
                // would stay. It is looked at again until it can be decided.
                Some(Outcome::Undecided) | None => tokio::time::sleep(HOT_KEY).await,
            }
        }
        tracing::error!(
            table = event.table,
            target = event.target,
            attempts = ATTEMPTS,
            "a mismatch could not be repaired: a cell there may carry a timestamp far in the future"
        );
        event.state = MismatchState::Unrepairable;
        self.checker.metrics.unrepairable.inc();
        Ok(event)
    }

    /// Waits for a watermark above `used`, so that the next repair is a newer one. Watermarks come
    /// at least once a second; without one for a while the next attempt tells why.
    async fn later_watermark(&self, used: Version) {
        let later = async {
            while self.checker.watermarks.newest().is_none_or(|w| w.version <= used) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // A timeout is no loss: the check that follows has its own.
        let _ = tokio::time::timeout(Duration::from_secs(5), later).await;
    }
}
