//! Cassandra converges to the mapping of MySQL's last row, whatever the order, the repetition and the folding
//! of the writes. The tests use a small model of Cassandra's own rules.

#![allow(clippy::unwrap_used)] // the helpers of a test fail it by panicking

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tandem_mapping::{TableConfig, TablePlan, TargetConfig, differences, fold, same_shape};
use tandem_model::{
    Cell, Change, ColumnDef, Mutation, Op, Row, SourceInfo, StoredRow, TableDef, TableName, TargetKey, Value,
    Version, Write,
};

/// A row as Cassandra's storage engine keeps it. Everything has its own timestamp, and nothing is ever
/// removed.
#[derive(Debug, Clone, Default, PartialEq)]
struct CassandraRow {
    marker: Option<Version>,
    tombstone: Option<Version>,
    cells: BTreeMap<usize, (Version, Option<Vec<u8>>)>,
}

impl CassandraRow {
    fn apply(&mut self, version: Version, write: &Write) {
        let cells = match write {
            Write::DeleteRow => {
                self.tombstone = self.tombstone.max(Some(version));
                return;
            }
            Write::Upsert(cells) => cells,
        };
        self.marker = self.marker.max(Some(version));
        for (i, cell) in cells.iter().enumerate() {
            let new = match cell {
                Cell::Unset => continue,
                Cell::Null => None,
                Cell::Value(bytes) => Some(bytes.clone()),
            };
            // The newest cell wins. At the same timestamp a tombstone wins, then the larger value.
            let rank =
                |(version, value): &(Version, Option<Vec<u8>>)| (*version, value.is_none(), value.clone());
            let new = (version, new);
            let old = self.cells.entry(i).or_insert_with(|| new.clone());
            if rank(&new) > rank(old) {
                *old = new;
            }
        }
    }

    /// The result of a SELECT. `None` if neither the row marker nor a cell is live.
    fn select(&self, columns: usize) -> Option<StoredRow> {
        // A tombstone also covers its own timestamp.
        let lives = |version: &Version| Some(*version) > self.tombstone;
        let live = |i| self.cells.get(&i).filter(|(version, value)| lives(version) && value.is_some());
        let row = StoredRow {
            cells: (0..columns).map(|i| live(i).and_then(|(_, value)| value.clone())).collect(),
            writetimes: (0..columns).map(|i| live(i).map(|(version, _)| version.0)).collect(),
        };
        let exists = self.marker.as_ref().is_some_and(lives) || row.cells.iter().any(Option::is_some);
        exists.then_some(row)
    }
}

type Cassandra = BTreeMap<(Arc<str>, TargetKey), CassandraRow>;

fn apply(cassandra: &mut Cassandra, mutations: &[Mutation]) {
    for m in mutations {
        cassandra.entry((Arc::clone(&m.target), m.key.clone())).or_default().apply(m.version, &m.write);
    }
}

/// `d.t (id, k, a null, b null)` in four tables: `t` by `id`, `by_k` by `k` and `id`, and the same two with a
/// filter, `some` and `some_by_k`. The latter filters by a column that it does not hold.
fn plan() -> TablePlan {
    plan_with(["a != 1", "b != null && b > 0"].map(|filter| Some(filter.to_owned())))
}

