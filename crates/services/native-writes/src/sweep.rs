//! The sweep: a pass over all guards of an epoch that settles and completes what is not.

use tandem_cassandra::TokenRange;
use tandem_model::Nonce;
use tandem_protocol::cutover::batch::Outcome;

use crate::complete::MayAct;
use crate::error::NativeWriteError;
use crate::key::GuardKey;
use crate::service::{NativeWrites, pauses};
use crate::settle::Rested;

/// The parts of the token ring that a sweep reads one after the other.
const PARTS: u32 = 16;

/// What a sweep has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// The guards there were.
    pub guards: u64,
    /// The guards whose write it completed.
    pub completed: u64,
    /// The guards whose batch it settled.
    pub settled: u64,
    /// The batches that had a row.
    pub batches: u64,
}

impl Swept {
    /// Whether there was nothing to do.
    pub fn is_clean(&self) -> bool {
        self.completed == 0 && self.settled == 0 && self.batches == 0
    }
}

impl NativeWrites {
    /// Completes every write of the epoch whose CAS was acknowledged before the sweep began. It waits for pending batches
    /// until their deadlines.
    ///
    /// It waits for Cassandra and Kafka as long as they are down: the caller bounds it.
    ///
    /// `may_act` is asked between reading a guard and writing: whether this process still leads, or its lease has not
    /// lapsed since the sweep began.
    ///
    /// # Errors
    /// [`NativeWriteError::MayNotAct`], or Cassandra or Kafka refuses something. What is not completed stays so: sweep again.
    pub async fn sweep(&self, may_act: &(dyn Fn() -> bool + Sync)) -> Result<Swept, NativeWriteError> {
        let mut swept = Swept::default();
        for part in TokenRange::WHOLE.split(PARTS) {
            let mut scan = self.guards().scan(part);
            while let Some(page) = scan.next_page(self.tables()).await? {
                let keys: Vec<GuardKey> = page.iter().map(|(key, _)| key.clone()).collect();
                let done = self.guards().done(&keys).await?;
                swept.guards += page.len() as u64;
                for ((key, guard), done) in page.into_iter().zip(done) {
                    if guard.tentative.is_some() || done < Some(guard.version) {
                        let Rested { completed, settled } = self.bring_to_rest(&key, may_act).await?;
                        swept.completed += u64::from(completed);
                        swept.settled += u64::from(settled);
                    }
                }
            }
        }
        let mut scan = self.batches().scan();
        while let Some(page) = scan.next_page().await? {
            for id in page {
                swept.batches += 1;
                self.sweep_batch(id, may_act).await?;
            }
        }
        Ok(swept)
    }

    /// Settles a batch whose maker may be gone, and removes its row.
    async fn sweep_batch(&self, id: Nonce, may_act: MayAct<'_>) -> Result<(), NativeWriteError> {
        let mut pauses = pauses();
        while let Some(batch) = self.batches().read(id).await? {
            if let Outcome::Pending { .. } = batch.outcome {
                self.abort_if_late(id, &batch, may_act).await?;
                pauses.pause().await;
                continue;
            }
            self.settle_all(id, &batch.rows, batch.outcome, may_act).await?;
            for row in &batch.rows {
                self.bring_to_rest(row, may_act).await?;
            }
            // The removal of its row may have been lost.
            pauses.pause().await;
        }
        Ok(())
    }
}
