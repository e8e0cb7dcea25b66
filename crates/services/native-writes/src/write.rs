//! The native write of one row.

use tandem_cassandra::{Freshness, Swap};
use tandem_model::{Nonce, Row, TableName, Value};
use tandem_protocol::cutover::guard::{Guard, Known, NativeWrite, Next, Proposal, next, propose};

use crate::complete::MayAct;
use crate::error::NativeWriteError;
use crate::key::GuardKey;
use crate::request::{Decision, Outcome, Request, Token, settled};
use crate::service::{Decided, NativeWrites, Patience, names, pauses};
use crate::tables::NativeTable;

impl NativeWrites {
    /// Writes one row.
    ///
    /// `decide` is given the row as it is, and may be asked several times: another write may come between its answer and
    /// the commit. It decides by the row alone.
    ///
    /// When this returns, the effects of the write are there, and so are those of every write that a refusal rests on.
    ///
    /// # Errors
    /// This attempt has done nothing, unless it is [`NativeWriteError::OutcomeUnknown`]. Dropping the future has an unknown
    /// outcome, too.
    pub async fn write<R>(
        &self,
        table: &TableName,
        key: &[Value],
        request: Request,
        decide: impl FnMut(Option<&Row>) -> Decision<R>,
    ) -> Result<Outcome<R>, NativeWriteError> {
        let table = self.table(&table.to_string())?;
        let began = self.lease().begin().ok_or(NativeWriteError::MayNotAct)?;
        let may_act = || began.may_go_on();
        let mut write = OneWrite {
            writes: self,
            table,
            key,
            guard_key: table.guard_key(key)?,
            request: request.nonce,
            may_act: &may_act,
            sent: false,
            met: false,
        };
        let outcome = tokio::time::timeout_at(self.deadline(request), write.run(decide)).await;
        settled(outcome.unwrap_or(Err(NativeWriteError::Late)), write.sent || write.met)
    }
}

/// One native write under way.
struct OneWrite<'a> {
    writes: &'a NativeWrites,
    table: &'a NativeTable,
    key: &'a [Value],
    guard_key: GuardKey,
    request: Nonce,
    may_act: MayAct<'a>,
    /// Whether a CAS was applied, or may be: its answer is awaited, or was lost.
    sent: bool,
    /// Whether an earlier attempt of the request was met.
    met: bool,
}

impl OneWrite<'_> {
    async fn run<R>(
        &mut self,
        mut decide: impl FnMut(Option<&Row>) -> Decision<R>,
    ) -> Result<Outcome<R>, NativeWriteError> {
        let writes = self.writes;
        let answered = writes.guards().answer(self.request).await?;
        self.met = answered.is_some();
        let mut patience = Patience::default();
        let mut pauses = pauses();
        // A CAS whose answer was lost. While its guard stands, it may still arrive.
        let mut lost: Option<Proposal> = None;
        loop {
            let freshness = if lost.is_some() { Freshness::Serial } else { Freshness::Acknowledged };
            let (guard, done) = writes.look(self.table, &self.guard_key, freshness).await?;
            self.met |= guard.as_ref().is_some_and(|guard| names(guard, self.request));
            match next(guard.as_ref(), done, answered.is_some(), self.request) {
                Next::Settle(batch) => {
                    if !writes.settle(batch, &self.guard_key, self.may_act).await? {
                        pauses.pause().await;
                    }
                }
                Next::Complete(version) => {
                    let Some(guard) = guard else { continue };
                    if guard.nonce == self.request || patience.is_over(version, writes.patience()) {
                        writes.complete(self.table, &self.guard_key, &guard, self.may_act).await?;
                    } else {
                        pauses.pause().await;
                    }
                }
                Next::Happened(version) => {
                    let token = Token { epoch: writes.epoch(), version };
                    return Ok(Outcome::Written { token, replayed: !self.sent });
                }
                Next::Answered => {
                    let Some(answer) = answered else { continue };
                    let token = Token { epoch: answer.epoch, version: answer.version };
                    return Ok(Outcome::Written { token, replayed: true });
                }
                Next::Propose => {
                    let stands = |sent: &Proposal| sent.expected == guard.as_ref().map(|guard| guard.nonce);
                    let proposal = match lost.take().filter(stands) {
                        Some(sent) => sent,
                        None => match self.decide(guard.as_ref(), &mut decide).await? {
                            Decided::Becomes { base, image } => {
                                self.propose(guard.as_ref(), base.as_ref(), image)?
                            }
                            Decided::Refused(refusal) => return Ok(Outcome::Refused(refusal)),
                            Decided::LookAgain => continue,
                        },
                    };
                    // Until its outcome is known.
                    let earlier = std::mem::replace(&mut self.sent, true);
                    let (expected, guard) = (proposal.expected, &proposal.guard);
                    match writes.guards().swap(self.table, &self.guard_key, expected, guard).await {
                        Ok(Swap::Applied) => {
                            let done = writes.complete(self.table, &self.guard_key, guard, self.may_act);
                            let token = Token { epoch: writes.epoch(), version: done.await? };
                            return Ok(Outcome::Written { token, replayed: false });
                        }
                        Ok(Swap::Lost) => {
                            self.sent = earlier;
                            pauses.pause().await;
                        }
                        Err(error) => {
                            self.sent = earlier;
                            return Err(error);
                        }
                        Ok(Swap::Unknown { cause }) => {
                            tracing::debug!(table = self.table.name, cause, "the answer of a CAS was lost");
                            lost = Some(proposal);
                            pauses.pause().await;
                        }
                    }
                }
            }
        }
    }

    /// Asks what the row becomes.
    async fn decide<R>(
        &self,
        guard: Option<&Guard>,
        decide: &mut impl FnMut(Option<&Row>) -> Decision<R>,
    ) -> Result<Decided<R>, NativeWriteError> {
        self.writes.decided(self.table, self.key, &self.guard_key, guard, decide).await
    }

    /// The guard that makes the row `image`.
    fn propose(
        &self,
        guard: Option<&Guard>,
        base: Option<&Row>,
        image: Option<Row>,
    ) -> Result<Proposal, NativeWriteError> {
        let known = guard.map_or(Known::Base(base), Known::Guard);
        let write = NativeWrite { nonce: self.request, image, extra: Vec::new(), above: None };
        Ok(propose(&self.table.plan, known, write, self.writes.limits())?)
    }
}
