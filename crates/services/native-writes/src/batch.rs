//! Batches: native writes of several rows that count together or not at all.
//!
//! A reader in between may see a part of a batch. Its commit point is one CAS on the row of the batch, after every guard
//! holds its write as tentative.

use std::time::Duration;

use futures::future::try_join_all;
use tandem_cassandra::{Freshness, Swap};
use tandem_model::{Nonce, Row, TableName, Value, Version};
use tandem_protocol::cutover::batch::{Outcome as Fate, commit_version, tentative};
use tandem_protocol::cutover::guard::{Guard, Known, NativeWrite, Next, Proposal, next};
use tandem_runtime::now_us;
use tokio::time::Instant;

use crate::batches::Batch;
use crate::complete::{MayAct, ask};
use crate::error::NativeWriteError;
use crate::guards::Answer;
use crate::key::GuardKey;
use crate::request::{Decision, Outcome, Request, Token, settled};
use crate::service::{Decided, NativeWrites, Patience, names, pauses};
use crate::tables::NativeTable;

/// How long a batch that has failed tries to free its rows.
const ABORT_WITHIN: Duration = Duration::from_secs(1);

/// A row of a batch under way.
struct Part<'a> {
    /// Its index in the caller's list.
    index: usize,
    table: &'a NativeTable,
    key: &'a [Value],
    guard_key: GuardKey,
}

/// An attempt of a batch under way.
struct OneBatch<'a> {
    writes: &'a NativeWrites,
    /// In the order of the keys, so that two batches do not wait for each other.
    parts: Vec<Part<'a>>,
    /// Names this attempt.
    id: Nonce,
    request: Request,
    may_act: MayAct<'a>,
    /// Whether the batch is committed, or may be.
    sent: bool,
    /// Whether an earlier attempt of the request was met.
    met: bool,
}

/// How the placing of a tentative write ended.
enum Placed<R> {
    /// The guard holds it.
    Holds(Guard),
    /// The caller refuses the batch.
    Refused(R),
    /// An earlier attempt of the request was committed.
    Happened(Token),
}

impl NativeWrites {
    /// Writes several rows, all of them or none.
    ///
    /// `decide` is given the index of a row and the row as it is, and may be asked several times for each. If it refuses one,
    /// nothing is written. When this returns, the effects of all writes are there.
    ///
    /// # Errors
    /// This attempt has done nothing, unless it is [`NativeWriteError::OutcomeUnknown`]. Dropping the future has an unknown
    /// outcome, too. Until the request's deadline, other writers of the rows may wait for it then.
    pub async fn write_batch<R>(
        &self,
        rows: &[(TableName, Vec<Value>)],
        request: Request,
        decide: impl FnMut(usize, Option<&Row>) -> Decision<R>,
    ) -> Result<Outcome<R>, NativeWriteError> {
        let mut parts = Vec::with_capacity(rows.len());
        for (index, (table, key)) in rows.iter().enumerate() {
            let table = self.table(&table.to_string())?;
            parts.push(Part { index, table, key, guard_key: table.guard_key(key)? });
        }
        parts.sort_by(|a, b| a.guard_key.cmp(&b.guard_key));
        if let Some(twice) = parts.windows(2).find(|pair| pair[0].guard_key == pair[1].guard_key) {
            return Err(NativeWriteError::NamedTwice { table: twice[0].table.name.clone() });
        }
        let began = self.lease().begin().ok_or(NativeWriteError::MayNotAct)?;
        let may_act = || began.may_go_on();
        let id = Nonce(rand::random());
        let request = Request { deadline: self.deadline(request), ..request };
        let mut batch =
            OneBatch { writes: self, parts, id, request, may_act: &may_act, sent: false, met: false };
        let outcome = tokio::time::timeout_at(request.deadline, batch.run(decide)).await;
        settled(outcome.unwrap_or(Err(NativeWriteError::Late)), batch.sent || batch.met)
    }
}

