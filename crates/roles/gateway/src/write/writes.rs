//! Writes: one MySQL transaction, then Cassandra if the phase asks for it.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tandem_http_api::Problem;
use tandem_model::{PhaseRecord, TableName, Version};
use tandem_mysql::{ClientPool, ClientTransaction, Commit, MysqlError};
use tandem_protocol::dual_write::{RowChange, plan_secondary_writes};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::problem::{self, OfField as _};
use crate::write::change::{Change, Done, Refused};
use crate::write::secondary::{EntityWrite, SecondaryWriter};
use crate::write_tokens::WriteToken;

/// Attempts of a transaction that a deadlock or a certification conflict rolls back.
const ATTEMPTS: usize = 4;

/// An idempotency key and its request, hashed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    /// The hash of the caller and its key.
    pub(crate) id: [u8; 32],
    /// The hash of the request.
    pub(crate) request: [u8; 32],
}

/// The response of a write, in the form that is stored under its idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) body: Option<String>,
}

/// A committed write.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) reply: Reply,
    /// The value of `Tandem-Token`.
    pub(crate) token: String,
    /// Whether this is the stored response of an earlier request with the same idempotency key.
    pub(crate) replayed: bool,
}

/// Builds the reply from the executed changes.
pub(crate) type Answering = fn(&[Done]) -> Reply;

/// Serves writes.
pub(crate) struct Writes {
    pub(crate) pool: ClientPool,
    pub(crate) secondary: SecondaryWriter,
    pub(crate) metrics: Metrics,
    /// The table that stores replies by idempotency key.
    pub(crate) idempotency_table: Option<TableName>,
}

impl Writes {
    /// Executes the changes in one transaction and commits it.
    pub(crate) async fn write(
        &self,
        record: &PhaseRecord,
        operation: &'static str,
        changes: &[Change],
        claim: Option<Claim>,
        answering: Answering,
        deadline: Instant,
    ) -> Result<Written, Problem> {
        let begun = Instant::now();
        let mut attempt = 1;
        loop {
            let outcome = self.attempt(record, changes, claim, answering, deadline).await;
            let outcome = match outcome {
                Err(Refused::Again(_)) if attempt < ATTEMPTS && Instant::now() < deadline => {
                    attempt += 1;
                    continue;
                }
                Err(Refused::Again(problem) | Refused::Final(problem)) => Err(problem),
                Ok(done) => Ok(done),
            };
            let label = match &outcome {
                Ok(_) => "ok",
                Err(problem) if problem.kind == problem::COMMIT_UNKNOWN => "unknown",
                Err(problem) if problem.status.is_client_error() => "refused",
                Err(_) => "failed",
            };
            self.metrics.store_request(operation, "mysql", label, begun.elapsed());
            let is_blind = changes.iter().any(|change| change.blind);
            let (mut written, writes) = outcome.map_err(|problem| hidden(problem, is_blind))?;
            if !writes.is_empty() {
                self.secondary.write(writes, written.token.clone(), record.dual_write).await;
            }
            if is_blind {
                // The transaction's own GTID would tell that there was a row to change.
                written.token = WriteToken::text_of(self.pool.visible(deadline).await.ok().as_ref());
            }
            return Ok(written);
        }
    }

    /// Runs one transaction. It returns the writes for Cassandra only if the commit is known to have succeeded.
    async fn attempt(
        &self,
        record: &PhaseRecord,
        changes: &[Change],
        claim: Option<Claim>,
        answering: Answering,
        deadline: Instant,
    ) -> Result<(Written, Vec<EntityWrite>), Refused> {
        let mut transaction = self.begin(deadline).await?;
        let prepared = self.prepare(&mut transaction, record, changes, claim, answering, deadline).await;
        let (reply, writes) = match prepared {
            Ok(Prepared::Done(reply, writes)) => (reply, writes),
            Ok(Prepared::Replayed(reply)) => {
                transaction.rollback().await;
                // What the earlier request wrote was visible to this one.
                let token = self.pool.visible(deadline).await;
                let token = WriteToken::text_of(token.ok().as_ref());
                return Ok((Written { reply, token, replayed: true }, Vec::new()));
            }
            Err(refused) => {
                transaction.rollback().await;
                return Err(refused);
            }
        };
        if Instant::now() >= deadline {
            transaction.rollback().await;
            return Err(problem::late().into());
        }
        match transaction.commit().await {
            Commit::Committed(gtids) => {
                let token = WriteToken::text_of(gtids.as_ref());
                Ok((Written { reply, token, replayed: false }, writes))
            }
            Commit::Failed(error) => {
                let problem = problem::from_mysql(&error, false);
                // 3101: a certification conflict of group replication. Nothing was committed.
                let again = matches!(error, MysqlError::Server { code: 1213 | 3101, .. });
                Err(if again { Refused::Again(problem) } else { Refused::Final(problem) })
            }
            Commit::Unknown(error) => {
                tracing::warn!(%error, "the outcome of a commit is unknown; the change log brings its rows to Cassandra");
                Err(problem::commit_unknown(&error.to_string()).into())
            }
        }
    }

