//! Streaming verification: the rows that change, seconds behind apply.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tandem_kafka::{KafkaConfig, Producer, SchemaStore};
use tandem_model::{Disposition, TableName};
use tandem_mysql::Reader;
use tandem_protocol::table_state::is_checked;
use tandem_row_check::{CheckError, CheckedTable, Checker};
use tandem_runtime::{Backoff, Trying};
use tandem_wire::control::FoundBy;
use tandem_wire::log::InRecord;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::pending::Pending;

/// Keys that may wait at once, over all live tables. More are left out, counted, and left to the next
/// full verification.
const ROOM: usize = 500_000;

/// Keys of one table that is not live that may wait at once, until its own verification is done.
const ROOM_OF_ONE: usize = 50_000;

/// Keys checked together.
const BATCH: usize = 500;

/// First and longest pause after an error that may pass.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Checks every key that changes. It begins with the changes after the watermark from which its
/// tracker started: what changed while nobody verified is checked by the next full verification.
pub struct Stream {
    /// Checks.
    pub checker: Checker,
    /// The mapped tables.
    pub tables: Vec<Arc<CheckedTable>>,
    /// Where schemas are looked up.
    pub schemas: SchemaStore,
    /// The log.
    pub kafka: KafkaConfig,
    /// What is counted.
    pub metrics: Metrics,
}

/// What the task that takes changes in and the one that checks them share.
struct Shared {
    pending: Mutex<Vec<Pending>>,
    more: Notify,
}

impl Stream {
    /// Checks changed keys, as the checker's tracker feeds them, until `stop`.
    pub async fn run(
        &self,
        feed: mpsc::Receiver<Vec<InRecord>>,
        stop: CancellationToken,
    ) -> Result<(), CheckError> {
        let shared = Shared {
            pending: Mutex::new(self.tables.iter().map(|_| Pending::default()).collect()),
            more: Notify::new(),
        };
        tokio::select! {
            ended = self.take_in(feed, &shared) => ended,
            ended = self.check_all(&shared) => ended,
            () = stop.cancelled() => Ok(()),
        }
    }

    /// Decodes changes into pending keys, with the target keys that their images name.
    async fn take_in(
        &self,
        mut feed: mpsc::Receiver<Vec<InRecord>>,
        shared: &Shared,
    ) -> Result<(), CheckError> {
        let by_name: HashMap<&TableName, usize> =
            self.tables.iter().enumerate().map(|(i, t)| (&t.source().name, i)).collect();
        while let Some(records) = feed.recv().await {
            for record in records {
                let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
                let id = tandem_wire::schema_id(value)?;
                let schema = self.schemas.get(id).await?;
                let name = &schema.table().name;
                let Some(&number) = by_name.get(name) else { continue };
                let states = self.checker.states.now()?;
                // What is not applied is not checked. A table that resumes is verified as a whole.
                if !is_checked(states.get(name)) {
                    continue;
                }
                let change = schema.decode(value)?;
                let plan = &self.tables[number].plan;
                let images = [&change.before, &change.after];
                let mut targets = Vec::new();
                for image in images.into_iter().flatten() {
                    targets.extend(plan.possible_keys_under(schema.table(), image));
                }
                let mut pending = lock(&shared.pending);
                let room = if states.is_live(name) {
                    let live = |n: &usize| states.is_live(&self.tables[*n].source().name);
                    (0..pending.len()).filter(live).map(|n| pending[n].len()).sum::<usize>() < ROOM
                } else {
                    pending[number].len() < ROOM_OF_ONE
                };
                let source_key = change.table.key_of(change.image());
                if !pending[number].add(key, source_key, targets.into_iter(), room) {
                    self.metrics.skipped.inc();
                }
            }
            shared.more.notify_one();
        }
        // Only a tracker that has ended closes the feed. Waiting for the next check to meet its error
        // would be a silent stall where nothing is left to check.
        Err(self.checker.tracker.failure().await.into())
    }

    async fn check_all(&self, shared: &Shared) -> Result<(), CheckError> {
        let producer = Producer::start(&self.kafka).await?;
        let mut reader: Option<Reader> = None;
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let trying = Trying::default();
        // Tables take turns, so that none waits for ever behind one that changes faster than it is checked.
        let mut turn = 0;
        loop {
            let states = self.checker.states.now()?;
            let work = {
                let mut pending = lock(&shared.pending);
                let left: usize = pending.iter().map(Pending::len).sum();
                self.metrics.pending.set(left as i64);
                let count = self.tables.len();
                // The keys of a table that is not live wait until it is.
                let live = |n: &usize| states.is_live(&self.tables[*n].source().name);
                (turn..turn + count).map(|n| n % count).filter(live).find_map(|n| {
                    let suspects = pending[n].take(BATCH);
                    turn = n + 1;
                    (!suspects.is_empty()).then(|| (Arc::clone(&self.tables[n]), suspects))
                })
            };
            let Some((table, suspects)) = work else {
                tokio::select! {
                    () = shared.more.notified() => {}
                    changed = self.checker.states.other_than(&states) => drop(changed?),
                }
                continue;
            };
            loop {
                let checked = async {
                    let mut connected = match reader.take() {
                        Some(reader) => reader,
                        None => self.checker.mysql.reader().await?,
                    };
                    let outcomes = self.checker.settle(&mut connected, &table, &suspects).await?;
                    // If it is copied again by now, its own verification says what is wrong.
                    if !self.checker.states.now()?.is_live(&table.source().name) {
                        return Ok(connected);
                    }
                    let checked = suspects.iter().zip(&outcomes);
                    let checked = checked.map(|(suspect, outcome)| (suspect, outcome, FoundBy::Verification));
                    self.checker.publish_mismatches(&self.kafka, &producer, &table, checked).await?;
                    Ok::<_, CheckError>(connected)
                };
                let error = match checked.await {
                    Ok(connected) => {
                        reader = Some(connected);
                        backoff.reset();
                        trying.succeeded();
                        break;
                    }
                    Err(error) => error,
                };
                match error.retry() {
                    Disposition::Retry => {
                        tracing::warn!(%error, "streaming verification pauses and checks these keys again");
                        let pause = backoff.next();
                        trying.failed(&self.metrics.waits, "verification", error.to_string(), pause);
                        tokio::time::sleep(pause).await;
                    }
                    Disposition::Stop | Disposition::Refuse => return Err(error),
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
