//! What a gateway writes to Cassandra beside MySQL.
//!
//! A secondary write carries the image that the transaction read back under the row's lock, at the
//! version of a watermark taken before the COMMIT. A change that comes later in the log has a higher
//! version and wins. The write is early; the log is right.

use std::sync::Arc;

use tandem_mapping::{RowError, TablePlan};
use tandem_model::{Mutation, Row, TargetKey, Value, Version};

/// One change of a row within a transaction, as the transaction saw it under the row's lock.
#[derive(Debug, Clone)]
pub struct RowChange<'a> {
    /// The mapping of its table.
    pub plan: &'a Arc<TablePlan>,
    /// The primary key.
    pub key: &'a [Value],
    /// The row before, if it was there.
    pub before: Option<&'a Row>,
    /// The row read back, if it is there.
    pub after: Option<&'a Row>,
}

/// What one row's changes write to Cassandra, once the transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondaryWrite {
    /// The number of the row's last change within the transaction.
    pub change: usize,
    /// The borrowed version; none where there was no watermark to borrow, and then nothing is written.
    pub version: Option<Version>,
    /// The writes, at that version.
    pub mutations: Vec<Mutation>,
}

/// A row has no form in Cassandra.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct UnmappableRow {
    /// The number of its change within the transaction.
    pub change: usize,
    /// Why.
    pub error: RowError,
}

/// Plans the secondary writes of a transaction: for each row its last image, with NULLs explicit, and a row
/// tombstone for each target key that it had before and has no more. Two images of one row at one version
/// would tie.
///
/// `borrow` gives the version of the newest watermark that knows a change's table. It must be taken before
/// the COMMIT: what comes later in the log then has a higher version.
///
/// # Errors
/// A row has no form in Cassandra.
pub fn plan_secondary_writes(
    changes: &[RowChange<'_>],
    borrow: impl Fn(usize) -> Option<Version>,
) -> Result<Vec<SecondaryWrite>, UnmappableRow> {
    let mut rows: Vec<(usize, Vec<(usize, TargetKey)>)> = Vec::new();
    for (number, change) in changes.iter().enumerate() {
        let same = |known: &(usize, _)| {
            let known: &RowChange<'_> = &changes[known.0];
            Arc::ptr_eq(known.plan, change.plan) && known.key == change.key
        };
        let place = rows.iter().position(same).unwrap_or_else(|| {
            rows.push((number, Vec::new()));
            rows.len() - 1
        });
        rows[place].0 = number;
        for image in [change.before, change.after].into_iter().flatten() {
            let unmappable = |error| UnmappableRow { change: number, error };
            for key in change.plan.target_keys(image).map_err(unmappable)? {
                if !rows[place].1.contains(&key) {
                    rows[place].1.push(key);
                }
            }
        }
    }
    let writes = rows.into_iter().map(|(number, keys)| {
        let (last, version) = (&changes[number], borrow(number));
        let mutations = last.plan.repair(last.after, &keys, version.unwrap_or_default());
        let mutations = mutations.map_err(|error| UnmappableRow { change: number, error })?;
        Ok(SecondaryWrite { change: number, version, mutations })
    });
    writes.collect()
}