    /// Begins a transaction. An idle connection may be dead; nothing has been executed yet, so this tries another
    /// one.
    async fn begin(&self, deadline: Instant) -> Result<ClientTransaction, Refused> {
        let begun = match self.pool.begin(deadline).await {
            Err(MysqlError::Lost { .. }) if Instant::now() < deadline => self.pool.begin(deadline).await,
            begun => begun,
        };
        begun.map_err(|e| problem::from_mysql(&e, Instant::now() >= deadline).into())
    }

    /// Does everything but the COMMIT.
    async fn prepare(
        &self,
        transaction: &mut ClientTransaction,
        record: &PhaseRecord,
        changes: &[Change],
        claim: Option<Claim>,
        answering: Answering,
        deadline: Instant,
    ) -> Result<Prepared, Refused> {
        let from_mysql = |e: &_| Refused::by_mysql(e, Instant::now() >= deadline);
        let kept_in = self.idempotency_table.as_ref();
        if let (Some(claim), Some(table)) = (claim, kept_in) {
            let known = transaction.claim(table, &claim.id, &claim.request).await;
            if let Some((request, answer)) = known.map_err(|e| from_mysql(&e))? {
                if request != claim.request {
                    return Err(problem::idempotency_key_reused().into());
                }
                let reply = serde_json::from_slice(&answer);
                let reply = reply.map_err(|_| problem::internal("the stored reply cannot be read"))?;
                return Ok(Prepared::Replayed(reply));
            }
        }
        let mut done = Vec::with_capacity(changes.len());
        for (place, change) in changes.iter().enumerate() {
            let outcome = change.run(transaction).await;
            let in_place =
                |problem: Problem| if changes.len() > 1 { problem.of_values().at(place) } else { problem };
            done.push(outcome.map_err(|refused| match refused {
                Refused::Again(problem) => Refused::Again(in_place(problem)),
                Refused::Final(problem) => Refused::Final(in_place(problem)),
            })?);
        }
        let reply = answering(&done);
        if let (Some(claim), Some(table)) = (claim, kept_in) {
            let kept = serde_json::to_vec(&reply).map_err(|e| problem::internal(e.to_string()))?;
            transaction.keep_answer(table, &claim.id, &kept).await.map_err(|e| from_mysql(&e))?;
        }
        // Planned in every phase: a row that Cassandra cannot hold is refused, or its change would be a dead letter. The
        // watermarks are taken before the COMMIT, so that later changes in the log have higher versions.
        let mut writes = secondary_writes(&done, |done| self.secondary.borrow(&done.entity))?;
        if !record.phase.writes_both() {
            writes.clear();
        }
        Ok(Prepared::Done(reply, writes))
    }
}

/// The problem of a write, as its caller may see it. MySQL's own words, those of a trigger for example, may tell what
/// the row is.
fn hidden(problem: Problem, is_blind: bool) -> Problem {
    if is_blind && problem.status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::warn!(kind = problem.kind, detail = problem.detail, "a write failed");
        let detail = "the write failed, and the token does not allow to read why: the gateway's log says it";
        return Problem { detail: detail.into(), ..problem };
    }
    problem
}

enum Prepared {
    /// Executed but not committed: the reply, and the writes for Cassandra.
    Done(Reply, Vec<EntityWrite>),
    /// The request was done before: the stored reply.
    Replayed(Reply),
}

