//! The table of the model, and the bridge between its small values and the product's own functions.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tandem_mapping::{
    OnBadRow, OnNewColumn, OnTruncate, TableConfig, TablePlan, TargetConfig, TopicChoice, ZeroDates,
};
use tandem_model::{
    Cell, Change, ColumnDef, ColumnType, Mutation, Op, Row, SourceInfo, StoredRow, TableDef, TableName,
    TargetKey, Value, Version, Write as ProductWrite,
};
use tandem_protocol::cutover::guard::{self, Accepted, Nonce};

use crate::cassandra::{Place, Put, Write};

/// Rows that can be in Cassandra: one of the base target by id, and one by each `k`.
pub(crate) const PLACES: usize = 3;
const ALL: u8 = 15;

/// The row, or that there is none: `k` (0 or 1) and `a` (NULL, or 1 to 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Img(pub(crate) u8);

pub(crate) const DELETED: Img = Img(0);

/// A row with `k` and `a`; 0 is NULL.
pub(crate) const fn img(k: u8, a: u8) -> Img {
    Img(1 + k * 4 + a)
}

/// A guard, small. Version 0 stands for no guard. The nonce is the request's number, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Guard {
    pub(crate) version: u8,
    pub(crate) nonce: u8,
    /// The requests that it remembers, by bit.
    pub(crate) recent: u8,
    pub(crate) image: Img,
    /// The places that are stale, by bit.
    pub(crate) stale: u8,
}

/// A write that is on its way to a place.
pub(crate) type Placed = (usize, Write);

struct Table {
    plan: TablePlan,
    rows: Vec<Option<Row>>,
    keys: Vec<(usize, TargetKey)>,
    native: Vec<Vec<Placed>>,
    captured: HashMap<(Img, Img), Vec<Placed>>,
}

/// `t(id, k, a)`: the base target by id with `k` and `a`; another by (k, id) with `a`.
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
        let config = TableConfig {
            source: "d.t".into(),
            entity: None,
            topic: TopicChoice::Shared,
            on_new_column: OnNewColumn::Halt,
            on_truncate: OnTruncate::default(),
            on_bad_row: OnBadRow::default(),
            zero_dates: ZeroDates::default(),
            exclude_from_capture: Vec::new(),
            target: vec![target("by_id", "id", &[]), target("by_k", "k", &["id"])],
        };
        Table::of(TablePlan::compile(&config, &def).unwrap())
    })
}