/// The same tables with other filters, or without filters.
fn plan_with([some, some_by_k]: [Option<String>; 2]) -> TablePlan {
    let column =
        |name: &str, nullable| ColumnDef { name: name.into(), ty: "tinyint".parse().unwrap(), nullable };
    let table = TableDef {
        name: TableName::new("d", "t"),
        columns: vec![column("id", false), column("k", false), column("a", true), column("b", true)],
        primary_key: vec![0],
    };
    let mut config: TableConfig = same_shape(&table);
    let by_k = TargetConfig {
        table: "by_k".into(),
        partition_key: vec!["k".into()],
        clustering_key: vec!["id".into()],
        ..TargetConfig::default()
    };
    let some = TargetConfig { table: "some".into(), r#where: some, ..config.target[0].clone() };
    let some_by_k = TargetConfig {
        table: "some_by_k".into(),
        r#where: some_by_k,
        exclude_from_target: vec!["b".into()],
        ..by_k.clone()
    };
    config.target.extend([by_k, some, some_by_k]);
    TablePlan::compile(&config, &Arc::new(table)).unwrap()
}

/// The number of different values of `k`.
const KEYS: i64 = 3;

fn row() -> impl Strategy<Value = Row> {
    let nullable = || prop_oneof![Just(Value::Null), (0..3i64).prop_map(Value::Int)];
    (0..KEYS, nullable(), nullable()).prop_map(|(k, a, b)| vec![Value::Int(1), Value::Int(k), a, b])
}

/// The row's key in each target under every value of `k`.
fn every_key(plan: &TablePlan) -> Vec<(usize, TargetKey)> {
    let keys = (0..KEYS).flat_map(|k| {
        let row = vec![Value::Int(1), Value::Int(k), Value::Null, Value::Null];
        plan.target_keys(&row).unwrap()
    });
    keys.collect()
}

/// A borrowed write: the state after `seen` changes at the watermark before change `watermark`, written by a
/// backfill or by a repair.
#[derive(Debug, Clone)]
struct Borrowed {
    seen: usize,
    watermark: usize,
    repair: bool,
}

/// All states of one row in order, and the borrowed writes of it.
#[derive(Debug, Clone)]
struct History {
    states: Vec<Option<Row>>,
    borrowed: Vec<Borrowed>,
}

impl History {
    fn change_version(number: usize) -> Version {
        Version(100 + 10 * number as i64)
    }

    /// The watermark between the changes `number - 1` and `number`.
    fn watermark_version(number: usize) -> Version {
        Version(95 + 10 * number as i64)
    }

    /// The mutations of each change and of each borrowed write.
    fn writes(&self, plan: &TablePlan) -> Vec<Vec<Mutation>> {
        let mut all = Vec::new();
        let change = |op, before: Option<&Row>, after: Option<&Row>, version| {
            let change = Change {
                table: Arc::clone(plan.source()),
                op,
                before: before.cloned(),
                after: after.cloned(),
                version,
                source: SourceInfo::default(),
            };
            let mut out = Vec::new();
            plan.mutations(&change, &mut out).unwrap();
            out
        };
        for (i, states) in self.states.windows(2).enumerate() {
            let (before, after) = (states[0].as_ref(), states[1].as_ref());
            let op = match (before, after) {
                (None, None) => continue,
                (None, Some(_)) => Op::Create,
                (Some(_), Some(_)) => Op::Update,
                (Some(_), None) => Op::Delete,
            };
            all.push(change(op, before, after, Self::change_version(i)));
        }
        for borrowed in &self.borrowed {
            let state = self.states[borrowed.seen].as_ref();
            let version = Self::watermark_version(borrowed.watermark);
            if borrowed.repair {
                all.push(plan.repair(state, &every_key(plan), version).unwrap());
            } else if let Some(state) = state {
                all.push(change(Op::Snapshot, None, Some(state), version));
            }
        }
        all
    }

    fn check(&self, plan: &TablePlan, cassandra: &Cassandra) -> Result<(), TestCaseError> {
        let expected = match self.states.last() {
            Some(Some(row)) => plan.expected(row).unwrap(),
            _ => vec![],
        };
        let name = |i: usize| plan.targets()[i].table().name.as_str();
        for e in &expected {
            let stored = cassandra
                .iter()
                .find(|((target, key), _)| **target == *name(e.target) && *key == e.key)
                .and_then(|(_, row)| row.select(e.cells.len()));
            prop_assert_eq!(differences(Some(&e.cells), stored.as_ref()), None);
        }
        for ((target, key), row) in cassandra {
            if !expected.iter().any(|e| name(e.target) == &**target && e.key == *key) {
                prop_assert_eq!(differences(None, row.select(3).as_ref()), None);
            }
        }
        Ok(())
    }
}

fn history() -> impl Strategy<Value = History> {
    let states = proptest::collection::vec(prop_oneof![1 => Just(None), 3 => row().prop_map(Some)], 1..12);
    let borrowed = proptest::collection::vec(
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()),
        1..5,
    );
    (states, borrowed).prop_map(|(states, borrowed)| {
        let borrowed = borrowed.into_iter().enumerate().map(|(i, (seen, watermark, repair))| {
            let seen = seen.index(states.len());
            // The first borrowed write is the backfill of a row that existed before the log.
            Borrowed { seen, watermark: watermark.index(seen + 1), repair: repair && i > 0 }
        });
        History { borrowed: borrowed.collect(), states }
    })
}

/// All writes in any order, each at least once and some repeatedly.
fn deliveries() -> impl Strategy<Value = (TablePlan, History, Vec<Vec<Mutation>>)> {
    history().prop_flat_map(|history| {
        let plan = plan();
        let writes = history.writes(&plan);
        let again = if writes.is_empty() {
            Just(vec![]).boxed()
        } else {
            proptest::collection::vec(proptest::sample::select(writes.clone()), 0..8).boxed()
        };
        let shuffled =
            again.prop_flat_map(move |again| Just([writes.clone(), again].concat()).prop_shuffle());
        (Just(plan), Just(history), shuffled)
    })
}

