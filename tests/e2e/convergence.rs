//! Convergence against a real Cassandra (`TANDEM_CASSANDRA_NODES`). Cassandra ends with the mapping of the
//! last row, whatever happens to the row in MySQL, and in whatever order, however often and in whatever
//! batches its changes arrive. A backfill's read in between, at a borrowed version, does not change that.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tandem_cassandra::{CassandraConfig, Target};
use tandem_mapping::{TableConfig, TablePlan, TargetConfig, create_table, differences, fold};
use tandem_model::{
    Change, ColumnDef, ColumnType, Mutation, Op, Row, SourceInfo, TableDef, TableName, TargetKey, Value,
    Version,
};
use tandem_protocol::mint::Minter;

use crate::support::{full, nodes, unique_id};

/// `t(id BIGINT PRIMARY KEY, k INT NOT NULL, a VARCHAR, b VARCHAR)`.
fn table() -> Arc<TableDef> {
    let column = |name: &str, ty, nullable| ColumnDef { name: name.into(), ty, nullable };
    Arc::new(TableDef {
        name: TableName::new("d", "t"),
        columns: vec![
            column("id", ColumnType::Int { bits: 64, unsigned: false }, false),
            column("k", ColumnType::Int { bits: 32, unsigned: false }, false),
            column("a", ColumnType::Text, true),
            column("b", ColumnType::Text, true),
        ],
        primary_key: vec![0],
    })
}

