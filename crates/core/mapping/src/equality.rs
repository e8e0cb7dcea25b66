//! The only definition of equality between a MySQL row and its row in Cassandra.

use tandem_model::{Cell, StoredRow};

/// How a stored row differs from the expected row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The row is expected and does not exist.
    Missing,
    /// The row exists and is not expected.
    Extra,
    /// Cells differ. These are their indexes in the target's regular columns.
    Cells(Vec<usize>),
}

/// Compares the expected row of a key with the stored row. Returns `None` if they are equal.
///
/// Cells are equal if their serialised bytes are equal. Null, unset and a missing cell are equal. The caller
/// must pass rows of the same key.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_unset_and_a_missing_cell_are_equal() {
        let value = |v: &[u8]| Cell::Value(v.to_vec());
        let stored = |cells: &[Option<&[u8]>]| StoredRow {
            cells: cells.iter().map(|c| c.map(<[u8]>::to_vec)).collect(),
            writetimes: cells.iter().map(|c| c.map(|_| 1)).collect(),
        };
        for (expected, stored, difference) in [
            (None, None, None),
            (Some(vec![]), None, Some(Difference::Missing)),
            (None, Some(stored(&[])), Some(Difference::Extra)),
            (Some(vec![]), Some(stored(&[])), None),
            (Some(vec![value(b"a"), Cell::Null, Cell::Unset]), Some(stored(&[Some(b"a"), None, None])), None),
            (
                Some(vec![value(b""), value(b"")]),
                Some(stored(&[Some(b""), None])),
                Some(Difference::Cells(vec![1])),
            ),
            (
                Some(vec![value(b"a"), Cell::Null, value(b"c")]),
                Some(stored(&[Some(b"b"), Some(b""), Some(b"c")])),
                Some(Difference::Cells(vec![0, 1])),
            ),
            (Some(vec![Cell::Null]), Some(stored(&[])), None),
            (Some(vec![]), Some(stored(&[Some(b"a")])), Some(Difference::Cells(vec![0]))),
        ] {
            assert_eq!(
                differences(expected.as_deref(), stored.as_ref()),
                difference,
                "{expected:?} {stored:?}"
            );
        }
    }
}
