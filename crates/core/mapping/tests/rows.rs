//! The mutations of changes and repairs, and the way back from a target key.

#![allow(clippy::unwrap_used)] // the helpers of a test fail it by panicking

use std::sync::Arc;

use proptest::prelude::*;
use tandem_mapping::{RowError, TableConfig, TablePlan, TargetConfig, same_shape};
use tandem_model::{
    Cell, Change, ColumnDef, Decimal, Epoch, Mutation, NativeSource, Op, Row, SourceInfo, StoredRow,
    TableDef, TableName, Value, Version, Write,
};

fn column(name: &str, ty: &str, nullable: bool) -> ColumnDef {
    ColumnDef { name: name.into(), ty: ty.parse().unwrap(), nullable }
}

/// `d.t (id tinyint, k text, a tinyint null, born date null)` in two tables: `t` by `id`, and `by_k` by `k`
/// and `id`, without `born`.
fn plan() -> TablePlan {
    let table = TableDef {
        name: TableName::new("d", "t"),
        columns: vec![
            column("id", "tinyint", false),
            column("k", "varchar(9)", false),
            column("a", "tinyint", true),
            column("born", "date", true),
        ],
        primary_key: vec![0],
    };
    let mut config = same_shape(&table);
    config.target.push(TargetConfig {
        table: "by_k".into(),
        partition_key: vec!["k".into()],
        clustering_key: vec!["id".into()],
        exclude_from_target: vec!["born".into()],
        ..TargetConfig::default()
    });
    TablePlan::compile(&config, &Arc::new(table)).unwrap()
}

fn row(k: &str, a: Option<i64>) -> Row {
    vec![Value::Int(1), Value::Text(k.into()), a.map_or(Value::Null, Value::Int), Value::Null]
}

fn change(plan: &TablePlan, op: Op, before: Option<Row>, after: Option<Row>) -> Change {
    Change {
        table: Arc::clone(plan.source()),
        op,
        before,
        after,
        version: Version(7),
        source: SourceInfo::default(),
    }
}

fn written(plan: &TablePlan, change: &Change) -> Result<Vec<Mutation>, RowError> {
    let mut out = Vec::new();
    let result = plan.mutations(change, &mut out);
    assert!(result.is_ok() || out.is_empty());
    result.map(|()| out)
}

fn mutation(target: &str, key: &[&[u8]], write: Write) -> Mutation {
    Mutation {
        target: target.into(),
        key: key.iter().map(|k| k.to_vec()).collect(),
        version: Version(7),
        write,
    }
}

fn value(bytes: &[u8]) -> Cell {
    Cell::Value(bytes.to_vec())
}

#[test]
fn what_each_operation_writes() {
    let plan = plan();
    let upsert = |t: &[Cell], by_k: &[Cell], k: &[u8]| {
        vec![
            mutation("t", &[&[1]], Write::Upsert(t.to_vec())),
            mutation("by_k", &[k, &[1]], Write::Upsert(by_k.to_vec())),
        ]
    };
    let set = |k: &[u8]| upsert(&[value(k), value(&[5]), Cell::Unset], &[value(&[5])], k);
    let unset = |k: &[u8]| upsert(&[value(k), Cell::Unset, Cell::Unset], &[Cell::Unset], k);
    let nulled = |k: &[u8]| upsert(&[value(k), Cell::Null, Cell::Unset], &[Cell::Null], k);
    let deleted = |k: &[u8]| {
        vec![mutation("t", &[&[1]], Write::DeleteRow), mutation("by_k", &[k, &[1]], Write::DeleteRow)]
    };
    // The row keeps its key in `t`. In `by_k` it moves from `x` to `y`.
    let moved = vec![
        mutation("t", &[&[1]], Write::Upsert(vec![value(b"y"), Cell::Null, Cell::Unset])),
        mutation("by_k", &[b"x", &[1]], Write::DeleteRow),
        mutation("by_k", &[b"y", &[1]], Write::Upsert(vec![Cell::Unset])),
    ];
    let nulls = upsert(&[value(b"x"), Cell::Null, Cell::Null], &[Cell::Null], b"x");
    let (five, null) = (Some(row("x", Some(5))), Some(row("x", None)));
    for (op, before, after, expected) in [
        (Op::Create, None, five.clone(), set(b"x")),
        (Op::Snapshot, None, null.clone(), unset(b"x")),
        (Op::Resnapshot, None, null.clone(), nulls),
        (Op::Update, null.clone(), five.clone(), set(b"x")),
        (Op::Update, five.clone(), null.clone(), nulled(b"x")),
        (Op::Update, null.clone(), null.clone(), unset(b"x")),
        (Op::Update, five.clone(), Some(row("y", None)), moved),
        (Op::Delete, five.clone(), None, deleted(b"x")),
    ] {
        assert_eq!(written(&plan, &change(&plan, op, before, after)), Ok(expected), "{op:?}");
    }
}

