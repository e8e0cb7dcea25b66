//! Filtered targets: their mutations, their expected rows, and their plans under another table definition.

use std::sync::Arc;

use tandem_mapping::{
    FilterProblem, PlanError, PlanProblemKind, RowError, TablePlan, TargetConfig, same_shape,
};
use tandem_model::{Cell, Change, Mutation, Op, Row, SourceInfo, TableDef, Value, Version, Write};

use crate::{COLUMNS, admits, compile, plan, row, set, table};

fn mutations(
    plan: &TablePlan,
    op: Op,
    before: Option<Row>,
    after: Option<Row>,
) -> Result<Vec<Mutation>, RowError> {
    let change = Change {
        table: Arc::clone(plan.source()),
        op,
        before,
        after,
        version: Version(7),
        source: SourceInfo::default(),
    };
    let mut out = Vec::new();
    plan.mutations(&change, &mut out).map(|()| out)
}

fn upsert(n: Cell) -> Vec<Mutation> {
    vec![Mutation {
        target: "x".into(),
        key: vec![1i64.to_be_bytes().to_vec()],
        version: Version(7),
        write: Write::Upsert(vec![n]),
    }]
}

fn delete() -> Vec<Mutation> {
    vec![Mutation { write: Write::DeleteRow, ..upsert(Cell::Null).remove(0) }]
}

#[test]
fn what_a_change_writes_within_and_without() {
    let plan = plan("e == 'paid'");
    let image = |e: &str, n: Option<i64>| {
        let row = set(row(), "e", Value::Text(e.into()));
        Some(set(row, "n", n.map_or(Value::Null, Value::Int)))
    };
    let value = || Cell::Value(vec![3]);
    for (op, before, after, expected) in [
        (Op::Create, None, image("new", None), vec![]),
        (Op::Create, None, image("paid", Some(3)), upsert(value())),
        (Op::Snapshot, None, image("new", None), vec![]),
        (Op::Snapshot, None, image("paid", None), upsert(Cell::Unset)),
        // The row may have left the filter during the log gap before the re-snapshot.
        (Op::Resnapshot, None, image("new", None), delete()),
        (Op::Resnapshot, None, image("paid", None), upsert(Cell::Null)),
        (Op::Update, image("new", Some(3)), image("new", None), vec![]),
        (Op::Update, image("new", None), image("paid", Some(3)), upsert(value())),
        // While the row was outside, its value was never written, so no NULL is needed.
        (Op::Update, image("new", Some(3)), image("paid", None), upsert(Cell::Unset)),
        (Op::Update, image("paid", Some(3)), image("paid", None), upsert(Cell::Null)),
        (Op::Update, image("paid", Some(3)), image("new", Some(3)), delete()),
        // A DDL statement may have moved the row out. Then no row change has deleted it.
        (Op::Delete, image("new", None), None, delete()),
        (Op::Delete, image("paid", None), None, delete()),
    ] {
        let shown = format!("{op:?} {before:?} {after:?}");
        assert_eq!(mutations(&plan, op, before, after), Ok(expected), "{shown}");
    }
}

/// A target by `e` and `id`: the filter's column is in the key.
fn by_e(filter: &str) -> TablePlan {
    let table = table();
    let mut config = same_shape(&table);
    config.target[0] = TargetConfig {
        table: "x".into(),
        partition_key: vec!["e".into()],
        clustering_key: vec!["id".into()],
        exclude_from_target: COLUMNS
            .iter()
            .map(|(n, _)| (*n).to_owned())
            .filter(|n| n != "id" && n != "e")
            .collect(),
        r#where: Some(filter.into()),
        ..TargetConfig::default()
    };
    TablePlan::compile(&config, &Arc::new(table)).unwrap()
}

#[test]
fn a_row_that_moves_is_deleted_under_its_old_key() {
    let plan = by_e("e != ''");
    assert_eq!(plan.targets()[0].key_columns(), [4, 0]);
    let image = |e: &str| Some(set(row(), "e", Value::Text(e.into())));
    let write = |e: &str, write: Write| Mutation {
        key: vec![e.as_bytes().to_vec(), 1i64.to_be_bytes().to_vec()],
        write,
        ..upsert(Cell::Null).remove(0)
    };
    let there = || Write::Upsert(vec![]);
    for (before, after, expected) in [
        ("new", "paid", vec![write("new", Write::DeleteRow), write("paid", there())]),
        ("new", "", vec![write("new", Write::DeleteRow)]),
        ("", "new", vec![write("new", there())]),
    ] {
        assert_eq!(mutations(&plan, Op::Update, image(before), image(after)), Ok(expected));
    }
    // A row outside the filter may have a key that Cassandra refuses. Then it is not stored anywhere.
    let nowhere = image("").unwrap();
    assert_eq!(mutations(&plan, Op::Create, None, image("")), Ok(vec![]));
    assert_eq!(mutations(&plan, Op::Delete, image(""), None), Ok(vec![]));
    assert_eq!((plan.expected(&nowhere), plan.target_keys(&nowhere)), (Ok(vec![]), Ok(vec![])));
    let all = by_e("true");
    assert!(matches!(all.target_keys(&nowhere), Err(RowError::EmptyPartitionKey { .. })));
}

