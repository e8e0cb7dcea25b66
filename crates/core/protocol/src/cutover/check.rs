//! The check of a row while Cassandra decides: the guard says what the row is.
//!
//! Nothing is called wrong that a write under way explains. A check belongs to one epoch and uses that epoch's
//! guards only. It ends by reading the control topic to its end: if the epoch is another one by then, the
//! check says nothing.
//!
//! | check | what is read, in this order |
//! |---|---|
//! | [`judge_targets`] | the guard, `done`, the target rows with writetimes, the guard again, the epoch |
//! | [`judge_mysql`] | the guard, MySQL's row and reverse's version in one snapshot, the epoch |
//! | [`judge_unguarded`] | that there is no guard, the target rows, MySQL's row, the guard again, the epoch |

use tandem_mapping::{Difference, RowError, TablePlan, differences};
use tandem_model::{Row, StoredRow, TargetKey, Version};

use super::guard::{Guard, NativeWrite, Nonce};
use crate::row_check::{TargetDifference, Verdict};

/// A row of a target, read under one of the keys that may hold the checked row.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetRow {
    /// The target's index in the plan.
    pub target: usize,
    /// The key.
    pub key: TargetKey,
    /// The row, if there is one.
    pub stored: Option<StoredRow>,
}

/// The target rows that are not what they must be.
///
/// `image` is what the row is. No writetime may be above `newest`: it would hide the next native write.
///
/// # Errors
///
/// The mapping cannot convert the row.
pub fn differing(
    plan: &TablePlan,
    image: Option<&Row>,
    rows: &[TargetRow],
    newest: Version,
) -> Result<Vec<TargetDifference>, RowError> {
    let expected = image.map_or(Ok(Vec::new()), |row| plan.expected(row))?;
    let mut found = Vec::new();
    for row in rows {
        let wanted = expected.iter().find(|e| e.target == row.target && e.key == row.key);
        let stored = row.stored.as_ref();
        let difference = differences(wanted.map(|e| &e.cells[..]), stored).or_else(|| above(stored, newest));
        if let Some(difference) = difference {
            let writetimes = stored.iter().flat_map(|row| row.writetimes.iter().flatten().copied()).collect();
            found.push(TargetDifference { target: row.target, key: row.key.clone(), difference, writetimes });
        }
    }
    Ok(found)
}

/// The cells whose writetimes are above `newest`.
fn above(stored: Option<&StoredRow>, newest: Version) -> Option<Difference> {
    let writetimes = stored.map_or(&[][..], |row| &row.writetimes);
    let cells = writetimes.iter().enumerate().filter(|(_, at)| at.is_some_and(|at| at > newest.0));
    let cells: Vec<usize> = cells.map(|(cell, _)| cell).collect();
    (!cells.is_empty()).then_some(Difference::Cells(cells))
}

/// Judges the targets of a key that has a guard. `done` was read before the targets, and `after` after them.
pub fn judge_targets(
    before: &Guard,
    done: Option<Version>,
    after: Option<&Guard>,
    differ: bool,
    same_epoch: bool,
) -> Verdict {
    let unchanged = after.is_some_and(|after| after.nonce == before.nonce);
    let complete = done >= Some(before.version) && before.tentative.is_none();
    verdict(unchanged && complete && same_epoch, differ)
}

/// Judges MySQL's row against a guard. `kept` is reverse's version of the key, from the row's snapshot.
///
/// Reverse that is behind is waiting, not wrong. Reverse that is ahead of the guard that was read says nothing
/// about that guard.
pub fn judge_mysql(guard: &Guard, kept: Option<Version>, differ: bool, same_epoch: bool) -> Verdict {
    verdict(kept == Some(guard.version) && guard.tentative.is_none() && same_epoch, differ)
}

/// Judges a key without a guard: the targets against MySQL's row. `after` is the guard, read again at the end.
pub fn judge_unguarded(after: Option<&Guard>, differ: bool, same_epoch: bool) -> Verdict {
    verdict(after.is_none() && same_epoch, differ)
}

fn verdict(counts: bool, differ: bool) -> Verdict {
    match (counts, differ) {
        (false, _) => Verdict::Undecided,
        (true, false) => Verdict::Match,
        (true, true) => Verdict::Mismatch,
    }
}

