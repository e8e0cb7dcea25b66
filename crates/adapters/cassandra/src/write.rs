//! Writes mutations.

use std::ops::Range;
use std::sync::Arc;

use scylla::statement::batch::{Batch, BatchType};
use tandem_model::{Cell, Mutation, Write};
use tokio::task::JoinSet;

use crate::connect::target::Target;
use crate::error::{FailedWrite, Failure, Rejection, WriteError};
use crate::retry::{Retrying, backoff};
use crate::statement::bind::BoundMutation;
use crate::statement::prepared::PreparedTable;

/// The largest batch. It is well below Cassandra's limit for a mutation: half a commit log segment, 16 MiB by
/// default.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_STATEMENTS: usize = 500;

impl Target {
    /// Writes all mutations. When it returns `Ok`, every mutation is durable at the configured consistency.
    ///
    /// A reader sees all adjacent mutations of a row or none: they share an unlogged batch, each with its own
    /// timestamp. A run that exceeds 1 MiB or 500 statements is split into several batches, in order.
    /// Different rows are written concurrently, up to the limit that all clones of this target share.
    ///
    /// Transient failures (timeouts, unavailable replicas, broken connections, overload) are retried without
    /// limit, with pauses. Dropping the future stops the retries. Requests that were already sent may still
    /// arrive. This is harmless, because writes may be repeated.
    ///
    /// # Errors
    /// Contains the mutations that can never be written. All others are written.
    pub async fn write(&self, mutations: Vec<Mutation>) -> Result<(), WriteError> {
        let rows = rows(&mutations);
        if let [row] = rows.as_slice() {
            // A client may be waiting for this write. It runs without a task, which would wake another
            // thread.
            return self.write_alone(&mutations, row.clone()).await;
        }
        let mutations = Arc::new(mutations);
        let mut failed = Vec::new();
        let mut tasks = JoinSet::new();
        for row in rows {
            let table = match self.check(&mutations[row.clone()]) {
                Ok(table) => table,
                Err(rejection) => {
                    failed.push(failure(&mutations, row, rejection));
                    continue;
                }
            };
            let permit = Arc::clone(self.writes()).acquire_owned().await;
            let (target, mutations) = (self.clone(), Arc::clone(&mutations));
            tasks.spawn(async move {
                let _permit = permit;
                let outcome = target.write_row(&table, &mutations, row.clone()).await;
                outcome.err().map(|rejection| failure(&mutations, row, rejection))
            });
            while let Some(done) = tasks.try_join_next() {
                failed.extend(finished(done));
            }
        }
        while let Some(done) = tasks.join_next().await {
            failed.extend(finished(done));
        }
        if failed.is_empty() {
            return Ok(());
        }
        failed.sort_by_key(|f| f.mutations.start);
        Err(WriteError { failed })
    }

    /// Writes the mutations of one row.
    async fn write_alone(&self, mutations: &[Mutation], row: Range<usize>) -> Result<(), WriteError> {
        let outcome = match self.check(mutations) {
            Ok(table) => {
                let _permit = Arc::clone(self.writes()).acquire_owned().await;
                self.write_row(&table, mutations, row.clone()).await
            }
            Err(rejection) => Err(rejection),
        };
        outcome.map_err(|rejection| WriteError { failed: vec![failure(mutations, row, rejection)] })
    }

    fn check(&self, row: &[Mutation]) -> Result<Arc<PreparedTable>, Rejection> {
        let table = self.tables().get(&row[0].target).ok_or(Rejection::NotPrepared)?;
        row.iter().try_for_each(|m| table.check(m))?;
        Ok(table)
    }

    /// Writes adjacent mutations of one row, in order if they need several batches.
    async fn write_row(
        &self,
        table: &PreparedTable,
        mutations: &[Mutation],
        row: Range<usize>,
    ) -> Result<(), Rejection> {
        for batch in batches(&mutations[row]) {
            self.write_batch(table, batch).await?;
        }
        Ok(())
    }