/// The writes for Cassandra that follow from the transaction's changes.
fn secondary_writes(
    done: &[Done],
    borrow: impl Fn(&Done) -> Option<Version>,
) -> Result<Vec<EntityWrite>, Problem> {
    // The plan numbers the changes in this list.
    let done: Vec<&Done> = done.iter().filter(|done| done.is_change()).collect();
    let changes: Vec<RowChange<'_>> = done
        .iter()
        .map(|done| RowChange {
            plan: &done.entity.plan,
            key: &done.key,
            before: done.before.as_ref(),
            after: done.after.as_ref(),
        })
        .collect();
    let planned = plan_secondary_writes(&changes, |change| borrow(done[change]));
    let planned = planned.map_err(|e| problem::unfit(&done[e.change].entity.name, &e.to_string()))?;
    let writes = planned.into_iter().map(|write| {
        let last = done[write.change];
        EntityWrite { entity: Arc::clone(&last.entity), key: last.key.clone(), write }
    });
    Ok(writes.collect())
}

/// Builds the reply of one change.
pub(crate) fn one(done: &[Done]) -> Reply {
    let Some(done) = done.first() else {
        return Reply { status: StatusCode::NO_CONTENT.as_u16(), etag: None, location: None, body: None };
    };
    let created = done.status == StatusCode::CREATED;
    Reply {
        status: done.status.as_u16(),
        etag: done.etag(),
        location: created.then(|| done.entity.path(&done.key)),
        body: done.json().map(|json| json.to_string()),
    }
}

/// Builds the reply of a batch.
pub(crate) fn many(done: &[Done]) -> Reply {
    let results: Vec<serde_json::Value> = done
        .iter()
        .map(|done| {
            serde_json::json!({
                "status": done.status.as_u16(),
                "path": done.entity.path(&done.key),
                "etag": done.etag(),
                "values": done.json(),
            })
        })
        .collect();
    let body = serde_json::json!({ "results": results }).to_string();
    Reply { status: StatusCode::OK.as_u16(), etag: None, location: None, body: Some(body) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::{Decimal, Row, Value};

    #[test]
    fn a_row_that_changes_twice_is_written_once() {
        let entity = Arc::new(crate::entity::tests::orders());
        let row = |region: &str, total: &str| -> Row {
            let total = Value::Decimal(Decimal::parse(total, 2).unwrap());
            vec![Value::Int(1), Value::Text(region.into()), total, Value::Null]
        };
        let done = |before: Option<Row>, after: Option<Row>| Done {
            entity: Arc::clone(&entity),
            key: vec![Value::Int(1), Value::Text("n".into())],
            before,
            after,
            status: StatusCode::OK,
            blind: false,
        };
        let steps = [
            done(None, Some(row("n", "1"))),
            done(Some(row("n", "1")), Some(row("n", "2"))),
            done(Some(row("n", "2")), Some(row("n", "3"))),
        ];
        let written = secondary_writes(&steps, |_| Some(Version(9))).unwrap();
        let last = entity.plan.repair(steps[2].after.as_ref(), &[], Version(9)).unwrap();
        assert_eq!(written.iter().map(|w| &w.write.mutations).collect::<Vec<_>>(), [&last]);

        let steps = [steps[0].clone(), done(Some(row("n", "1")), None)];
        let gone = secondary_writes(&steps, |_| Some(Version(9))).unwrap();
        let mutations = &gone[0].write.mutations;
        assert!(gone.len() == 1 && mutations.len() >= 2);
        assert!(mutations.iter().all(|m| m.write == tandem_model::Write::DeleteRow));
    }

    /// A token that may only write gets a success for a row that does not exist. That is no change.
    #[test]
    fn what_changed_nothing_shifts_no_other_write() {
        let entity = Arc::new(crate::entity::tests::orders());
        let row: Row = vec![Value::Int(2), Value::Text("n".into()), Value::Null, Value::Null];
        let done = |id, after: Option<Row>| Done {
            entity: Arc::clone(&entity),
            key: vec![Value::Int(id), Value::Text("n".into())],
            before: None,
            after,
            status: StatusCode::NO_CONTENT,
            blind: true,
        };
        let steps = [done(1, None), done(2, Some(row))];
        let written =
            secondary_writes(&steps, |done| Some(Version(if done.key == steps[1].key { 9 } else { 1 })));
        let written = written.unwrap();
        assert_eq!(written.len(), 1);
        assert_eq!((&written[0].key, written[0].write.version), (&steps[1].key, Some(Version(9))));
    }
}