/// The repair of a key: a native write that changes nothing.
///
/// It writes the guard's row again, above every writetime found, and deletes the rows that must not be there.
/// It takes part in the order of native writes like any other, so it never hides one. A key without a guard is
/// not repaired by itself: nothing says which side is right.
///
/// `guard` is the present one. The row may have moved since the check. So the repair names every row that
/// differed, not only those that were extra then: a cell with a writetime ahead outlives the tombstone that the
/// move has left.
pub fn repair(guard: &Guard, found: &[TargetDifference], nonce: Nonce) -> NativeWrite {
    NativeWrite {
        nonce,
        image: guard.image.clone(),
        extra: found.iter().map(|d| (d.target, d.key.clone())).collect(),
        above: found.iter().flat_map(|d| &d.writetimes).max().map(|at| Version(*at)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tandem_mapping::same_shape;
    use tandem_model::{ColumnDef, TableDef, TableName, Value};

    fn guard(nonce: u128) -> Guard {
        Guard {
            version: Version(5),
            nonce: Nonce(nonce),
            recent: Vec::new(),
            before: None,
            image: Some(vec![Value::Int(1), Value::Int(2)]),
            stale: Vec::new(),
            tentative: None,
        }
    }

    #[test]
    fn a_check_counts_only_while_nothing_else_explains_what_it_saw() {
        let (before, later) = (guard(1), guard(2));
        let judged = |done: i64, after: Option<&Guard>, same_epoch| {
            let judge = |differ| judge_targets(&before, Some(Version(done)), after, differ, same_epoch);
            (judge(false), judge(true))
        };
        let counts = (Verdict::Match, Verdict::Mismatch);
        let void = (Verdict::Undecided, Verdict::Undecided);
        assert_eq!(judged(5, Some(&before), true), counts);
        assert_eq!(judged(4, Some(&before), true), void);
        assert_eq!(judged(5, Some(&later), true), void);
        assert_eq!(judged(5, None, true), void);
        assert_eq!(judged(5, Some(&before), false), void);
    }

    #[test]
    fn mysql_is_judged_only_at_the_guards_version() {
        for (kept, same_epoch, expected) in [
            (Some(5), true, Verdict::Mismatch),
            (Some(4), true, Verdict::Undecided),
            (Some(6), true, Verdict::Undecided),
            (None, true, Verdict::Undecided),
            (Some(5), false, Verdict::Undecided),
        ] {
            assert_eq!(judge_mysql(&guard(1), kept.map(Version), true, same_epoch), expected);
        }
        assert_eq!(judge_unguarded(None, true, true), Verdict::Mismatch);
        assert_eq!(judge_unguarded(None, true, false), Verdict::Undecided);
        assert_eq!(judge_unguarded(Some(&guard(1)), true, true), Verdict::Undecided);
    }

    #[test]
    fn a_writetime_ahead_is_a_difference_and_a_repair_is_above_it() {
        let column =
            |name: &str| ColumnDef { name: name.into(), ty: "int".parse().unwrap(), nullable: false };
        let table = TableDef {
            name: TableName::new("shop", "orders"),
            columns: vec![column("id"), column("a")],
            primary_key: vec![0],
        };
        let plan = TablePlan::compile(&same_shape(&table), &Arc::new(table)).unwrap();
        let guard = guard(1);
        let image = guard.image.as_ref();
        let [(target, key)] = &plan.target_keys(image.unwrap()).unwrap()[..] else { panic!("one target") };
        let read = |writetime| TargetRow {
            target: *target,
            key: key.clone(),
            stored: Some(StoredRow {
                cells: vec![Some(2_i32.to_be_bytes().into())],
                writetimes: vec![Some(writetime)],
            }),
        };
        let differing = |image, writetime| differing(&plan, image, &[read(writetime)], Version(5)).unwrap();
        assert_eq!(differing(image, 5), []);
        let ahead = differing(image, 6);
        assert_eq!(ahead[0].difference, Difference::Cells(vec![0]));
        assert_eq!(differing(None, 5)[0].difference, Difference::Extra);
        // The row may have moved away since: every row that differed is named.
        let write = repair(&guard, &ahead, Nonce(7));
        assert_eq!((write.image.as_ref(), write.above), (image, Some(Version(6))));
        assert_eq!(write.extra, [(*target, key.clone())]);
    }
}