/// A native write may have been made by half before. So apply writes it whole, whatever was before.
#[test]
fn a_native_change_writes_nulls_and_deletes_the_former_keys() {
    let plan = plan();
    let (here, there) = (Some(row("x", None)), Some(row("y", None)));
    let repair = |row: Option<&Row>, former: Option<&Row>| {
        let former = former.map_or(Vec::new(), |row| plan.possible_keys(row));
        plan.repair(row, &former, Version(7))
    };
    for (op, before, after) in [
        (Op::Create, None, here.clone()),
        (Op::Update, here.clone(), here.clone()),
        (Op::Update, here.clone(), there),
        (Op::Delete, here, None),
    ] {
        let expected = repair(after.as_ref(), before.as_ref());
        let mut native = change(&plan, op, before, after);
        native.source.native = Some(NativeSource { epoch: Epoch(1), request: None });
        assert_eq!(written(&plan, &native), expected, "{op:?}");
        assert!(!expected.unwrap().iter().any(|m| match &m.write {
            Write::Upsert(cells) => cells.contains(&Cell::Unset),
            Write::DeleteRow => false,
        }));
    }
}

#[test]
fn rows_that_cannot_be_written_are_errors() {
    let plan = plan();
    let name = || TableName::new("d", "t");
    let fine = || Some(row("x", Some(5)));
    let mut other_key = row("x", None);
    other_key[0] = Value::Int(2);
    let mut zero_date = row("x", None);
    zero_date[3] = Value::InvalidDate("0000-00-00".into());
    let mut wrong_kind = row("x", None);
    wrong_kind[2] = Value::Text("secret".into());
    let mut other_table = change(&plan, Op::Create, None, fine());
    let mut altered = TableDef::clone(plan.source());
    altered.columns[2].name = "b".into();
    other_table.table = Arc::new(altered);
    let long = "k".repeat(65_536);
    for (change, error) in [
        (change(&plan, Op::Update, fine(), Some(other_key)), RowError::PrimaryKeyChanged { table: name() }),
        (change(&plan, Op::Update, None, fine()), RowError::MissingImage { table: name(), image: "before" }),
        (change(&plan, Op::Create, fine(), None), RowError::MissingImage { table: name(), image: "after" }),
        (change(&plan, Op::Create, None, Some(vec![Value::Int(1)])), RowError::OtherSchema { table: name() }),
        (other_table, RowError::OtherSchema { table: name() }),
        (
            change(&plan, Op::Create, None, Some(zero_date)),
            RowError::InvalidDate { table: name(), column: "born".into() },
        ),
        (
            change(&plan, Op::Create, None, Some(wrong_kind)),
            RowError::Kind {
                table: name(),
                column: "a".into(),
                ty: "tinyint".parse().unwrap(),
                found: "text",
            },
        ),
        (
            change(&plan, Op::Create, None, Some(row("x", Some(300)))),
            RowError::Range { table: name(), column: "a".into(), ty: "tinyint".parse().unwrap() },
        ),
        // The empty text is not allowed as the partition key of `by_k`, but it is allowed in a cell of `t`.
        (
            change(&plan, Op::Create, None, Some(row("", None))),
            RowError::EmptyPartitionKey { table: name(), column: "k".into(), target: "by_k".into() },
        ),
        (
            change(&plan, Op::Create, None, Some(row(&long, None))),
            RowError::KeyTooLong { target: "by_k".into(), part: "partition", bytes: 65_536 },
        ),
    ] {
        let got = written(&plan, &change).unwrap_err();
        assert!(!got.to_string().contains("secret") && !got.to_string().contains("0000"));
        assert_eq!(got, error);
    }
}