/// This many cases, unless `PROPTEST_CASES` is set.
fn cases(cases: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(cases),
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn any_order_ends_in_the_last_row((plan, history, writes) in deliveries()) {
        let mut cassandra = Cassandra::new();
        for write in &writes {
            apply(&mut cassandra, write);
        }
        history.check(&plan, &cassandra)?;
    }

    #[test]
    fn any_folds_in_any_order_end_in_the_last_row(
        (plan, history, writes) in deliveries(),
        batch_of in proptest::collection::vec(0..4usize, 24),
    ) {
        let mut batches = vec![Vec::new(); 4];
        for (write, batch) in writes.into_iter().zip(batch_of) {
            batches[batch].extend(write);
        }
        let mut cassandra = Cassandra::new();
        for batch in batches {
            apply(&mut cassandra, &fold(batch));
        }
        history.check(&plan, &cassandra)?;
    }

    /// A replay from an earlier offset: first a prefix is written, then everything, each folded in log order.
    #[test]
    fn a_replay_changes_nothing(history in history(), stop in any::<prop::sample::Index>()) {
        let plan = plan();
        let writes = history.writes(&plan);
        let mut cassandra = Cassandra::new();
        apply(&mut cassandra, &fold(writes[..stop.index(writes.len() + 1)].concat()));
        apply(&mut cassandra, &fold(writes.concat()));
        history.check(&plan, &cassandra)?;
        let once = cassandra.clone();
        apply(&mut cassandra, &fold(writes.concat()));
        prop_assert_eq!(once, cassandra);
    }

    /// A repair removes the effects of lost writes and of out-of-band writes below its version.
    #[test]
    fn a_repair_fixes_everything_below_its_version(
        (plan, history, writes) in deliveries(),
        lost in proptest::collection::vec(any::<bool>(), 24),
        out_of_band in proptest::collection::vec((row(), any::<bool>(), 0..300i64), 0..4),
    ) {
        let mut cassandra = Cassandra::new();
        for (write, _) in writes.iter().zip(lost).filter(|(_, lost)| !lost) {
            apply(&mut cassandra, write);
        }
        let last = history.states.len() - 1;
        let repaired = Version::max(History::watermark_version(last + 1), Version(300));
        // Out-of-band writers ignore the filters.
        let anywhere = plan_with([None, None]);
        for (row, delete, version) in out_of_band {
            let also = if delete { anywhere.target_keys(&row).unwrap() } else { vec![] };
            let row = (!delete).then_some(&row);
            apply(&mut cassandra, &anywhere.repair(row, &also, Version(version)).unwrap());
        }
        let repair = plan.repair(history.states[last].as_ref(), &every_key(&plan), repaired).unwrap();
        apply(&mut cassandra, &fold(repair));
        history.check(&plan, &cassandra)?;
    }

    /// A fold has at most a tombstone and then an upsert above it for each row. Rows are adjacent and in the
    /// order of their first mutation.
    #[test]
    fn a_fold_has_at_most_two_writes_per_row((_, _, writes) in deliveries(), taken in 0..10usize) {
        let input = writes[..taken.min(writes.len())].concat();
        let output = fold(input.clone());
        let mut first_seen: Vec<(&Arc<str>, &TargetKey)> = Vec::new();
        for m in &input {
            if !first_seen.contains(&(&m.target, &m.key)) {
                first_seen.push((&m.target, &m.key));
            }
        }
        let groups: Vec<&[Mutation]> = output.chunk_by(|a, b| a.target == b.target && a.key == b.key).collect();
        let order: Vec<_> = groups.iter().map(|g| (&g[0].target, &g[0].key)).collect();
        prop_assert_eq!(order, first_seen);
        for group in groups {
            let fine = match group {
                [_] => true,
                [a, b] => a.write == Write::DeleteRow && matches!(b.write, Write::Upsert(_)) && a.version < b.version,
                _ => false,
            };
            prop_assert!(fine, "{:?}", group);
        }
        prop_assert_eq!(fold(output.clone()), output);
    }
}

#[test]
fn images_of_one_version_merge_as_cassandra_merges_them() {
    let upsert = |version, cells: [Cell; 4]| Mutation {
        target: "t".into(),
        key: vec![vec![1]],
        version: Version(version),
        write: Write::Upsert(cells.to_vec()),
    };
    let value = |v: u8| Cell::Value(vec![v]);
    let a = upsert(5, [value(1), value(9), Cell::Unset, value(1)]);
    let b = upsert(5, [value(2), Cell::Null, value(3), Cell::Unset]);
    let old = upsert(4, [value(7), value(7), value(7), value(7)]);
    let merged = upsert(5, [value(2), Cell::Null, value(3), value(1)]);
    assert_eq!(fold(vec![a.clone(), old.clone(), b.clone()]), std::slice::from_ref(&merged));
    assert_eq!(fold(vec![b, a, old]), [merged]);
}
