//! The verification of tables that were replayed or copied again.
//!
//! Such a table is read from MySQL until a scan of all its rows, in both stores, finds no difference. Then it is live. What
//! the scan finds, rows that vanished from MySQL among it, is on the mismatch topic, and reconcile repairs it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tandem_kafka::Producer;
use tandem_model::Disposition;
use tandem_protocol::table_state::{is_rewritten, rebuild, verified};
use tandem_row_check::{CheckError, CheckedTable};
use tandem_runtime::{Backoff, now_us};
use tandem_table_states::{TableStatesError, change};
use tandem_wire::control::{BackfillProgress, TableCondition};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::scan::Scan;

/// How often the copies of tables that wait for one are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The first and the longest pause before a table is verified again that was not equal.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Reads how far the copies are that count, by `database.table`.
pub trait CopyProgress: Send + Sync {
    /// Reads the progress.
    fn read(&self) -> impl Future<Output = Result<HashMap<String, BackfillProgress>, CheckError>> + Send;
}

/// Verifies the tables that wait for it.
pub struct TableVerifier<P> {
    /// The scan, with all mapped tables.
    pub scan: Scan,
    /// How far the copies are.
    pub progress: P,
}

/// A table that was verified and was not equal.
struct Unequal {
    incarnation: i64,
    next: Instant,
    backoff: Backoff,
}

impl<P: CopyProgress> TableVerifier<P> {
    /// Verifies tables until `stop`.
    ///
    /// # Errors
    /// The states of tables are no longer followed, or a table cannot be verified for a reason that a repetition does not
    /// remove.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), CheckError> {
        tokio::select! {
            outcome = self.verify_all() => outcome,
            () = stop.cancelled() => Ok(()),
        }
    }

    async fn verify_all(&self) -> Result<(), CheckError> {
        let states = &self.scan.checker.states;
        let producer = Producer::start(&self.scan.kafka).await?;
        let mut unequal: HashMap<String, Unequal> = HashMap::new();
        loop {
            let known = states.now()?;
            let mut waiting = Vec::new();
            for table in &self.scan.tables {
                let state = known.get(&table.source().name);
                if let Some(state) = state.filter(|s| s.condition == TableCondition::Verifying) {
                    waiting.push((table, state.incarnation));
                }
            }
            if waiting.is_empty() {
                unequal.clear();
                states.other_than(&known).await?;
                continue;
            }
            let copies = self.progress.read().await?;
            for (table, incarnation) in waiting {
                let name = table.source().name.to_string();
                let Some(copy) = copies.get(&name).filter(|copy| copy.done) else { continue };
                let due = unequal
                    .get(&name)
                    .is_none_or(|last| last.incarnation != incarnation || last.next <= Instant::now());
                if !due {
                    continue;
                }
                let equal = match self.verify(table, copy, incarnation, &producer).await {
                    Ok(equal) => equal,
                    Err(error) if error.retry() == Disposition::Retry => {
                        tracing::warn!(table = name, %error, "the table is verified again");
                        false
                    }
                    Err(error) => return Err(error),
                };
                if equal {
                    unequal.remove(&name);
                    continue;
                }
                let last = unequal.entry(name).or_insert_with(|| Unequal {
                    incarnation,
                    next: Instant::now(),
                    backoff: Backoff::new(PAUSE.0, PAUSE.1),
                });
                if last.incarnation != incarnation {
                    (last.incarnation, last.backoff) = (incarnation, Backoff::new(PAUSE.0, PAUSE.1));
                }
                last.next = Instant::now() + last.backoff.next();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for a watermark that covers what MySQL has executed by now. A statement that changes rows without row changes is
    /// known from the state of its table before it is on the log, and so are the changes before it: a check that borrows
    /// an older watermark proves nothing about them.
    async fn reach_now(&self) -> Result<(), CheckError> {
        let executed = self.scan.checker.mysql.reader().await?.executed().await?;
        self.scan.checker.watermarks.until_containing(&executed).await?;
        Ok(())
    }

    /// Has a table copied again. A statement has changed rows so that the mapping cannot convert them any more. No change of
    /// these rows says so: the copy makes them dead letters.
    async fn copy_again(
        &self,
        table: &Arc<CheckedTable>,
        incarnation: i64,
        rows: u64,
    ) -> Result<bool, CheckError> {
        let name = &table.source().name;
        let cause = format!("a statement has changed {rows} rows so that the mapping cannot convert them");
        let newest = self.scan.checker.watermarks.newest().map_or(0, |watermark| watermark.version.0);
        change(&self.scan.kafka, |states| {
            let state = states.get(name).filter(|state| state.incarnation == incarnation);
            Ok::<_, TableStatesError>(
                state.map(|state| rebuild(Some(state), name, newest, "verify", &cause, now_us())),
            )
        })
        .await?;
        self.scan.checker.states.up_to_now().await?;
        Ok(false)
    }

    /// Verifies a table. If it is equal, it is live from now on.
    async fn verify(
        &self,
        table: &Arc<CheckedTable>,
        copy: &BackfillProgress,
        incarnation: i64,
        producer: &Producer,
    ) -> Result<bool, CheckError> {
        let name = &table.source().name;
        let topic = self.scan.kafka.topics().backfill(name);
        self.reach_now().await?;
        let report = self.scan.table(table, copy, &topic, producer, &mut |_| {}).await?;
        if report.halted || report.mismatches > 0 || report.undecided > 0 {
            tracing::warn!(
                table = %name, mismatches = report.mismatches, undecided = report.undecided,
                "the table is not equal yet: reconcile repairs it, then it is verified again"
            );
            return Ok(false);
        }
        self.scan.checker.is_in_use(table).await?;
        if report.unmappable > 0 && self.scan.checker.states.now()?.get(name).is_some_and(is_rewritten) {
            return self.copy_again(table, incarnation, report.unmappable).await;
        }
        change(&self.scan.kafka, |states| {
            Ok::<_, TableStatesError>(verified(states.get(name), incarnation, "verify", now_us()))
        })
        .await?;
        self.scan.checker.states.up_to_now().await?;
        Ok(true)
    }
}
