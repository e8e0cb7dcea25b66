//! Compares both stores' answers to one read.

use tandem_mapping::{Difference, RowError, TablePlan, differences};
use tandem_model::{Row, StoredRow, TargetKey};
use tandem_protocol::route::Reason;
use tandem_row_check::Suspect;

use crate::read::recheck::Divergence;

/// The rows that Cassandra has found, with their keys.
pub(crate) type Found = Vec<(TargetKey, StoredRow)>;

/// How Cassandra's rows differ from the rows that the mapping expects for MySQL's rows: the reason of the first
/// difference, and every row that differs.
pub(crate) fn compare(
    plan: &TablePlan,
    target: usize,
    rows: &[Row],
    found: &Found,
) -> Result<Option<Divergence>, RowError> {
    let (mut reason, mut suspects) = (None, Vec::new());
    let mut wanted = Vec::with_capacity(rows.len());
    for (place, row) in rows.iter().enumerate() {
        let expected = plan.expected(row)?;
        let Some(expected) = expected.into_iter().find(|e| e.target == target) else { continue };
        // Usually at the same index; elsewhere if the stores differ.
        let same = |(key, _): &&(TargetKey, StoredRow)| *key == expected.key;
        let stored = found.get(place).filter(same).or_else(|| found.iter().find(same));
        let stored = stored.map(|(_, stored)| stored);
        if let Some(difference) = differences(Some(&expected.cells), stored) {
            reason = reason.or(Some(match difference {
                Difference::Missing => Reason::Missing,
                Difference::Extra => Reason::Extra,
                Difference::Cells(_) => Reason::Different,
            }));
            suspects.push(Suspect { key: plan.source().key_of(row), candidates: Vec::new() });
        }
        wanted.push(expected.key);
    }
    let extra = |place: usize, key: &TargetKey| wanted.get(place) != Some(key) && !wanted.contains(key);
    for (_, (key, _)) in found.iter().enumerate().filter(|(place, (key, _))| extra(*place, key)) {
        reason = reason.or(Some(Reason::Extra));
        suspects
            .push(Suspect { key: plan.source_key(target, key)?, candidates: vec![(target, key.clone())] });
    }
    Ok(reason.map(|reason| Divergence { reason, suspects }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::{Cell, Decimal, Value};

    fn order(id: i64, total: &str) -> Row {
        let total = Value::Decimal(Decimal::parse(total, 2).unwrap());
        vec![Value::Int(id), Value::Text("north".into()), total, Value::Int(1)]
    }

    fn stored(plan: &TablePlan, row: &Row) -> (TargetKey, StoredRow) {
        let expected = plan.expected(row).unwrap().swap_remove(0);
        let cells = expected.cells.into_iter();
        let cells =
            cells.map(|cell| if let Cell::Value(bytes) = cell { Some(bytes) } else { None }).collect();
        (expected.key, StoredRow { cells, writetimes: vec![] })
    }

    #[test]
    fn each_difference_is_named() {
        let plan = crate::entity::tests::orders().plan;
        let (a, b, c) = (order(1, "1.00"), order(2, "2.00"), order(3, "3.00"));
        let of = |rows: &[&Row]| rows.iter().map(|row| stored(&plan, row)).collect::<Found>();
        let rows = |rows: &[&Row]| rows.iter().map(|row| (*row).clone()).collect::<Vec<Row>>();
        let [one, two] = [1, 2].map(Value::Int);
        for (mysql, cassandra, reason, suspects) in [
            (rows(&[&a, &b]), of(&[&a, &b]), None, &[][..]),
            (rows(&[]), of(&[]), None, &[]),
            (rows(&[&a, &b]), of(&[&a]), Some(Reason::Missing), std::slice::from_ref(&two)),
            (rows(&[&a, &b]), of(&[&b]), Some(Reason::Missing), std::slice::from_ref(&one)),
            (rows(&[&a, &c]), of(&[&a, &b, &c]), Some(Reason::Extra), std::slice::from_ref(&two)),
            (rows(&[]), of(&[&a]), Some(Reason::Extra), std::slice::from_ref(&one)),
            (rows(&[&a]), of(&[&order(1, "1.01")]), Some(Reason::Different), std::slice::from_ref(&one)),
        ] {
            let divergence = compare(&plan, 0, &mysql, &cassandra).unwrap();
            assert_eq!(divergence.as_ref().map(|d| d.reason), reason);
            let keys: Vec<&Value> = divergence.iter().flat_map(|d| &d.suspects).map(|s| &s.key[0]).collect();
            assert_eq!(keys, suspects.iter().collect::<Vec<_>>());
        }
    }
}
