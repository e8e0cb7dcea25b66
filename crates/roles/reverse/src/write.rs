//! The transactions in MySQL.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tandem_model::{TableDef, TableName};
use tandem_mysql::{Deleted, MysqlError, PartitionOffset, ReverseSession};
use tandem_runtime::Backoff;

use crate::batch::{NativeChange, by_table, needed_of, versions};
use crate::metrics::Metrics;

/// The first and the longest pause before a transaction that another session was in the way of is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// MySQL's number for a value that a unique index has already.
const DUPLICATE: u16 = 1062;

/// MySQL's numbers for what says nothing about a row: a full or failing disk, no memory, no connections left, a shutdown, locks,
/// read_only, an interrupted or timed out statement, a prepared statement to be prepared again, group replication.
const OF_THE_SERVER: [u16; 20] = [
    1021, 1026, 1030, 1037, 1038, 1040, 1041, 1053, 1114, 1205, 1213, 1290, 1317, 1615, 1836, 3024, 3100,
    3101, 3572, 4031,
];

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
/// Rows that exchange their unique values are written: all rows of their table are deleted before the first is inserted. That
/// happens only to rows that the changes hold whole.
///
/// # Errors
/// The connection is lost.
pub(crate) async fn write_what_it_takes(
    session: &mut ReverseSession,
    metrics: &Metrics,
    changes: &[NativeChange],
) -> Result<BTreeMap<usize, String>, MysqlError> {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    let (mut refused, mut exchange) = (BTreeMap::new(), BTreeSet::new());
    loop {
        let candidates: Vec<usize> =
            (0..changes.len()).filter(|index| !refused.contains_key(index)).collect();
        if candidates.is_empty() {
            return Ok(refused);
        }
        session.begin().await?;
        let outcome = match each(session, changes, &candidates, &exchange).await {
            Ok(Ok(rows)) => Ok(rows),
            Err(error) => Err(error),
            Ok(Err((index, error))) => {
                session.roll_back().await?;
                let table = &changes[index].change.table.name;
                // Another row of this transaction may give the value free.
                if matches!(error, MysqlError::Server { code: DUPLICATE, .. })
                    && exchange.insert(table.clone())
                {
                    tracing::debug!(%table, "rows may exchange their unique values");
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
        Ok(done) => match session.commit().await {
            Ok(()) => return Ok(Some(done)),
            Err(error) => error,
        },
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
    // MySQL gives a lock up after seconds, a deadlock at once.
    tracing::warn!(%error, "another session is in the way of reverse: the transaction is repeated");
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
        let deleted = session.delete(rows.table, &rows.deleted).await?;
        refuse_others(rows.table, deleted)?;
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
    exchange: &BTreeSet<TableName>,
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
            let anew = exchange.contains(&table.name) && session.is_whole(table).await?;
            let key = || table.key_of(native.change.image());
            let outcome = match (&native.change.after, inserts) {
                (Some(_), false) if !anew => continue,
                (None, true) => continue,
                (Some(_), false) => session.delete(table, &[key()]).await.map(drop),
                (None, false) => match session.delete(table, &[key()]).await {
                    Ok(deleted) => refuse_others(table, deleted),
                    Err(error) => Err(error),
                },
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

/// A deleted row that is not there, where MySQL has one with a key that its collation takes for the same: which of them Cassandra
/// means, nobody knows.
fn refuse_others(table: &TableDef, deleted: Deleted) -> Result<(), MysqlError> {
    if deleted.others == 0 {
        return Ok(());
    }
    Err(MysqlError::BadValue {
        table: table.name.clone(),
        column: table.primary_key.first().map_or_else(String::new, |&i| table.columns[i].name.clone()),
        problem: "MySQL has a row with another key that its collation takes for the same".into(),
    })
}

/// Whether MySQL refuses a row, so that the others may go on. What concerns one table, such as a column that is gone or a
/// trigger that signals, is a fault of its rows. What concerns the server or the session is not.
pub(crate) fn is_of_a_row(error: &MysqlError) -> bool {
    match error {
        MysqlError::BadValue { .. } | MysqlError::TableChanged { .. } => true,
        MysqlError::Server { code, .. } => !OF_THE_SERVER.contains(code),
        _ => false,
    }
}
