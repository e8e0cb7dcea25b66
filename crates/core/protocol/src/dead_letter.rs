//! Dead letters: changes that apply could not write and has put aside.
//!
//! A dead letter breaks its key's chain of changes in Cassandra. So the next write of the key must be complete: it is
//! read from MySQL anew, never replayed, and written as a repair is.
//!
//! Until a dead letter is settled, its key is read from MySQL ([`crate::route`]) and left out of checks
//! ([`crate::row_check::judge`]).

use tandem_mapping::{RowError, TablePlan};
use tandem_model::{Change, Mutation, Row, TargetKey, Version};

/// The lowest version of a watermark that a retry may borrow: above the change that was put aside. The row that is read
/// at such a watermark contains the change, or a later one.
pub fn least_version(change: Version) -> Version {
    Version(change.0 + 1)
}

/// The keys that the row of a change has or had in the targets, as far as Cassandra can hold them. Earlier writes may
/// stand there, and the change that was put aside has not deleted them. The change may be from before an ALTER.
pub fn former_keys(plan: &TablePlan, change: &Change) -> Vec<(usize, TargetKey)> {
    let mut keys = Vec::new();
    for image in [&change.before, &change.after].into_iter().flatten() {
        for key in plan.possible_keys_under(&change.table, image) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
}

/// The mutations that settle a dead letter: the row as MySQL has it now, with explicit NULLs, and a row tombstone for each
/// of its former keys. `version` is that of a watermark at or above [`least_version`], borrowed before the row was read.
///
/// # Errors
///
/// The mapping still cannot convert the row.
pub fn retry(
    plan: &TablePlan,
    row: Option<&Row>,
    former_keys: &[(usize, TargetKey)],
    version: Version,
) -> Result<Vec<Mutation>, RowError> {
    plan.repair(row, former_keys, version)
}
