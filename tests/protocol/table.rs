//! The table of the model, and the bridge between its small values and the product's own functions:
//! rows to mutations, folding, equality and repair are the product's, on the product's types.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tandem_mapping::{
    ExpectedRow, OnBadRow, OnNewColumn, OnTruncate, TableConfig, TablePlan, TargetConfig, TopicChoice,
    ZeroDates, differences,
};
use tandem_model::{
    Cell, Change, ColumnDef, ColumnType, Mutation, Op, Row, SourceInfo, StoredRow, TableDef, TableName,
    TargetKey, Value, Version, Write as ProductWrite,
};
use tandem_protocol::dead_letter;
use tandem_protocol::dual_write::{RowChange, plan_secondary_writes};

use crate::cassandra::{Place, Put, Write};

/// Primary keys.
pub(crate) const IDS: u8 = 2;
/// Values of `k`, which is in the second target's key.
const KS: u8 = 2;
/// Rows that can be in Cassandra: of the first target by id, of the second by k and id.
pub(crate) const PLACES: usize = IDS as usize * (1 + KS as usize);

/// A row but for its id: `k`, and `a`, which may be NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Small {
    pub(crate) k: u8,
    pub(crate) a: Option<u8>,
}

/// The table as it is at one moment.
pub(crate) type Rows = [Option<Small>; IDS as usize];

/// A row change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SmallChange {
    pub(crate) id: u8,
    pub(crate) before: Option<Small>,
    pub(crate) after: Option<Small>,
}

/// A write that is on its way to a place.
pub(crate) type Placed = (usize, i16, Write);

/// The plan, and what its pure functions say of every row and change there can be: asked once, since
/// an exploration asks millions of times.
struct Table {
    plan: TablePlan,
    places: HashMap<(usize, TargetKey), usize>,
    keys: Vec<(usize, TargetKey)>,
    places_of: [Vec<usize>; IDS as usize],
    expected: HashMap<(u8, Small), Vec<ExpectedRow>>,
    changes: HashMap<(SmallChange, Op), Vec<Mutation>>,
}

/// `t(id, k, a)`: one target by id with `k` and `a`, of the rows whose `a` is not 2; one by (k, id)
/// with `a`.
fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let column = |name: &str, nullable| ColumnDef {
            name: name.into(),
            ty: ColumnType::Int { bits: 8, unsigned: false },
            nullable,
        };
        let def = Arc::new(TableDef {
            name: TableName::new("d", "t"),
            columns: vec![column("id", false), column("k", false), column("a", true)],
            primary_key: vec![0],
        });
        let target = |table: &str, partition: &str, clustering: &[&str]| TargetConfig {
            table: table.into(),
            partition_key: vec![partition.into()],
            clustering_key: clustering.iter().map(|c| (*c).to_owned()).collect(),
            ..TargetConfig::default()
        };
        let filtered = TargetConfig { r#where: Some("a != 2".into()), ..target("by_id", "id", &[]) };
        let config = TableConfig {
            source: "d.t".into(),
            entity: None,
            topic: TopicChoice::Shared,
            on_new_column: OnNewColumn::Halt,
            on_truncate: OnTruncate::default(),
            on_bad_row: OnBadRow::default(),
            zero_dates: ZeroDates::default(),
            exclude_from_capture: Vec::new(),
            target: vec![filtered, target("by_k", "k", &["id"])],
        };
        Table::of(TablePlan::compile(&config, &def).unwrap())
    })
}

impl Table {
    fn of(plan: TablePlan) -> Self {
        let smalls = || (0..KS).flat_map(|k| [None, Some(1), Some(2)].map(|a| Small { k, a }));
        let (mut keys, mut places, mut expected, mut changes) =
            (Vec::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let mut places_of = [const { Vec::new() }; IDS as usize];
        for id in 1..=IDS {
            for small in smalls() {
                for key in plan.target_keys(&row(id, small)).unwrap() {
                    if !keys.contains(&key) {
                        places_of[id as usize - 1].push(keys.len());
                        places.insert(key.clone(), keys.len());
                        keys.push(key);
                    }
                }
                expected.insert((id, small), plan.expected(&row(id, small)).unwrap());
            }
            let images = || smalls().map(Some).chain([None]);
            for (before, after) in images().flat_map(|before| images().map(move |after| (before, after))) {
                let ops: &[Op] = match (before, after) {
                    (None, None) => &[],
                    (None, Some(_)) => &[Op::Create, Op::Snapshot, Op::Resnapshot],
                    (Some(_), Some(_)) => &[Op::Update],
                    (Some(_), None) => &[Op::Delete],
                };
                for &op in ops {
                    let of = SmallChange { id, before, after };
                    let mut mutations = Vec::new();
                    plan.mutations(&change(plan.source(), of, op), &mut mutations).unwrap();
                    changes.insert((of, op), mutations);
                }
            }
        }
        assert_eq!(places.len(), PLACES);
        Self { plan, places, keys, places_of, expected, changes }
    }

    fn mutations(&self, of: SmallChange, op: Op, version: i16) -> Vec<Mutation> {
        let mut mutations = self.changes[&(of, op)].clone();
        for mutation in &mut mutations {
            mutation.version = Version(version.into());
        }
        mutations
    }
}

/// The definition of the table.
pub(crate) fn definition() -> &'static Arc<TableDef> {
    table().plan.source()
}

pub(crate) fn row(id: u8, small: Small) -> Row {
    let int = |v: u8| Value::Int(v.into());
    vec![int(id), int(small.k), small.a.map_or(Value::Null, int)]
}