#[test]
fn composite_and_clustering_keys_have_limits() {
    let table = Arc::new(TableDef {
        name: TableName::new("d", "t"),
        columns: vec![column("a", "text", false), column("b", "text", false)],
        primary_key: vec![0, 1],
    });
    let compile = |partition_key: &[&str], clustering_key: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let target = TargetConfig {
            table: "x".into(),
            partition_key: names(partition_key),
            clustering_key: names(clustering_key),
            ..TargetConfig::default()
        };
        let config = TableConfig { target: vec![target], ..same_shape(&table) };
        TablePlan::compile(&config, &table).unwrap()
    };
    let row = |a: usize, b: usize| vec![Value::Text("a".repeat(a)), Value::Text("b".repeat(b))];
    let too_long = |part, bytes| Err(RowError::KeyTooLong { target: "x".into(), part, bytes });
    let composite = compile(&["a", "b"], &[]);
    let clustered = compile(&["a"], &["b"]);
    for (plan, row, expected) in [
        (&composite, row(0, 0), Ok(())),
        (&composite, row(65_528, 1), Ok(())),
        (&composite, row(65_529, 1), too_long("partition", 65_536)),
        (&clustered, row(1, 0), Ok(())),
        (&clustered, row(65_535, 65_535), Ok(())),
        (&clustered, row(1, 65_536), too_long("clustering", 65_536)),
    ] {
        assert_eq!(plan.target_keys(&row).map(|_| ()), expected);
    }
}

#[test]
fn a_repair_writes_nulls_and_tombstones() {
    let plan = plan();
    let key = |parts: &[&[u8]]| parts.iter().map(|p| p.to_vec()).collect::<Vec<_>>();
    let delete = |target: &str, parts: &[&[u8]]| mutation(target, parts, Write::DeleteRow);
    let also = [(1, key(&[b"w", &[1]])), (1, key(&[b"x", &[1]])), (0, key(&[&[1]]))];
    assert_eq!(
        plan.repair(Some(&row("x", None)), &also, Version(7)),
        Ok(vec![
            delete("by_k", &[b"w", &[1]]),
            mutation("t", &[&[1]], Write::Upsert(vec![value(b"x"), Cell::Null, Cell::Null])),
            mutation("by_k", &[b"x", &[1]], Write::Upsert(vec![Cell::Null])),
        ])
    );
    assert_eq!(
        plan.repair(None, &also, Version(7)),
        Ok(vec![delete("by_k", &[b"w", &[1]]), delete("by_k", &[b"x", &[1]]), delete("t", &[&[1]])])
    );
    assert_eq!(
        plan.repair(None, &[(2, vec![])], Version(7)),
        Err(RowError::NoSuchTarget { table: TableName::new("d", "t"), target: 2 })
    );
    assert_eq!(
        plan.repair(None, &[(1, key(&[b"x"]))], Version(7)),
        Err(RowError::BadKey { target: "by_k".into() })
    );
    assert_eq!(plan.source_key(1, &key(&[b"x", &[1]])), Ok(vec![Value::Int(1)]));
    assert_eq!(plan.source_key(1, &key(&[b"x", &[1, 2]])), Err(RowError::BadKey { target: "by_k".into() }));
}

#[test]
fn a_stored_row_converts_back() {
    let plan = plan();
    assert_eq!((plan.target_by_primary_key(), plan.base_target()), (Some(0), Some(0)));
    assert_eq!(plan.key_by_primary_key(0, &[Value::Int(1)]), Ok(vec![vec![1]]));
    let mut full = row("x", Some(5));
    full[3] = Value::Date(9);
    for expected in plan.expected(&full).unwrap() {
        let bytes = |cell: &Cell| if let Cell::Value(bytes) = cell { Some(bytes.clone()) } else { None };
        let stored = StoredRow { cells: expected.cells.iter().map(bytes).collect(), writetimes: vec![] };
        let mut wanted = full.clone();
        for (column, value) in wanted.iter_mut().enumerate() {
            if !plan.targets()[expected.target].columns().any(|held| held == column) {
                *value = Value::Null;
            }
        }
        assert_eq!(plan.row(expected.target, &expected.key, &stored), Ok(wanted));
        let short = StoredRow { cells: vec![], writetimes: vec![] };
        assert!(matches!(plan.row(expected.target, &expected.key, &short), Err(RowError::BadKey { .. })));
    }
    let foreign = StoredRow { cells: vec![Some(vec![0, 1]), None, None], writetimes: vec![] };
    assert!(plan.row(0, &vec![vec![1, 2]], &foreign).is_err());
}

