//! The reconciler: repairs confirmed mismatches, and rows whose dual write failed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tandem_dead_letters::Retrier;
use tandem_kafka::{GroupConsumer, KafkaConfig, Producer, SchemaStore};
use tandem_model::{Disposition, Version};
use tandem_mysql::Reader;
use tandem_protocol::row_check::repair;
use tandem_row_check::{CheckError, CheckedTable, Checker, Confirmed, Outcome, Suspect, mismatch_record};
use tandem_runtime::{Backoff, Trying, Waits, now_us};
use tandem_wire::control::{DualWriteFailure, Mismatch, MismatchState, decode_control};
use tandem_wire::log::InRecord;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dead_letters::Retries;
use crate::metrics::Metrics;

/// The repairs of one mismatch before it counts as unrepairable. Each uses a later watermark, so that the source's
/// clock overtakes an out-of-band write to Cassandra of the last seconds.
const ATTEMPTS: usize = 8;

/// The pause before a key that keeps changing is checked again.
const HOT_KEY_PAUSE: Duration = Duration::from_secs(1);

/// The pause before the mismatches of rows with dead letters are looked at again.
const PARKED_PAUSE: Duration = Duration::from_secs(5);

/// The first and the longest pause after a transient error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Records per batch at most.
const BATCH: usize = 500;

/// Repairs Cassandra from MySQL.
///
/// It consumes mismatch events, repairs their rows, and publishes the outcome of each. It also consumes the failures
/// of dual writes: it checks their rows, and repairs those that the log has not fixed. And it retries dead letters.
pub struct Reconciler {
    /// The row checker.
    pub checker: Checker,
    /// The mapped tables.
    pub tables: Vec<Arc<CheckedTable>>,
    /// The mapped tables that this process has no plan for, as `database.table`.
    pub left_out: BTreeSet<String>,
    /// The log.
    pub kafka: KafkaConfig,
    /// Where schemas are read.
    pub schemas: SchemaStore,
    /// The metrics.
    pub metrics: Metrics,
}