/// The product's change for one of the model's.
fn change(def: &Arc<TableDef>, of: SmallChange, op: Op) -> Change {
    let image = |small: Option<Small>| small.map(|s| row(of.id, s));
    Change {
        table: Arc::clone(def),
        op,
        before: image(of.before),
        after: image(of.after),
        version: Version(0),
        source: SourceInfo::default(),
    }
}

/// What the product's mapping makes of a change.
pub(crate) fn mutations(of: SmallChange, version: i16) -> Vec<Mutation> {
    let op = match (of.before, of.after) {
        (None, _) => Op::Create,
        (Some(_), Some(_)) => Op::Update,
        (Some(_), None) => Op::Delete,
    };
    table().mutations(of, op, version)
}

/// What it makes of a row that was read, by the first copy (`Op::Snapshot`) or by one made anew.
pub(crate) fn read_mutations(op: Op, id: u8, small: Small, version: i16) -> Vec<Mutation> {
    table().mutations(SmallChange { id, before: None, after: Some(small) }, op, version)
}

/// Whether a row belongs into the target by id.
pub(crate) fn passes_the_filter(small: Small) -> bool {
    table().expected[&(1, small)].iter().any(|e| e.target == 0)
}

/// `k` and `a` of a row as a reader of the target by id sees them.
pub(crate) fn stored_by_id(id: u8, cassandra: &[Place; PLACES]) -> Option<(Option<u8>, Option<u8>)> {
    let place = places_of(id).iter().find(|&&place| key_of(place).0 == 0).expect("each row has a key");
    cassandra[*place].read().map(|[k, a]| (k, a))
}

/// The product's repair of a row: `extra` are the places that hold a row and should not.
pub(crate) fn repair(id: u8, small: Option<Small>, extra: &[usize], version: i16) -> Vec<Mutation> {
    let keys: Vec<(usize, TargetKey)> = extra.iter().map(|&place| key_of(place).clone()).collect();
    table().plan.repair(small.map(|s| row(id, s)).as_ref(), &keys, Version(version.into())).unwrap()
}

/// The product's secondary writes of a transaction at a borrowed version: one list of mutations a row.
pub(crate) fn secondary_writes(changes: &[SmallChange], version: i16) -> Vec<Vec<Mutation>> {
    static PLAN: OnceLock<Arc<TablePlan>> = OnceLock::new();
    let plan = PLAN.get_or_init(|| Arc::new(table().plan.clone()));
    let rows: Vec<_> = changes
        .iter()
        .map(|of| (vec![Value::Int(of.id.into())], [of.before, of.after].map(|s| s.map(|s| row(of.id, s)))))
        .collect();
    let changes: Vec<RowChange<'_>> = rows
        .iter()
        .map(|(key, [before, after])| RowChange { plan, key, before: before.as_ref(), after: after.as_ref() })
        .collect();
    let writes = plan_secondary_writes(&changes, |_| Some(Version(version.into()))).unwrap();
    writes.into_iter().map(|write| write.mutations).collect()
}

fn key_of(place: usize) -> &'static (usize, TargetKey) {
    &table().keys[place]
}

/// Mutations as writes of the model's Cassandra.
pub(crate) fn placed(mutations: Vec<Mutation>) -> Vec<Placed> {
    mutations
        .into_iter()
        .map(|m| {
            let target = usize::from(&*m.target == "by_k");
            let place = table().places[&(target, m.key)];
            let write = match m.write {
                ProductWrite::DeleteRow => Write::Delete,
                ProductWrite::Upsert(cells) => {
                    let mut puts = [Put::Unset; 2];
                    for (put, cell) in puts.iter_mut().zip(cells) {
                        *put = match cell {
                            Cell::Unset => Put::Unset,
                            Cell::Null => Put::Null,
                            Cell::Value(bytes) => Put::Value(*bytes.last().expect("an int has bytes")),
                        };
                    }
                    Write::Upsert(puts)
                }
            };
            (place, m.version.0 as i16, write)
        })
        .collect()
}

/// The places of a row's id, and of nobody else.
pub(crate) fn places_of(id: u8) -> &'static [usize] {
    &table().places_of[id as usize - 1]
}

/// The keys that a row has or had in the targets, as the product finds them for a change that was put aside.
pub(crate) fn former_keys(of: SmallChange) -> Vec<(usize, TargetKey)> {
    let op = if of.after.is_some() { Op::Update } else { Op::Delete };
    dead_letter::former_keys(&table().plan, &change(definition(), of, op))
}

/// The product's retry of a change that was put aside.
pub(crate) fn retry(
    id: u8,
    small: Option<Small>,
    former_keys: &[(usize, TargetKey)],
    version: i16,
) -> Vec<Mutation> {
    let row = small.map(|s| row(id, s));
    dead_letter::retry(&table().plan, row.as_ref(), former_keys, Version(version.into())).unwrap()
}

/// Whether a row of MySQL and its places differ, by the product's equality, and which of the places
/// hold a row and should not.
pub(crate) fn differing(id: u8, small: Option<Small>, cassandra: &[Place; PLACES]) -> (bool, Vec<usize>) {
    let expected = small.map_or(&[][..], |s| &table().expected[&(id, s)]);
    let (mut differ, mut extra) = (false, Vec::new());
    for &place in places_of(id) {
        let wanted = expected.iter().find(|e| e.target == key_of(place).0 && e.key == key_of(place).1);
        let regular = if key_of(place).0 == 0 { 2 } else { 1 };
        let stored = cassandra[place].read().map(|cells| StoredRow {
            cells: cells[..regular].iter().map(|c| c.map(|v| vec![v])).collect(),
            writetimes: vec![None; regular],
        });
        if differences(wanted.map(|e| &e.cells[..]), stored.as_ref()).is_some() {
            differ = true;
            if wanted.is_none() {
                extra.push(place);
            }
        }
    }
    (differ, extra)
}
