//! Equality between a MySQL row and its row in Cassandra. There is no other definition of it.

use tandem_model::{Cell, StoredRow};

/// How a stored row differs from what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// It should be there and is not.
    Missing,
    /// It is there and should not be.
    Extra,
    /// These cells differ: indexes into the target's regular columns.
    Cells(Vec<usize>),
}

/// Compares what Cassandra should hold under a key with what it holds; nothing if they are equal.
///
/// Cells are equal when their serialised bytes are; null, unset and no cell are the same. The keys
/// are the caller's to match.
pub fn differences(expected: Option<&[Cell]>, stored: Option<&StoredRow>) -> Option<Difference> {
    let (expected, stored) = match (expected, stored) {
        (None, None) => return None,
        (Some(_), None) => return Some(Difference::Missing),
        (None, Some(_)) => return Some(Difference::Extra),
        (Some(expected), Some(stored)) => (expected, &stored.cells),
    };
    let wanted = |i: usize| match expected.get(i) {
        Some(Cell::Value(bytes)) => Some(bytes),
        _ => None,
    };
    let found = |i: usize| stored.get(i).and_then(Option::as_ref);
    let cells: Vec<usize> =
        (0..expected.len().max(stored.len())).filter(|&i| wanted(i) != found(i)).collect();
    if cells.is_empty() { None } else { Some(Difference::Cells(cells)) }
}