#[test]
fn an_adapted_plan_follows_moved_columns() {
    let plan = plan();
    let mut altered = TableDef::clone(plan.source());
    altered.columns.reverse();
    altered.primary_key = vec![3];
    let adapted = plan.adapt(&Arc::new(altered)).unwrap();
    let mut reversed = row("x", Some(5));
    let expected = plan.expected(&reversed).unwrap();
    reversed.reverse();
    assert_eq!(adapted.expected(&reversed), Ok(expected));
}

/// A type that is allowed in a key, and a value of it.
fn key_value() -> impl Strategy<Value = (String, Value)> {
    let int = |ty: &'static str, min: i64, max: i64| {
        (min..=max).prop_map(move |v| (ty.to_owned(), Value::Int(v))).boxed()
    };
    let uint =
        |ty: &'static str, max: u64| (0..=max).prop_map(move |v| (ty.to_owned(), Value::UInt(v))).boxed();
    let micros = |ty: &'static str, step: i64, make: fn(i64) -> Value| {
        (-62_000_000_000_000_000 / step..253_000_000_000_000_000 / step)
            .prop_map(move |v| (ty.to_owned(), make(v * step)))
            .boxed()
    };
    let decimal = ("-?[0-9]{1,35}", 0u32..=30).prop_map(|(digits, scale)| {
        (format!("decimal(65,{scale})"), Value::Decimal(Decimal::parse(&digits, scale).unwrap()))
    });
    let bytes = proptest::collection::vec(any::<u8>(), 1..20);
    let text = ".{1,20}".prop_map(Value::Text);
    proptest::strategy::Union::new([
        int("tinyint", i8::MIN.into(), i8::MAX.into()),
        int("smallint", i16::MIN.into(), i16::MAX.into()),
        int("mediumint", -8_388_608, 8_388_607),
        int("int", i32::MIN.into(), i32::MAX.into()),
        int("bigint", i64::MIN, i64::MAX),
        int("year", 0, 2155),
        uint("tinyint unsigned", u8::MAX.into()),
        uint("smallint unsigned", u16::MAX.into()),
        uint("mediumint unsigned", 16_777_215),
        uint("int unsigned", u32::MAX.into()),
        uint("bigint unsigned", u64::MAX),
        decimal.boxed(),
        (-719_528..2_932_897).prop_map(|v| ("date".to_owned(), Value::Date(v))).boxed(),
        micros("time(6)", 1, Value::Time),
        micros("datetime", 1_000_000, Value::DateTime),
        micros("datetime(3)", 1_000, Value::DateTime),
        micros("datetime(6)", 1, Value::DateTime),
        micros("timestamp(2)", 10_000, Value::Timestamp),
        micros("timestamp(5)", 10, Value::Timestamp),
        text.clone().prop_map(|v| ("varchar(20)".to_owned(), v)).boxed(),
        text.clone().prop_map(|v| ("enum('a')".to_owned(), v)).boxed(),
        text.prop_map(|v| ("set('a')".to_owned(), v)).boxed(),
        bytes.clone().prop_map(|v| ("varbinary(20)".to_owned(), Value::Bytes(v))).boxed(),
        bytes.prop_map(|v| (format!("binary({})", v.len()), Value::Bytes(v))).boxed(),
    ])
}