#[test]
fn a_check_includes_rows_outside_the_filter_and_a_repair_deletes_them() {
    let plan = plan("e == 'paid'");
    let (outside, inside) = (row(), set(row(), "e", Value::Text("paid".into())));
    let key = upsert(Cell::Null).remove(0).key;
    for row in [&outside, &inside] {
        assert_eq!(plan.target_keys(row), Ok(vec![(0, key.clone())]));
    }
    assert_eq!(plan.expected(&outside), Ok(vec![]));
    assert_eq!(plan.expected(&inside).unwrap().len(), 1);
    assert_eq!((plan.stands_at(0, &key, &outside), plan.stands_at(0, &key, &inside)), (Ok(false), Ok(true)));
    assert_eq!(plan.stands_at(0, &vec![2i64.to_be_bytes().to_vec()], &inside), Ok(false));
    let also = [(0, key)];
    for also in [&also[..], &[]] {
        assert_eq!(plan.repair(Some(&outside), also, Version(7)), Ok(delete()));
        assert_eq!(plan.repair(Some(&inside), also, Version(7)), Ok(upsert(Cell::Value(vec![0xfb]))));
    }
}

#[test]
fn a_row_that_cannot_be_evaluated_is_an_error_without_its_values() {
    let filter = "id == 1 || day == null";
    let zero = set(row(), "day", Value::InvalidDate("2020-02-00".into()));
    let error = |reason: &str| {
        format!(
            "`where = {filter:?}` of target `x` cannot be decided for a row of `d.t`: {reason}; correct the row in MySQL or change `where`"
        )
    };
    for (row, reason) in [
        (zero.clone(), "its column `day` holds a zero or partial date"),
        (set(row(), "day", Value::Text("hush".into())), "its column `day` holds a text"),
    ] {
        let found = mutations(&plan(filter), Op::Create, None, Some(row)).unwrap_err();
        assert_eq!(found.to_string(), error(reason));
    }
    // A column that the filter does not use may hold any value.
    assert_eq!(admits(&plan("id == 1"), &zero), Ok(true));
}

#[test]
fn a_filter_adapts_to_another_definition() {
    let plan = plan("s != 'draft' && (n == null || n > 1)");
    let with = |change: &dyn Fn(&mut TableDef)| {
        let mut table = table();
        change(&mut table);
        plan.adapt(&Arc::new(table))
    };
    let ty =
        |column: usize, ty: &'static str| move |t: &mut TableDef| t.columns[column].ty = ty.parse().unwrap();
    // Columns in another order are found by name. (The index of the key changes with them.)
    let reversed = with(&|t: &mut TableDef| {
        t.columns.reverse();
        t.primary_key = vec![11];
    })
    .unwrap();
    for (s, n) in [("draft", Value::Null), ("x", Value::Null), ("x", Value::Int(1)), ("x", Value::Int(2))] {
        let row = set(set(row(), "s", Value::Text(s.into())), "n", n);
        let turned: Row = row.iter().rev().cloned().collect();
        assert_eq!(admits(&reversed, &turned), admits(&plan, &row));
    }
    assert!(with(&ty(3, "enum('draft')")).is_ok());
    let problems = |result: Result<TablePlan, PlanError>| -> Vec<PlanProblemKind> {
        result.unwrap_err().problems.into_iter().map(|p| p.kind).collect()
    };
    assert_eq!(
        problems(with(&|t: &mut TableDef| drop(t.columns.remove(3)))),
        [PlanProblemKind::Vanished { column: "s".into() }]
    );
    let changed = problems(with(&ty(3, "int")));
    assert!(
        matches!(&changed[..], [PlanProblemKind::FilterColumnChanged { column, .. }] if column == "s"),
        "{changed:?}"
    );
    // The same CEL type, but another meaning.
    let by_time = compile("at == null", table()).unwrap();
    let mut timestamp = table();
    ty(7, "timestamp(6)")(&mut timestamp);
    let changed = problems(by_time.adapt(&Arc::new(timestamp)));
    assert!(matches!(&changed[..], [PlanProblemKind::FilterColumnChanged { .. }]), "{changed:?}");
    // A column becomes nullable.
    let by_number = compile("id > 1 && e > 'a'", table()).unwrap();
    let mut nullable = table();
    nullable.columns[4].nullable = true;
    let changed = problems(by_number.adapt(&Arc::new(nullable)));
    assert!(
        matches!(&changed[..], [PlanProblemKind::Filter { problem: FilterProblem::MayBeNull { .. }, .. }]),
        "{changed:?}"
    );
}

/// A reader by key must not mistake a row outside the filter for a row that does not exist.
#[test]
fn a_filtered_target_is_not_used_for_reads_by_key() {
    assert_eq!(plan("e == 'paid'").target_by_primary_key(), None);
    let table = Arc::new(table());
    let whole = TablePlan::compile(&same_shape(&table), &table).unwrap();
    assert_eq!(whole.target_by_primary_key(), Some(0));
}