impl OneBatch<'_> {
    async fn run<R>(
        &mut self,
        mut decide: impl FnMut(usize, Option<&Row>) -> Decision<R>,
    ) -> Result<Outcome<R>, NativeWriteError> {
        let answered = self.writes.guards().answer(self.request.nonce).await?;
        self.met = answered.is_some();
        let batch = self.begin().await?;
        let outcome = self.carry_out(&batch, answered, &mut decide).await;
        if outcome.is_err() && !self.sent {
            // Writers of its rows need not wait for its deadline. If this fails, they do.
            let _ = tokio::time::timeout(ABORT_WITHIN, self.abort(&batch)).await;
        }
        outcome
    }

    async fn carry_out<R>(
        &mut self,
        batch: &Batch,
        answered: Option<Answer>,
        decide: &mut impl FnMut(usize, Option<&Row>) -> Decision<R>,
    ) -> Result<Outcome<R>, NativeWriteError> {
        let mut guards = Vec::with_capacity(self.parts.len());
        for part in 0..self.parts.len() {
            match self.place(part, answered, decide).await? {
                Placed::Holds(guard) => guards.push(guard),
                Placed::Refused(refusal) => {
                    self.abort(batch).await?;
                    return Ok(Outcome::Refused(refusal));
                }
                Placed::Happened(token) => {
                    self.abort(batch).await?;
                    self.rest().await?;
                    return Ok(Outcome::Written { token, replayed: true });
                }
            }
        }
        let version = self.commit(batch, &guards).await?;
        self.writes.settle_all(self.id, &batch.rows, Fate::Committed(version), self.may_act).await?;
        self.rest().await?;
        Ok(Outcome::Written { token: Token { epoch: self.writes.epoch(), version }, replayed: false })
    }

    /// Writes the row of the batch. No guard names the batch before that.
    async fn begin(&self) -> Result<Batch, NativeWriteError> {
        let left = self.request.deadline.saturating_duration_since(Instant::now());
        let deadline_us = now_us() + left.as_micros() as i64;
        let rows = self.parts.iter().map(|part| part.guard_key.clone()).collect();
        let batch = Batch { outcome: Fate::Pending { deadline_us }, deadline_us, rows };
        let mut pauses = pauses();
        loop {
            ask(self.may_act)?;
            match self.writes.batches().begin(self.id, &batch).await? {
                Swap::Applied => return Ok(batch),
                // The row is there if the answer to an earlier one of these was lost.
                Swap::Lost | Swap::Unknown { .. } => {
                    if self.writes.batches().read(self.id).await?.is_some() {
                        return Ok(batch);
                    }
                    pauses.pause().await;
                }
            }
        }
    }

    /// Makes the guard of the row with this number hold its write as tentative.
    async fn place<R>(
        &mut self,
        part: usize,
        answered: Option<Answer>,
        decide: &mut impl FnMut(usize, Option<&Row>) -> Decision<R>,
    ) -> Result<Placed<R>, NativeWriteError> {
        let (writes, part) = (self.writes, &self.parts[part]);
        let (table, key) = (part.table, &part.guard_key);
        let mut patience = Patience::default();
        let mut pauses = pauses();
        // The CASes whose answers were lost.
        let mut lost: Vec<Nonce> = Vec::new();
        loop {
            let freshness = if lost.is_empty() { Freshness::Acknowledged } else { Freshness::Serial };
            let (guard, done) = writes.look(table, key, freshness).await?;
            let is_of_this_attempt =
                |guard: &Guard| guard.tentative.as_ref().is_some_and(|tentative| tentative.batch == self.id);
            self.met |= guard
                .as_ref()
                .is_some_and(|guard| names(guard, self.request.nonce) && !is_of_this_attempt(guard));
            match next(guard.as_ref(), done, answered.is_some(), self.request.nonce) {
                Next::Settle(batch) => {
                    if let Some(guard) = guard.filter(|guard| lost.contains(&guard.nonce)) {
                        return Ok(Placed::Holds(guard));
                    }
                    if !writes.settle(batch, key, self.may_act).await? {
                        pauses.pause().await;
                    }
                }
                Next::Complete(version) => {
                    let Some(guard) = guard else { continue };
                    if patience.is_over(version, writes.patience()) {
                        writes.complete(table, key, &guard, self.may_act).await?;
                    } else {
                        pauses.pause().await;
                    }
                }
                Next::Happened(version) => {
                    return Ok(Placed::Happened(Token { epoch: writes.epoch(), version }));
                }
                Next::Answered => {
                    let Some(Answer { epoch, version }) = answered else { continue };
                    return Ok(Placed::Happened(Token { epoch, version }));
                }
                Next::Propose => {
                    let decide = |row: Option<&Row>| decide(part.index, row);
                    let decided = writes.decided(table, part.key, key, guard.as_ref(), decide).await?;
                    let proposal = match decided {
                        Decided::Becomes { base, image } => {
                            self.propose(part, guard.as_ref(), base.as_ref(), image)?
                        }
                        Decided::Refused(refusal) => return Ok(Placed::Refused(refusal)),
                        Decided::LookAgain => continue,
                    };
                    ask(self.may_act)?;
                    match writes.guards().swap(table, key, proposal.expected, &proposal.guard).await? {
                        Swap::Applied => return Ok(Placed::Holds(proposal.guard)),
                        Swap::Lost => {}
                        // If it arrives later than this attempt looks, whoever meets it asks the batch.
                        Swap::Unknown { .. } => lost.push(proposal.guard.nonce),
                    }
                    pauses.pause().await;
                }
            }
        }
    }

    /// The guard that holds `image` as the row's tentative write.
    fn propose(
        &self,
        part: &Part<'_>,
        guard: Option<&Guard>,
        base: Option<&Row>,
        image: Option<Row>,
    ) -> Result<Proposal, NativeWriteError> {
        let known = guard.map_or(Known::Base(base), Known::Guard);
        let write = NativeWrite { nonce: self.request.nonce, image, extra: Vec::new(), above: None };
        let cas = Nonce(rand::random());
        Ok(tentative(&part.table.plan, known, write, self.id, cas, self.writes.limits())?)
    }

    /// Commits the batch. Returns the version of its writes.
    async fn commit(&mut self, batch: &Batch, guards: &[Guard]) -> Result<Version, NativeWriteError> {
        let version = commit_version(guards, self.writes.limits());
        let mut pauses = pauses();
        loop {
            ask(self.may_act)?;
            let earlier = std::mem::replace(&mut self.sent, true);
            match self.writes.batches().decide(self.id, batch, Fate::Committed(version)).await {
                Ok(Swap::Applied) => return Ok(version),
                // Its deadline has passed by another's clock, and it was aborted: unless an earlier CAS has arrived.
                Ok(Swap::Lost) => {
                    let committed = if earlier { self.committed_version().await? } else { None };
                    self.sent = committed.is_some();
                    return committed.ok_or(NativeWriteError::Late);
                }
                Ok(Swap::Unknown { .. }) => pauses.pause().await,
                Err(error) => {
                    self.sent = earlier;
                    return Err(error);
                }
            }
        }
    }

    /// The version with which the request was committed, after a CAS found its batch decided.
    async fn committed_version(&self) -> Result<Option<Version>, NativeWriteError> {
        if let Some(row) = self.writes.batches().read(self.id).await? {
            return Ok(match row.outcome {
                Fate::Committed(version) => Some(version),
                Fate::Pending { .. } | Fate::Aborted => None,
            });
        }
        // Others have settled it and removed its row. If it was committed, its guards know the request.
        let Some(part) = self.parts.first() else { return Ok(None) };
        let guard = self.writes.guards().read(part.table, &part.guard_key, Freshness::Acknowledged).await?;
        let recent = guard.map_or(Vec::new(), |guard| guard.recent);
        Ok(recent.iter().find(|known| known.nonce == self.request.nonce).map(|known| known.version))
    }

    /// Aborts the batch, which nobody else can commit, and takes its guards back.
    async fn abort(&self, batch: &Batch) -> Result<(), NativeWriteError> {
        let mut pauses = pauses();
        loop {
            ask(self.may_act)?;
            match self.writes.batches().decide(self.id, batch, Fate::Aborted).await? {
                Swap::Applied => break,
                // Others have decided it, or have settled it and removed its row.
                Swap::Lost => match self.writes.batches().read(self.id).await?.map(|row| row.outcome) {
                    None => return Ok(()),
                    Some(Fate::Aborted) => break,
                    Some(fate @ Fate::Committed(_)) => {
                        return self.writes.settle_all(self.id, &batch.rows, fate, self.may_act).await;
                    }
                    Some(Fate::Pending { .. }) => {}
                },
                Swap::Unknown { .. } => {}
            }
            pauses.pause().await;
        }
        self.writes.settle_all(self.id, &batch.rows, Fate::Aborted, self.may_act).await
    }

    /// Completes the writes of all rows.
    async fn rest(&self) -> Result<(), NativeWriteError> {
        let rest = self.parts.iter().map(|part| self.writes.bring_to_rest(&part.guard_key, self.may_act));
        try_join_all(rest).await.map(drop)
    }
}