/// One target of the same shape, and one with the changing column `k` as its clustering column. Both again
/// with a filter on a changing column.
fn plan(table: &Arc<TableDef>) -> TablePlan {
    let target = |name: &str, partition: &str, clustering: &[&str]| TargetConfig {
        table: name.into(),
        partition_key: vec![partition.into()],
        clustering_key: clustering.iter().map(|c| (*c).to_owned()).collect(),
        ..TargetConfig::default()
    };
    let config = TableConfig {
        source: "d.t".into(),
        entity: None,
        topic: tandem_mapping::TopicChoice::Shared,
        on_new_column: tandem_mapping::OnNewColumn::Halt,
        on_truncate: tandem_mapping::OnTruncate::default(),
        on_bad_row: tandem_mapping::OnBadRow::default(),
        zero_dates: tandem_mapping::ZeroDates::default(),
        exclude_from_capture: Vec::new(),
        target: vec![
            target("by_id", "id", &[]),
            target("by_k", "id", &["k desc"]),
            TargetConfig { r#where: Some("a != 'value 1'".into()), ..target("some_by_id", "id", &[]) },
            TargetConfig {
                r#where: Some("b == null || k > 0".into()),
                exclude_from_target: vec!["b".into()],
                ..target("some_by_k", "id", &["k desc"])
            },
        ],
    };
    TablePlan::compile(&config, table).unwrap()
}

/// A step of the row's history: the statement's effect on its columns except the key.
#[derive(Debug, Clone)]
enum Step {
    /// An insert, or an update to these values if the row exists.
    Put {
        k: i32,
        a: Option<u8>,
        b: Option<u8>,
    },
    Delete,
    /// A backfill reads the row and writes it at the version of the watermark that was the newest this many
    /// steps ago.
    Read {
        stale: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cell = || proptest::option::of(0..3_u8);
    let step = prop_oneof![
        6 => (0..3_i32, cell(), cell()).prop_map(|(k, a, b)| Step::Put { k, a, b }),
        2 => Just(Step::Delete),
        1 => (0..3_usize).prop_map(|stale| Step::Read { stale }),
    ];
    proptest::collection::vec(step, 1..12)
}

/// A history, and the delivery of its writes.
#[derive(Debug, Clone)]
struct Case {
    steps: Vec<Step>,
    /// This many steps came before the log began. The first backfill has to bring their result.
    before: usize,
    /// How long after the beginning of the log the first backfill reads the row, and how old its watermark
    /// is.
    backfill: (usize, usize),
    seed: u64,
}

fn row(id: i64, k: i32, a: Option<u8>, b: Option<u8>) -> Row {
    let text = |v: Option<u8>| v.map_or(Value::Null, |v| Value::Text(format!("value {v}")));
    vec![Value::Int(id), Value::Int(k.into()), text(a), text(b)]
}

/// The writes of a history, and the row at its end.
fn changes(table: &Arc<TableDef>, id: i64, case: &Case) -> (Vec<Change>, Option<Row>) {
    let mut minter = Minter::after(Version(1_700_000_000_000_000));
    let mut present: Option<Row> = None;
    let mut out = Vec::new();
    let change = |op, before, after, version| Change {
        table: Arc::clone(table),
        op,
        before,
        after,
        version,
        source: SourceInfo::default(),
    };
    let before = case.before.min(case.steps.len());
    let mut steps = case.steps.clone();
    let (after, stale) = case.backfill;
    steps.insert((before + after).min(steps.len()), Step::Read { stale });
    // A watermark after every step, the first at the beginning of the log.
    let mut watermarks = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        if number == before {
            out.clear();
            watermarks = vec![minter.further()];
        }
        match step {
            Step::Put { k, a, b } => {
                let after = row(id, k, a, b);
                let op = if present.is_some() { Op::Update } else { Op::Create };
                out.push(change(op, present.replace(after.clone()), Some(after), minter.further()));
            }
            Step::Delete => {
                if let Some(before) = present.take() {
                    out.push(change(Op::Delete, Some(before), None, minter.further()));
                }
            }
            Step::Read { stale } => {
                let borrowed = watermarks.iter().rev().nth(stale).or(watermarks.first());
                if let (Some(row), Some(version)) = (&present, borrowed) {
                    out.push(change(Op::Snapshot, None, Some(row.clone()), *version));
                }
            }
        }
        if number >= before {
            watermarks.push(minter.further());
        }
    }
    (out, present)
}

/// Every write one to three times, in a random order, in batches that are folded as apply folds them.
fn delivery(plan: &TablePlan, changes: &[Change], seed: u64) -> Vec<Vec<Mutation>> {
    use rand::seq::SliceRandom as _;
    use rand::{Rng as _, SeedableRng as _};
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let mut order: Vec<&Change> = Vec::new();
    for change in changes {
        order.extend(std::iter::repeat_n(change, rng.random_range(1..=3)));
    }
    order.shuffle(&mut rng);
    let mut batches = Vec::new();
    let mut rest = &order[..];
    while !rest.is_empty() {
        let (batch, left) = rest.split_at(rng.random_range(1..=rest.len()));
        let mut mutations = Vec::new();
        for change in batch {
            plan.mutations(change, &mut mutations).unwrap();
        }
        batches.push(if rng.random_bool(0.7) { fold(mutations) } else { mutations });
        rest = left;
    }
    batches
}

#[test]
fn any_delivery_of_any_history_ends_in_the_last_row() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let table = table();
    let plan = plan(&table);
    let config = CassandraConfig::new(nodes(), format!("converge_{}", unique_id()));
    let target = runtime.block_on(async {
        let target = Target::connect(&config).await?;
        target.create_keyspace().await?;
        let tables: Vec<_> = plan.targets().iter().map(|t| t.table().clone()).collect();
        for table in &tables {
            target.execute_ddl(&create_table(target.keyspace(), table, 864_000)).await?;
        }
        target.prepare(&tables).await?;
        Ok::<_, anyhow::Error>(target)
    })?;

    let cases = if full() { 20_000 } else { 2000 };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let id = std::sync::atomic::AtomicI64::new(0);
    let strategy = (steps(), 0..4_usize, (0..3_usize, 0..3_usize), any::<u64>())
        .prop_map(|(steps, before, backfill, seed)| Case { steps, before, backfill, seed });
    let converged = runner.run(&strategy, |case| {
        // Each case has a row of its own, and so has each case into which a failing one shrinks.
        let id = id.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (changes, last) = changes(&table, id, &case);
        let stored = runtime.block_on(async {
            for batch in delivery(&plan, &changes, case.seed) {
                target.write(batch).await.unwrap();
            }
            let mut stored = Vec::new();
            for (number, name, key) in places(&plan, id) {
                stored.push((number, key.clone(), target.read(name, &[key]).await.unwrap().remove(0)));
            }
            stored
        });
        let expected = last.as_ref().map_or(Vec::new(), |row| plan.expected(row).unwrap());
        for (number, key, stored) in stored {
            let cells = expected.iter().find(|e| e.target == number && e.key == key).map(|e| &e.cells[..]);
            let difference = differences(cells, stored.as_ref());
            prop_assert!(
                difference.is_none(),
                "{:?} in {} at {key:?}: {stored:?} instead of {cells:?}",
                difference,
                plan.targets()[number].table().name
            );
        }
        Ok(())
    });
    runtime.block_on(target.execute_ddl(&format!("DROP KEYSPACE \"{}\"", target.keyspace())))?;
    converged.map_err(|e| anyhow::anyhow!("{e}"))
}

/// Every key at which a row with this id can ever be.
fn places(plan: &TablePlan, id: i64) -> Vec<(usize, &str, TargetKey)> {
    let mut places = Vec::new();
    for k in 0..3 {
        for (number, key) in plan.target_keys(&row(id, k, None, None)).unwrap() {
            places.push((number, plan.targets()[number].table().name.as_str(), key));
        }
    }
    places.dedup();
    places
}