impl Reconciler {
    /// Repairs until `stop`. Transient errors of a repair are retried.
    ///
    /// # Errors
    ///
    /// Fails on an error that a retry cannot fix, and if Kafka cannot be read or written.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), CheckError> {
        let topics = self.kafka.topics();
        let consumed = [topics.mismatches(), topics.dual_write_failures()];
        let mut consumer = GroupConsumer::start(&self.kafka, &topics.reconcile_group(), &consumed).await?;
        let plans = self.tables.iter().map(|table| Arc::clone(&table.plan));
        let (target, watermarks) = (self.checker.target.clone(), self.checker.watermarks.clone());
        let mapping = (self.checker.states.clone(), Arc::clone(&self.checker.layouts));
        let log = (&self.kafka, self.schemas.clone());
        let retrier = Retrier::start(log, target, watermarks, mapping, plans).await?;
        let tables = self.tables.iter().map(|table| table.source().name.clone());
        let retries = Retries {
            checker: &self.checker,
            retrier,
            topics,
            tables: tables.map(|name| (name.to_string(), name)).collect(),
            metrics: &self.metrics,
        };
        let outcome = tokio::select! {
            outcome = self.consume(&mut consumer) => outcome,
            outcome = retries.run() => outcome,
            () = stop.cancelled() => Ok(()),
        };
        consumer.close().await;
        outcome
    }

    async fn consume(&self, consumer: &mut GroupConsumer) -> Result<(), CheckError> {
        let producer = Producer::start(&self.kafka).await?;
        let by_name: HashMap<String, &Arc<CheckedTable>> =
            self.tables.iter().map(|t| (t.source().name.to_string(), t)).collect();
        let failures = self.kafka.topics().dual_write_failures();
        // Mismatches of rows with open dead letters. Their offsets are not done, so a restart reads them again.
        let (mut parked, mut parked_at): (Vec<InRecord>, Instant) = (Vec::new(), Instant::now());
        loop {
            let mut records = consumer.next_batch(BATCH, Duration::from_secs(1)).await?;
            if parked_at.elapsed() >= PARKED_PAUSE {
                records.append(&mut parked);
                parked_at = Instant::now();
            }
            let mut put_aside = BTreeSet::new();
            let (failed, found): (Vec<&InRecord>, Vec<&InRecord>) =
                records.iter().partition(|record| *record.topic == *failures);
            put_aside.extend(self.of_left_out(&found)?);
            for (table, mut open) in found_keys(&found, &by_name)? {
                let mut retry = Retry::new(&self.metrics.waits);
                while !open.is_empty() {
                    let outcome = self.resolve(table, &mut open).await;
                    put_aside.extend(open.extract_if(.., |o| o.put_aside).map(|o| o.offset));
                    let resolved = open.extract_if(.., |o| o.event.state != MismatchState::Found);
                    let resolved = resolved.map(|o| mismatch_record(&self.kafka, &o.event));
                    producer.send(resolved.collect::<Result<_, _>>()?).await?;
                    match outcome {
                        Ok(()) => retry.succeeded(),
                        Err(error) => retry.pause_after(error).await?,
                    }
                }
            }
            for (table, suspects) in failed_keys(&failed, &by_name)? {
                let mut retry = Retry::new(&self.metrics.waits);
                while let Err(error) = self.repair_failed_writes(table, suspects.clone()).await {
                    retry.pause_after(error).await?;
                }
            }
            let waits =
                |record: &mut InRecord| *record.topic != *failures && put_aside.contains(&record.offset);
            parked.extend(records.extract_if(.., waits));
            // The offset of an event is committed only after its outcome is on the log.
            consumer.done(&records)?;
        }
    }

    /// The offsets of mismatches whose tables this process has no plan for. They wait until it starts again.
    fn of_left_out(&self, found: &[&InRecord]) -> Result<Vec<i64>, CheckError> {
        let mut offsets = Vec::new();
        for record in found.iter().filter(|_| !self.left_out.is_empty()) {
            let Some(value) = &record.value else { continue };
            let event: Mismatch = decode_control(value)?;
            if event.state == MismatchState::Found && self.left_out.contains(&event.table) {
                offsets.push(record.offset);
            }
        }
        Ok(offsets)
    }

    /// Checks rows whose secondary write failed, and repairs those that differ.
    ///
    /// Most do not differ, because the log has brought the write in the meantime. A key that keeps changing is left to
    /// the log, which brings each of its changes: only the gateway is known to have written it. A row with an open dead
    /// letter is left to the retry of that, which writes it whole.
    async fn repair_failed_writes(
        &self,
        table: &CheckedTable,
        mut open: Vec<Suspect>,
    ) -> Result<(), CheckError> {
        let mut reader = self.checker.mysql.reader().await?;
        for _ in 0..ATTEMPTS {
            let outcomes = self.settle(&mut reader, table, &open).await?;
            let (mut differing, mut used) = (Vec::new(), Version::default());
            for (suspect, outcome) in open.into_iter().zip(outcomes) {
                if let Outcome::Mismatch(confirmed) = outcome
                    && let Some(version) = self.repair(table, &confirmed).await?
                {
                    used = used.max(version);
                    differing.push(suspect);
                }
            }
            if differing.is_empty() {
                return Ok(());
            }
            tracing::warn!(
                table = %table.source().name,
                rows = differing.len(),
                "rows whose dual write failed differed and were rewritten"
            );
            open = differing;
            self.later_watermark(used).await;
        }
        self.metrics.unrepairable.inc_by(open.len() as u64);
        tracing::error!(
            table = %table.source().name,
            rows = open.len(),
            attempts = ATTEMPTS,
            "rows whose dual write failed could not be repaired: cells there may carry timestamps far in the future"
        );
        Ok(())
    }

    /// Checks rows, for an outcome that is acted on. Fails if the mapping is not in use any more, and instead of returning a
    /// mismatch if a target of the table has got another owner since this process began: nothing may be repaired or deleted
    /// there.
    async fn settle(
        &self,
        reader: &mut Reader,
        table: &CheckedTable,
        suspects: &[Suspect],
    ) -> Result<Vec<Outcome>, CheckError> {
        let outcomes = self.checker.settle(reader, table, suspects).await?;
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Match)) {
            self.checker.is_in_use(table).await?;
        }
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Mismatch(_))) {
            let names = table.plan.targets().iter().map(|target| &*target.table().name);
            if let Some(name) = self.checker.target.owned_by_another(&self.kafka.prefix, names).await? {
                return Err(CheckError::NotOwned(name));
            }
        }
        Ok(outcomes)
    }

    /// Writes MySQL's row at W₁'s version, and returns that version. The log has no change of the key after W₁; a
    /// later change has a higher version and wins.
    ///
    /// Returns `None` if Cassandra refuses the row. No repetition helps then.
    async fn repair(
        &self,
        table: &CheckedTable,
        confirmed: &Confirmed,
    ) -> Result<Option<Version>, CheckError> {
        let version = confirmed.lower.version;
        let repair = repair(&table.plan, confirmed.row.as_ref(), &confirmed.differences, version)?;
        match self.checker.target.write(repair).await {
            Ok(()) => {
                self.metrics.repairs.inc();
                Ok(Some(version))
            }
            Err(error) if error.retry() == Disposition::Refuse => {
                tracing::error!(table = %table.source().name, %error, "Cassandra refuses a repair");
                self.metrics.unrepairable.inc();
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Checks the rows of the events again in one batch, and repairs those whose mismatch is confirmed. Sets the state
    /// of each event whose outcome is known. The other events need another check.
    async fn resolve(&self, table: &CheckedTable, open: &mut [OpenMismatch]) -> Result<(), CheckError> {
        let mut reader = self.checker.mysql.reader().await?;
        let suspects: Vec<Suspect> = open.iter().map(|o| o.suspect.clone()).collect();
        let outcomes = self.settle(&mut reader, table, &suspects).await?;
        let (mut used, mut changing) = (None, false);
        for (OpenMismatch { event, repairs, put_aside, .. }, outcome) in open.iter_mut().zip(outcomes) {
            match outcome {
                Outcome::Match => {
                    event.state = MismatchState::Resolved;
                    event.detected_at_us = now_us();
                    self.metrics.resolved.inc();
                }
                Outcome::Mismatch(_) if *repairs == ATTEMPTS => {
                    tracing::error!(
                        table = event.table,
                        target = event.target,
                        attempts = ATTEMPTS,
                        "a mismatch could not be repaired: a cell there may carry a timestamp far in the future"
                    );
                    event.state = MismatchState::Unrepairable;
                    self.metrics.unrepairable.inc();
                }
                Outcome::Mismatch(confirmed) => {
                    let version = self.repair(table, &confirmed).await?;
                    *repairs += 1;
                    event.lower = confirmed.lower.version.0;
                    event.upper = confirmed.upper.version.0;
                    if version.is_none() {
                        event.state = MismatchState::Unrepairable;
                    }
                    used = used.max(version);
                }
                Outcome::PutAside => *put_aside = true,
                Outcome::Unmappable if self.is_put_aside(table, event) => *put_aside = true,
                Outcome::Unmappable => {
                    tracing::error!(
                        table = event.table,
                        target = event.target,
                        "a mismatch cannot be repaired: the mapping cannot convert MySQL's row"
                    );
                    event.state = MismatchState::Unrepairable;
                    self.metrics.unrepairable.inc();
                }
                // The key keeps changing. Its changes rewrite the row, but an extra row under another target key would
                // remain. It is checked again until the outcome is known.
                Outcome::Undecided => changing = true,
            }
        }
        if let Some(used) = used {
            self.later_watermark(used).await;
        } else if changing {
            tokio::time::sleep(HOT_KEY_PAUSE).await;
        }
        Ok(())
    }

    /// Whether a dead letter of the mismatch's row is open.
    fn is_put_aside(&self, table: &CheckedTable, event: &Mismatch) -> bool {
        self.checker.letters.is_open(&table.source().name, &event.source_key)
    }

    /// Waits for a watermark above `used`, so that the next repair has a newer version. Watermarks come at least once a
    /// second. If none comes, the next attempt reports why.
    async fn later_watermark(&self, used: Version) {
        let later = async {
            while self.checker.watermarks.newest().is_none_or(|w| w.version <= used) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // A timeout here is harmless: the check that follows has its own.
        let _ = tokio::time::timeout(Duration::from_secs(5), later).await;
    }
}

/// The attempts of a repair.
struct Retry<'a> {
    waits: &'a Waits,
    backoff: Backoff,
    trying: Trying,
}

impl<'a> Retry<'a> {
    fn new(waits: &'a Waits) -> Self {
        Self { waits, backoff: Backoff::new(BACKOFF.0, BACKOFF.1), trying: Trying::default() }
    }

    fn succeeded(&mut self) {
        self.backoff.reset();
        self.trying.succeeded();
    }

    /// Pauses after a transient error. Returns any other error.
    async fn pause_after(&mut self, error: CheckError) -> Result<(), CheckError> {
        match error.retry() {
            Disposition::Retry => {
                tracing::warn!(%error, "the repair is retried");
                let pause = self.backoff.next();
                self.trying.failed(self.waits, "repair", error.to_string(), pause);
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Disposition::Stop | Disposition::Refuse => Err(error),
        }
    }
}

/// A mismatch to repair.
struct OpenMismatch {
    event: Mismatch,
    suspect: Suspect,
    /// The repairs so far.
    repairs: usize,
    /// Whether a dead letter of the row is open.
    put_aside: bool,
    /// The offset of the event.
    offset: i64,
}

/// The found mismatches, by table, in the order of their events.
fn found_keys<'a>(
    records: &[&InRecord],
    by_name: &HashMap<String, &'a Arc<CheckedTable>>,
) -> Result<Vec<(&'a CheckedTable, Vec<OpenMismatch>)>, CheckError> {
    let mut found: BTreeMap<String, Vec<(i64, Mismatch)>> = BTreeMap::new();
    for record in records {
        let Some(value) = &record.value else { continue };
        let event: Mismatch = decode_control(value)?;
        if event.state == MismatchState::Found {
            found.entry(event.table.clone()).or_default().push((record.offset, event));
        }
    }
    let mut open = Vec::new();
    for (name, events) in found {
        let Some(table) = by_name.get(&name) else {
            tracing::warn!(table = name, "mismatches of a table that is no longer mapped are ignored");
            continue;
        };
        let of = |(offset, event): (i64, Mismatch)| {
            let target = table.plan.targets().iter().position(|t| t.table().name == event.target);
            let candidates = target.map(|t| (t, event.raw_target_key.clone())).into_iter().collect();
            let suspect = Suspect { key: table.key_values(&event.source_key)?, candidates };
            Ok(OpenMismatch { event, suspect, repairs: 0, put_aside: false, offset })
        };
        open.push((&***table, events.into_iter().map(of).collect::<Result<_, CheckError>>()?));
    }
    Ok(open)
}

/// The distinct rows of the failures, by table.
fn failed_keys<'a>(
    records: &[&InRecord],
    by_name: &HashMap<String, &'a Arc<CheckedTable>>,
) -> Result<Vec<(&'a CheckedTable, Vec<Suspect>)>, CheckError> {
    let mut keys: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for value in records.iter().filter_map(|record| record.value.as_deref()) {
        let failure: DualWriteFailure = decode_control(value)?;
        keys.entry(failure.table).or_default().insert(failure.source_key);
    }
    let mut failed = Vec::new();
    for (name, keys) in keys {
        let Some(table) = by_name.get(&name) else {
            tracing::warn!(
                table = name,
                "failed dual writes of a table that is no longer mapped are ignored"
            );
            continue;
        };
        let suspects =
            keys.iter().map(|key| Ok(Suspect { key: table.key_values(key)?, candidates: Vec::new() }));
        failed.push((&***table, suspects.collect::<Result<_, CheckError>>()?));
    }
    Ok(failed)
}