    async fn write_batch(&self, table: &PreparedTable, mutations: &[Mutation]) -> Result<(), Rejection> {
        let mut backoff = backoff();
        let mut retrying = None;
        loop {
            match self.send(table, mutations).await {
                Ok(()) => {
                    if let Some(retrying) = retrying {
                        Retrying::recovered(retrying);
                    }
                    return Ok(());
                }
                Err(Failure::Permanent(rejection)) => return Err(rejection),
                Err(Failure::Transient(cause)) => {
                    let retrying = retrying.get_or_insert_with(|| self.outage().begin(&cause));
                    let pause = backoff.next();
                    retrying.failed(cause, pause);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn send(&self, table: &PreparedTable, mutations: &[Mutation]) -> Result<(), Failure> {
        let sent = if let [one] = mutations {
            self.session().execute_unpaged(table.statement(&one.write), BoundMutation(one)).await
        } else {
            let statements = mutations.iter().map(|m| table.statement(&m.write).clone().into()).collect();
            let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
            batch.set_is_idempotent(true);
            let values: Vec<_> = mutations.iter().map(BoundMutation).collect();
            self.session().batch(&batch, values).await
        };
        sent.map(|_| ()).map_err(|e| Failure::from(&e))
    }
}

fn failure(mutations: &[Mutation], row: Range<usize>, rejection: Rejection) -> FailedWrite {
    FailedWrite { target: Arc::clone(&mutations[row.start].target), mutations: row, rejection }
}

/// Returns the outcome of a task. Propagates a panic of the task.
fn finished(done: Result<Option<FailedWrite>, tokio::task::JoinError>) -> Option<FailedWrite> {
    done.unwrap_or_else(|e| match e.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(e) => unreachable!("write tasks are cancelled only with their set: {e}"),
    })
}

/// Returns the ranges of adjacent mutations of one row.
fn rows(mutations: &[Mutation]) -> Vec<Range<usize>> {
    let mut start = 0;
    mutations
        .chunk_by(|a, b| a.key == b.key && a.target == b.target)
        .map(|row| {
            let range = start..start + row.len();
            start = range.end;
            range
        })
        .collect()
}

/// Splits one row's mutations into batches that respect both limits.
fn batches(row: &[Mutation]) -> Vec<&[Mutation]> {
    let mut out = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (i, mutation) in row.iter().enumerate() {
        let size = size(mutation);
        if i > start && (bytes + size > BATCH_BYTES || i - start >= BATCH_STATEMENTS) {
            out.push(&row[start..i]);
            (start, bytes) = (i, 0);
        }
        bytes += size;
    }
    if start < row.len() {
        out.push(&row[start..]);
    }
    out
}

fn size(mutation: &Mutation) -> usize {
    let key: usize = mutation.key.iter().map(Vec::len).sum();
    let cells: usize = match &mutation.write {
        Write::Upsert(cells) => cells.iter().map(|c| if let Cell::Value(b) = c { b.len() } else { 0 }).sum(),
        Write::DeleteRow => 0,
    };
    key + cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tandem_model::Version;

    fn mutation(target: &str, key: u8, version: i64, bytes: usize) -> Mutation {
        Mutation {
            target: target.into(),
            key: vec![vec![key]],
            version: Version(version),
            write: Write::Upsert(vec![Cell::Value(vec![0; bytes]), Cell::Null]),
        }
    }

    #[test]
    fn only_adjacent_mutations_of_one_row_share_a_batch() {
        let all: Vec<_> = [("a", 1), ("a", 1), ("a", 2), ("b", 2), ("a", 2), ("a", 1)]
            .into_iter()
            .map(|(target, key)| mutation(target, key, 0, 1))
            .collect();
        assert_eq!(rows(&all), [0..2, 2..3, 3..4, 4..5, 5..6]);
        assert!(rows(&[]).is_empty());
    }

    #[test]
    fn a_mutation_larger_than_a_batch_goes_alone() {
        let row = [mutation("t", 1, 1, 1), mutation("t", 1, 2, BATCH_BYTES * 2), mutation("t", 1, 3, 1)];
        assert_eq!(batches(&row).iter().map(|b| b.len()).collect::<Vec<_>>(), [1, 1, 1]);
    }

    proptest! {
        #[test]
        fn batches_keep_all_mutations_in_order(sizes in proptest::collection::vec(0usize..BATCH_BYTES, 0..1200)) {
            let row: Vec<_> =
                sizes.iter().enumerate().map(|(i, &s)| mutation("t", 1, i as i64, s % 4000)).collect();
            let batches = batches(&row);
            prop_assert_eq!(batches.concat(), &row[..]);
            for batch in batches {
                prop_assert!(!batch.is_empty() && batch.len() <= BATCH_STATEMENTS);
                prop_assert!(batch.len() == 1 || batch.iter().map(size).sum::<usize>() <= BATCH_BYTES);
            }
        }
    }
}