proptest! {
    /// The target's key holds the primary key in any order, and further columns.
    #[test]
    fn source_key_is_the_inverse_of_target_keys(
        values in proptest::collection::vec(key_value(), 1..5),
        in_primary_key in proptest::collection::vec(any::<u8>(), 5),
        split in any::<proptest::sample::Index>(),
    ) {
        let columns: Vec<_> =
            values.iter().enumerate().map(|(i, (ty, _))| column(&format!("c{i}"), ty, false)).collect();
        let mut primary_key: Vec<usize> = (0..columns.len()).filter(|&i| i == 0 || in_primary_key[i] > 64).collect();
        primary_key.sort_by_key(|&i| in_primary_key[i]);
        let table = Arc::new(TableDef { name: TableName::new("d", "t"), columns, primary_key });
        let mut names: Vec<String> = table.columns.iter().map(|c| c.name.clone()).collect();
        let clustering_key = names.split_off(split.index(names.len()) + 1);
        let target =
            TargetConfig { table: "x".into(), partition_key: names, clustering_key, ..TargetConfig::default() };
        let config = TableConfig { target: vec![target], ..same_shape(&table) };
        let plan = TablePlan::compile(&config, &table).unwrap();
        let row: Row = values.into_iter().map(|(_, value)| value).collect();
        let keys = plan.target_keys(&row).unwrap();
        prop_assert_eq!(plan.source_key(0, &keys[0].1).unwrap(), table.key_of(&row));
    }
}

#[test]
fn equal_definitions_need_not_be_the_same_arc() {
    let plan = plan();
    let mut change = change(&plan, Op::Create, None, Some(row("x", None)));
    let known = written(&plan, &change).unwrap();
    change.table = Arc::new(TableDef::clone(plan.source()));
    assert_eq!(written(&plan, &change).unwrap(), known);
    let mut other = TableDef::clone(plan.source());
    other.columns.pop();
    change.table = Arc::new(other);
    assert!(written(&plan, &change).is_err());
}

/// A change under a former definition, which lacks a column that a target needs or has it in another form.
#[test]
fn a_former_change_leaves_unknown_cells_alone_and_keeps_its_deletes() {
    let plan = plan();
    let without = |name: &str| {
        let mut table = TableDef::clone(plan.source());
        table.columns.retain(|column| column.name != name);
        Arc::new(table)
    };
    let changed = |table: &Arc<TableDef>, op, before: Option<&Row>, after: Option<&Row>| {
        let former = plan.former(table).unwrap();
        let change =
            Change { table: Arc::clone(table), ..change(&plan, op, before.cloned(), after.cloned()) };
        let written = written(former.plan(), &former.change(change)).unwrap();
        let all = written.iter().map(|mutation| (mutation.target.to_string(), mutation.write.clone()));
        all.collect::<Vec<_>>()
    };
    let (x, y) = (Cell::Value(b"x".to_vec()), Cell::Value(b"y".to_vec()));
    let text = |k: &str| Value::Text(k.into());
    let t = |cells: Vec<Cell>| ("t".to_owned(), Write::Upsert(cells));
    let by_k = |write: Write| ("by_k".to_owned(), write);
    // Without `a`.
    let table = without("a");
    let (old, new) =
        (vec![Value::Int(1), text("x"), Value::Null], vec![Value::Int(1), text("y"), Value::Null]);
    assert_eq!(
        changed(&table, Op::Update, Some(&old), Some(&new)),
        [
            t(vec![y.clone(), Cell::Unset, Cell::Unset]),
            by_k(Write::DeleteRow),
            by_k(Write::Upsert(vec![Cell::Unset]))
        ]
    );
    let gone = [("t".to_owned(), Write::DeleteRow), by_k(Write::DeleteRow)];
    assert_eq!(changed(&table, Op::Delete, Some(&old), None), gone);
    // `a` was a text.
    let mut table = TableDef::clone(plan.source());
    table.columns[2] = column("a", "varchar(9)", false);
    let row = vec![Value::Int(1), text("x"), text("a"), Value::Null];
    let created = [t(vec![x, Cell::Unset, Cell::Unset]), by_k(Write::Upsert(vec![Cell::Unset]))];
    assert_eq!(changed(&Arc::new(table), Op::Create, None, Some(&row)), created);
    // Without `k`, a key column of the second target.
    let row = vec![Value::Int(1), Value::Int(5), Value::Null];
    let five = Cell::Value(vec![5]);
    assert_eq!(
        changed(&without("k"), Op::Create, None, Some(&row)),
        [t(vec![Cell::Unset, five, Cell::Unset])]
    );
    // Other rows had the same key then.
    let mut table = TableDef::clone(plan.source());
    table.primary_key = vec![0, 1];
    assert!(plan.former(&table).is_none());
    assert!(plan.former(&without("id")).is_none());
}
