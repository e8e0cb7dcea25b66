//! The transactions in MySQL.

use std::collections::BTreeMap;
use std::time::Duration;

use tandem_model::Disposition;
use tandem_mysql::{MysqlError, PartitionOffset, ReverseSession};
use tandem_runtime::Backoff;

use crate::batch::{NativeChange, by_table, needed_of, versions};
use crate::metrics::Metrics;

/// The first and the longest pause before a transaction that another session was in the way of is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// MySQL's number for a value that a unique index has already.
const DUPLICATE: u16 = 1062;
const UNKNOWN_COLUMN: u16 = 1054;
const NO_TABLE: u16 = 1146;
const SIGNALLED: u16 = 1644;

/// Writes what MySQL needs of these changes, and the offsets, in one transaction.
///
/// # Errors
/// MySQL refuses one of the rows, and nothing is written. Or the connection is lost.
pub(crate) async fn write_all(
    session: &mut ReverseSession,
    metrics: &Metrics,
    changes: &[NativeChange],
    offsets: &[PartitionOffset],
) -> Result<(), MysqlError> {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    loop {
        session.begin().await?;
        let outcome = together(session, changes, offsets).await;
        if let Some(rows) = ended(session, outcome, &mut backoff).await? {
            metrics.written(rows, changes.len());
            return Ok(());
        }
    }
}

/// Writes what MySQL needs of these changes in one transaction, except the rows that MySQL refuses. Returns the causes by the
/// changes' indexes.
///
/// Rows that exchange their unique values are written: all rows of the transaction are deleted before the first is inserted.
/// That happens only to rows that the changes hold whole.
///
/// # Errors
/// The connection is lost.
pub(crate) async fn write_what_it_takes(
    session: &mut ReverseSession,
    metrics: &Metrics,
    changes: &[NativeChange],
) -> Result<BTreeMap<usize, String>, MysqlError> {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    let (mut refused, mut exchange) = (BTreeMap::new(), false);
    loop {
        let candidates: Vec<usize> =
            (0..changes.len()).filter(|index| !refused.contains_key(index)).collect();
        if candidates.is_empty() {
            return Ok(refused);
        }
        session.begin().await?;
        let outcome = match each(session, changes, &candidates, exchange).await {
            Ok(Ok(rows)) => Ok(rows),
            Err(error) => Err(error),
            Ok(Err((index, error))) => {
                session.roll_back().await?;
                // Another row of this transaction may give the value free.
                if !exchange && matches!(error, MysqlError::Server { code: DUPLICATE, .. }) {
                    exchange = true;
                } else {
                    refused.insert(index, error.to_string());
                }
                continue;
            }
        };
        if let Some(rows) = ended(session, outcome, &mut backoff).await? {
            metrics.written(rows, candidates.len());
            return Ok(refused);
        }
    }
}

/// Commits, or rolls back. Returns `None` if the transaction must be repeated, because another session was in its way.
async fn ended<T>(
    session: &mut ReverseSession,
    outcome: Result<T, MysqlError>,
    backoff: &mut Backoff,
) -> Result<Option<T>, MysqlError> {
    let error = match outcome {
        Ok(done) => return session.commit().await.map(|()| Some(done)),
        Err(error) => error,
    };
    if matches!(error, MysqlError::Lost { .. }) {
        return Err(error);
    }
    session.roll_back().await?;
    // A deadlock, or a lock that was not free in time.
    if !matches!(error, MysqlError::Server { code: 1205 | 1213, .. }) {
        return Err(error);
    }
    tracing::debug!(%error, "a transaction of reverse is repeated");
    backoff.pause().await;
    Ok(None)
}

/// Writes changes with few statements. Returns the number of rows.
async fn together(
    session: &mut ReverseSession,
    changes: &[NativeChange],
    offsets: &[PartitionOffset],
) -> Result<usize, MysqlError> {
    let rows: Vec<_> = changes.iter().map(|native| native.row).collect();
    let kept = session.kept(&rows).await?;
    let needed = needed_of(changes, &kept);
    let tables = by_table(&needed);
    // Deleted first: a row may take over a unique value of one that is gone.
    for rows in &tables {
        session.delete(rows.table, &rows.deleted).await?;
    }
    for rows in &tables {
        session.put(rows.table, &rows.put).await?;
    }
    session.keep(&versions(&needed), offsets).await?;
    Ok(needed.len())
}

/// Writes the candidates row by row. Returns the number of rows, or the first change that MySQL refuses.
async fn each(
    session: &mut ReverseSession,
    changes: &[NativeChange],
    candidates: &[usize],
    exchange: bool,
) -> Result<Result<usize, (usize, MysqlError)>, MysqlError> {
    let rows: Vec<_> = candidates.iter().map(|&index| changes[index].row).collect();
    let kept = session.kept(&rows).await?;
    let some: Vec<NativeChange> = candidates.iter().map(|&index| changes[index].clone()).collect();
    let needed = needed_of(&some, &kept);
    let index_of = |native: &NativeChange| {
        candidates.iter().copied().find(|&index| changes[index].record == native.record)
    };
    for inserts in [false, true] {
        for native in &needed {
            let table = &native.change.table;
            let anew = exchange && session.is_whole(table).await?;
            let outcome = match (&native.change.after, inserts) {
                (Some(_), false) if !anew => continue,
                (None, true) => continue,
                (_, false) => session.delete(table, &[table.key_of(native.change.image())]).await,
                (Some(row), true) if anew => session.insert(table, &[row]).await,
                (Some(row), true) => session.put(table, &[row]).await,
            };
            match (outcome, index_of(native)) {
                (Ok(()), _) => {}
                (Err(error), Some(index)) if is_of_a_row(&error) => return Ok(Err((index, error))),
                (Err(error), _) => return Err(error),
            }
        }
    }
    session.keep(&versions(&needed), &[]).await?;
    Ok(Ok(needed.len()))
}

/// Whether MySQL refuses a row, so that the others may go on. A table or a column that is gone, and a trigger that signals, are
/// faults of the rows of one table.
pub(crate) fn is_of_a_row(error: &MysqlError) -> bool {
    match error {
        MysqlError::BadValue { .. } => true,
        MysqlError::Server { code: UNKNOWN_COLUMN | NO_TABLE | SIGNALLED, .. } => true,
        MysqlError::Server { .. } => error.retry() == Disposition::Refuse,
        _ => false,
    }
}
