//! Settling batches, and bringing keys to rest. Whoever meets a batch does the same.

use tandem_cassandra::{Freshness, Swap};
use tandem_model::Nonce;
use tandem_protocol::cutover::batch::{Outcome, Settle, settle, settled};
use tandem_protocol::cutover::guard::{Next, next};
use tandem_runtime::now_us;

use crate::batches::Batch;
use crate::complete::{MayAct, ask};
use crate::error::NativeWriteError;
use crate::key::GuardKey;
use crate::service::{NativeWrites, pauses};

/// What was done to bring a key to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rested {
    /// Whether its write was completed.
    pub(crate) completed: bool,
    /// Whether its batch was settled.
    pub(crate) settled: bool,
}

impl NativeWrites {
    /// Takes one step to settle the batch that the guard of `met` names. Returns whether it is settled for this guard;
    /// otherwise the caller looks again, after a pause.
    pub(crate) async fn settle(
        &self,
        batch: Nonce,
        met: &GuardKey,
        may_act: MayAct<'_>,
    ) -> Result<bool, NativeWriteError> {
        let row = self.batches().read(batch).await?;
        let outcome = match settle(row.as_ref().map(|row| row.outcome), now_us()) {
            Settle::Wait | Settle::Abort => {
                if let Some(row) = &row {
                    self.abort_if_late(batch, row, may_act).await?;
                }
                return Ok(false);
            }
            Settle::Forward(version) => Outcome::Committed(version),
            Settle::Back => Outcome::Aborted,
        };
        match row {
            Some(row) => self.settle_all(batch, &row.rows, outcome, may_act).await?,
            None => self.settle_guard(batch, met, outcome, may_act).await?,
        }
        Ok(true)
    }

    /// Aborts a pending batch if its deadline has passed.
    pub(crate) async fn abort_if_late(
        &self,
        id: Nonce,
        batch: &Batch,
        may_act: MayAct<'_>,
    ) -> Result<(), NativeWriteError> {
        if settle(Some(batch.outcome), now_us()) == Settle::Abort {
            ask(may_act)?;
            self.batches().decide(id, batch, Outcome::Aborted).await?;
        }
        Ok(())
    }

    /// Makes the guards of all rows of a batch what the batch has decided, and removes the batch's row after that.
    pub(crate) async fn settle_all(
        &self,
        batch: Nonce,
        rows: &[GuardKey],
        outcome: Outcome,
        may_act: MayAct<'_>,
    ) -> Result<(), NativeWriteError> {
        for row in rows {
            self.settle_guard(batch, row, outcome, may_act).await?;
        }
        ask(may_act)?;
        // If it is not removed, the next sweep does it.
        self.batches().remove(batch, outcome).await?;
        Ok(())
    }

    /// Makes a guard what its batch has decided, unless it names that batch no more.
    async fn settle_guard(
        &self,
        batch: Nonce,
        key: &GuardKey,
        outcome: Outcome,
        may_act: MayAct<'_>,
    ) -> Result<(), NativeWriteError> {
        let table = self.table(&key.table)?;
        let mut pauses = pauses();
        let mut freshness = Freshness::Acknowledged;
        loop {
            let Some(guard) = self.guards().read(table, key, freshness).await? else { return Ok(()) };
            let Some(proposal) = settled(&guard, batch, outcome, Nonce(rand::random())) else {
                return Ok(());
            };
            ask(may_act)?;
            match self.guards().swap(table, key, proposal.expected, &proposal.guard).await? {
                Swap::Applied => return Ok(()),
                Swap::Lost => {}
                // If it arrives after all, it compares a nonce that is gone by then, or does what is wanted.
                Swap::Unknown { .. } => freshness = Freshness::Serial,
            }
            pauses.pause().await;
        }
    }

    /// Settles and completes what the guard of a key holds, without patience. What other writers set meanwhile is theirs:
    /// what was before it is complete.
    pub(crate) async fn bring_to_rest(
        &self,
        key: &GuardKey,
        may_act: MayAct<'_>,
    ) -> Result<Rested, NativeWriteError> {
        let table = self.table(&key.table)?;
        let nobody = Nonce(rand::random());
        let mut pauses = pauses();
        let mut rested = Rested::default();
        let mut first = None;
        loop {
            let (guard, done) = self.look(table, key, Freshness::Acknowledged).await?;
            match (next(guard.as_ref(), done, false, nobody), guard) {
                (Next::Settle(batch), _) if *first.get_or_insert(batch) == batch => {
                    if self.settle(batch, key, may_act).await? {
                        rested.settled = true;
                    } else {
                        pauses.pause().await;
                    }
                }
                (Next::Complete(_), Some(guard)) => {
                    self.complete(table, key, &guard, may_act).await?;
                    rested.completed = true;
                    return Ok(rested);
                }
                _ => return Ok(rested),
            }
        }
    }
}
