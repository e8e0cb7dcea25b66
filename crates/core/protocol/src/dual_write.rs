//! The secondary writes: what a gateway writes to Cassandra after a MySQL transaction.
//!
//! A secondary write never hides a later change. It carries the image that the transaction read back under
//! the row's lock, at the version of a watermark taken before the COMMIT. A change that comes later in the
//! log has a higher version and wins. A secondary write makes a row visible early; the log decides its final
//! content.

use std::sync::Arc;

use tandem_mapping::{RowError, TablePlan};
use tandem_model::{Disposition, Mutation, Row, TargetKey, Value, Version};

/// One row change of a transaction, as the transaction saw it under the row's lock.
#[derive(Debug, Clone)]
pub struct RowChange<'a> {
    /// The mapping of the row's table.
    pub plan: &'a Arc<TablePlan>,
    /// The primary key.
    pub key: &'a [Value],
    /// The row before the change, if it existed.
    pub before: Option<&'a Row>,
    /// The row read back after the change, if it exists.
    pub after: Option<&'a Row>,
}

/// The secondary write for one row, to be made once the transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondaryWrite {
    /// The index of the row's last change within the transaction.
    pub change: usize,
    /// The borrowed version. `None` means that there was no watermark to borrow; nothing is written then.
    pub version: Option<Version>,
    /// The mutations, at the borrowed version.
    pub mutations: Vec<Mutation>,
}

/// The mapping cannot convert a row for Cassandra.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct UnmappableRow {
    /// The index of the row's change within the transaction.
    pub change: usize,
    /// The reason.
    pub error: RowError,
}

impl UnmappableRow {
    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        self.error.retry()
    }
}

/// Plans the secondary writes of a transaction.
///
/// Each row gets one write: its last image, with explicit NULLs, and a row tombstone for each target key that
/// it had during the transaction and no longer has. A row is written once because two images of one row at
/// one version would tie.
///
/// `borrow` returns the version of the newest watermark that knows the table of a change. The caller must
/// take the watermark before the COMMIT. Every change that comes later in the log then has a higher version.
///
/// # Errors
///
/// The mapping cannot convert a row for Cassandra.
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
        // The row before the change may be one that Cassandra cannot hold. The change must be able to correct it.
        let mut keys = change.before.map_or(Vec::new(), |row| change.plan.possible_keys(row));
        if let Some(row) = change.after {
            let unmappable = |error| UnmappableRow { change: number, error };
            keys.extend(change.plan.target_keys(row).map_err(unmappable)?);
        }
        for key in keys {
            if !rows[place].1.contains(&key) {
                rows[place].1.push(key);
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

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_mapping::{TargetConfig, same_shape};
    use tandem_model::{ColumnDef, TableDef, TableName, Write};

    const BORROWED: Version = Version(9);

    /// A table `(id, account)` with one target, whose rows move when `account` changes.
    fn plan() -> Arc<TablePlan> {
        let column =
            |name: &str| ColumnDef { name: name.into(), ty: "int".parse().unwrap(), nullable: false };
        let table = TableDef {
            name: TableName::new("shop", "orders"),
            columns: vec![column("id"), column("account")],
            primary_key: vec![0],
        };
        let mut config = same_shape(&table);
        config.target = vec![TargetConfig {
            table: "by_account".into(),
            partition_key: vec!["account".into()],
            clustering_key: vec!["id".into()],
            ..TargetConfig::default()
        }];
        Arc::new(TablePlan::compile(&config, &Arc::new(table)).unwrap())
    }

    #[test]
    fn a_row_that_moved_leaves_a_tombstone_at_each_old_key() {
        let plan = plan();
        let row = |account| -> Row { vec![Value::Int(1), Value::Int(account)] };
        let (key, rows) = ([Value::Int(1)], [row(1), row(2), row(3)]);
        let change = |from: usize| RowChange {
            plan: &plan,
            key: &key,
            before: Some(&rows[from]),
            after: Some(&rows[from + 1]),
        };
        let writes = plan_secondary_writes(&[change(0), change(1)], |_| Some(BORROWED)).unwrap();
        let [SecondaryWrite { change: 1, version: Some(BORROWED), mutations }] = &writes[..] else {
            panic!("one write for the row, of its last change: {writes:?}");
        };
        let expected = plan.repair(Some(&rows[2]), &old_keys(&plan, &rows[..2]), BORROWED).unwrap();
        assert_eq!(*mutations, expected);
        let deleted = mutations.iter().filter(|m| m.write == Write::DeleteRow).count();
        assert_eq!((deleted, mutations.len()), (2, 3));
        assert!(mutations.iter().all(|m| m.version == BORROWED));
    }

    fn old_keys(plan: &TablePlan, rows: &[Row]) -> Vec<(usize, TargetKey)> {
        rows.iter().flat_map(|row| plan.target_keys(row).unwrap()).collect()
    }
}