impl Table {
    fn of(plan: TablePlan) -> Self {
        let row = |Img(code): Img| {
            let int = |v: u8| Value::Int(v.into());
            let (k, a) = (code.checked_sub(1)? / 4, (code - 1) % 4);
            Some(vec![int(1), int(k), if a == 0 { Value::Null } else { int(a) }])
        };
        let images = || (0..=8).map(Img);
        let rows: Vec<Option<Row>> = images().map(row).collect();
        let mut keys: Vec<(usize, TargetKey)> = Vec::new();
        for row in rows.iter().flatten() {
            for key in plan.target_keys(row).unwrap() {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        assert_eq!(keys.len(), PLACES);
        let mut table = Self { plan, rows, keys, native: Vec::new(), captured: HashMap::new() };
        for image in images() {
            for stale in 0..8 {
                let guard = Guard { version: 1, nonce: 1, recent: 1, image, stale };
                let guard = table.product(guard);
                table.native.push(table.placed(&guard.record().mutations(&table.plan).unwrap()));
            }
        }
        for (before, after) in images().flat_map(|before| images().map(move |after| (before, after))) {
            let (before_row, after_row) = (table.row(before), table.row(after));
            let op = match (&before_row, &after_row) {
                (None, None) => continue,
                (None, Some(_)) => Op::Create,
                (Some(_), Some(_)) => Op::Update,
                (Some(_), None) => Op::Delete,
            };
            let change = Change {
                table: Arc::clone(table.plan.source()),
                op,
                before: before_row,
                after: after_row,
                version: Version(0),
                source: SourceInfo::default(),
            };
            let mut mutations = Vec::new();
            table.plan.mutations(&change, &mut mutations).unwrap();
            let placed = table.placed(&mutations);
            table.captured.insert((before, after), placed);
        }
        table
    }

    fn row(&self, image: Img) -> Option<Row> {
        self.rows[image.0 as usize].clone()
    }

    fn keys_of(&self, places: u8) -> Vec<(usize, TargetKey)> {
        (0..PLACES).filter(|place| places & (1 << place) != 0).map(|place| self.keys[place].clone()).collect()
    }

    fn product(&self, small: Guard) -> guard::Guard {
        let accepted = |bit: u8| Accepted { nonce: nonce(bit), version: Version(small.version.into()) };
        guard::Guard {
            version: Version(small.version.into()),
            nonce: nonce(small.nonce),
            recent: (0..8)
                .filter(|bit| small.recent & (1 << bit) != 0)
                .map(|bit| accepted(bit + 1))
                .collect(),
            before: None,
            image: self.row(small.image),
            stale: self.keys_of(small.stale),
            tentative: None,
        }
    }

    fn placed(&self, mutations: &[Mutation]) -> Vec<Placed> {
        let place = |m: &Mutation| {
            let target = usize::from(&*m.target == "by_k");
            self.keys.iter().position(|key| *key == (target, m.key.clone())).unwrap()
        };
        let put = |cell: &Cell| match cell {
            Cell::Unset => Put::Unset,
            Cell::Null => Put::Null,
            Cell::Value(bytes) => Put::Value(*bytes.last().unwrap()),
        };
        let write = |m: &Mutation| match &m.write {
            ProductWrite::DeleteRow => Write::Delete,
            ProductWrite::Upsert(cells) => {
                let mut puts = [Put::Unset; 2];
                puts.iter_mut().zip(cells).for_each(|(to, cell)| *to = put(cell));
                Write::Upsert(puts)
            }
        };
        mutations.iter().map(|m| (place(m), write(m))).collect()
    }
}

/// The nonce of a request by its number, from 1.
pub(crate) fn nonce(number: u8) -> Nonce {
    Nonce(number.into())
}

/// The plan of the table.
pub(crate) fn plan() -> &'static TablePlan {
    &table().plan
}

/// The product's row of an image.
pub(crate) fn row(image: Img) -> Option<Row> {
    table().row(image)
}

/// The target keys at these places.
pub(crate) fn keys_of(places: u8) -> Vec<(usize, TargetKey)> {
    table().keys_of(places)
}

/// The product's guard, if there is one.
pub(crate) fn product(small: Guard) -> Option<guard::Guard> {
    (small.version > 0).then(|| table().product(small))
}

/// The small guard of a product's. `image` is the one that was given to the product.
pub(crate) fn small(guard: &guard::Guard, image: Img) -> Guard {
    let place = |key| table().keys.iter().position(|known| known == key).unwrap();
    Guard {
        version: guard.version.0 as u8,
        nonce: guard.nonce.0 as u8,
        recent: guard.recent.iter().fold(0, |bits, accepted| bits | 1 << (accepted.nonce.0 - 1)),
        image,
        stale: guard.stale.iter().fold(0, |bits, key| bits | 1 << place(key)),
    }
}

/// What a native write leaves in the targets.
pub(crate) fn native_writes(image: Img, stale: u8) -> &'static [Placed] {
    &table().native[image.0 as usize * 8 + stale as usize]
}

/// What apply makes of a captured change.
pub(crate) fn captured_writes(before: Img, after: Img) -> &'static [Placed] {
    &table().captured[&(before, after)]
}

/// A write without its NULLs.
pub(crate) fn without_nulls(write: Write) -> Write {
    match write {
        Write::Upsert(puts) => Write::Upsert(puts.map(|p| if p == Put::Null { Put::Unset } else { p })),
        other => other,
    }
}

/// The image that a reader of the base target sees. `Img(ALL)` is a mixture that no request wrote.
pub(crate) fn base_image(places: &[Place; PLACES]) -> Img {
    match places[0].read() {
        None => DELETED,
        Some([Some(k @ 0..=1), a]) if a.unwrap_or(0) <= 3 => img(k, a.unwrap_or(0)),
        Some(_) => Img(ALL),
    }
}

/// The row of a place as the product reads it.
pub(crate) fn stored(place: usize, places: &[Place; PLACES]) -> Option<StoredRow> {
    let regular = if place == 0 { 2 } else { 1 };
    let writetimes = places[place].versions();
    places[place].read().map(|cells| StoredRow {
        cells: cells[..regular].iter().map(|c| c.map(|v| vec![v])).collect(),
        writetimes: (0..regular).map(|i| cells[i].map(|_| writetimes[1 + i].into())).collect(),
    })
}

/// Whether a place holds what it must for an image: what the product's mutations leave in an empty table.
pub(crate) fn is_right(place: usize, image: Img, places: &[Place; PLACES]) -> bool {
    type Cells = Option<[Option<u8>; 2]>;
    static EXPECTED: OnceLock<Vec<[Cells; PLACES]>> = OnceLock::new();
    let expected = EXPECTED.get_or_init(|| {
        let of = |image: Img| {
            let mut empty = [Place::default(); PLACES];
            for (place, write) in native_writes(image, 0) {
                empty[*place].apply(1, *write);
            }
            empty.map(|place| place.read())
        };
        (0..table().rows.len()).map(|code| of(Img(code as u8))).collect()
    });
    expected.get(image.0 as usize).is_some_and(|of_image| of_image[place] == places[place].read())
}
