//! Feeds handwritten and random binlogs to the assembler and checks its records and watermarks.

use proptest::prelude::*;
use tandem_model::{Change, ColumnDef, Row, Value, Version};
use tandem_wire::control::decode_ddl;
use tandem_wire::{Images, ReadSchema};

use super::*;

mod xa;

const PREFIX: &str = "p";
const SERVER: u32 = 9;
const FILE: &str = "binlog.000001";
/// The version, the position and the clock of the watermark that every test starts from.
const START: i64 = 1000;
/// How far ahead a commit time may lie, in microseconds.
const AHEAD: i64 = 5_000_000;

fn gtid(number: u64) -> Gtid {
    format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{number}").parse().unwrap()
}

/// Transactions 1 to `last`.
fn upto(last: u64) -> GtidSet {
    let mut set = GtidSet::default();
    (1..=last).for_each(|n| set.insert(&gtid(n)));
    set
}

fn at(pos: u64) -> BinlogPosition {
    BinlogPosition { file: FILE.into(), pos }
}

fn name(table: &str) -> TableName {
    TableName::new("d", table)
}

/// `(id INT PRIMARY KEY, v INT)`.
fn table(table: &str) -> Arc<TableDef> {
    let column = |name: &str, nullable| ColumnDef { name: name.into(), ty: "int".parse().unwrap(), nullable };
    let columns = vec![column("id", false), column("v", true)];
    Arc::new(TableDef { name: name(table), columns, primary_key: vec![0] })
}

/// `d.u` has topics of its own.
fn topics() -> Topics {
    Topics::with_own(PREFIX, Arc::new([name("u")].into()))
}

/// `d.t` and `d.u` are mapped, `d.other` and `e.t` are not.
fn config() -> AssemblerConfig {
    let topics = topics();
    let tables = HashSet::from([name("t"), name("u")]);
    AssemblerConfig {
        truncatable: HashSet::new(),
        partitions: tables.iter().map(|t| (topics.changes(t), 4)).collect(),
        tables,
        topics,
        max_clock_ahead_us: AHEAD,
        prepared_bytes: 200,
        tombstones: false,
    }
}

fn start() -> Watermark {
    Watermark {
        source: "s".into(),
        gtid_set: upto(1),
        position: at(START as u64),
        version: Version(START),
        tables: Arc::default(),
        offsets: BTreeMap::new(),
        partial: None,
        clock_us: START,
    }
}

/// A watermark after `rows` published row changes of transaction 2.
fn partial_at(rows: u64, version: i64) -> Watermark {
    Watermark {
        partial: Some(PartialTransaction { gtid: gtid(2), rows }),
        version: Version(version),
        ..start()
    }
}

fn assembler() -> Assembler {
    Assembler::resume(config(), &start())
}

fn begin(number: u64, commit_us: i64) -> BinlogEvent {
    BinlogEvent::Begin { gtid: gtid(number), commit_us, server_id: SERVER, origin: Origin::Other, xa: None }
}

fn commit(pos: u64) -> BinlogEvent {
    BinlogEvent::Commit { position: at(pos) }
}

fn idle(pos: u64) -> BinlogEvent {
    BinlogEvent::Idle { position: at(pos) }
}

fn row(id: i64, v: i64) -> Row {
    vec![Value::Int(id), Value::Int(v)]
}

fn rows(
    table: &Arc<TableDef>,
    kind: RowsKind,
    end: u64,
    rows: Vec<(Option<Row>, Option<Row>)>,
) -> BinlogEvent {
    let mut images = Images::default();
    for row in rows.into_iter().flat_map(|(before, after)| [before, after]).flatten() {
        images.push(table, &row).unwrap();
    }
    BinlogEvent::Rows(RowsEvent { table: Arc::clone(table), kind, images, end, file: FILE.into() })
}

/// Inserts rows with these ids.
fn insert(table: &Arc<TableDef>, ids: &[i64]) -> BinlogEvent {
    rows(table, RowsKind::Write, 1, ids.iter().map(|&id| (None, Some(row(id, 0)))).collect())
}

fn statement(number: u64, kind: StatementKind, tables: &[TableName], pos: u64) -> BinlogEvent {
    BinlogEvent::Statement {
        gtid: gtid(number),
        commit_us: 2000,
        database: "d".into(),
        sql: "the statement".into(),
        kind,
        tables: tables.to_vec(),
        position: at(pos),
    }
}

fn feed(assembler: &mut Assembler, events: impl IntoIterator<Item = BinlogEvent>) {
    for event in events {
        assembler.on_event(event, 0).unwrap();
    }
}

/// The error for the last of these events. The earlier ones must be accepted.
fn refusal(last: &Watermark, events: impl IntoIterator<Item = BinlogEvent>) -> AssembleError {
    let mut assembler = Assembler::resume(config(), last);
    let mut events: Vec<_> = events.into_iter().collect();
    let refused = events.pop().unwrap();
    feed(&mut assembler, events);
    assembler.on_event(refused, 0).unwrap_err()
}

fn versions(batch: &Batch) -> Vec<i64> {
    batch.records.iter().map(|r| r.version.unwrap().0).collect()
}

/// The decoded content of a record, without its version.
#[derive(Debug, Clone, PartialEq)]
enum Content {
    Row(Change),
    Ddl(Ddl),
}

/// Decodes records, and checks each against its header, topic and time.
struct Decoder {
    schemas: HashMap<String, ReadSchema>,
}

impl Decoder {
    fn new() -> Self {
        let schema = |table| ReadSchema::parse(topics().schema(table).value_json()).unwrap();
        let topic = |table| topics().changes(&name(table));
        Self { schemas: ["t", "u"].map(|t| (topic(t), schema(table(t)))).into() }
    }

    fn content(&self, record: &OutRecord) -> Content {
        let value = record.value.as_deref().unwrap();
        let (version, ts_us, content) = if *record.topic == topics().ddl() {
            let ddl = decode_ddl(value).unwrap();
            (ddl.version, ddl.ts_us, Content::Ddl(Ddl { version: 0, ..ddl }))
        } else {
            let change = self.schemas[&*record.topic].decode(value).unwrap();
            (change.version.0, change.source.ts_us, Content::Row(Change { version: Version(0), ..change }))
        };
        assert_eq!((record.version, record.timestamp_ms), (Some(Version(version)), Some(ts_us / 1000)));
        content
    }
}

/// The operation, the id before and the id after.
type Brief = (&'static str, Option<i64>, Option<i64>);

fn brief(batch: &Batch) -> Vec<Brief> {
    let decoder = Decoder::new();
    let id = |row: &Option<Row>| {
        row.as_ref().map(|row| match row[0] {
            Value::Int(id) => id,
            _ => panic!("an id is an integer"),
        })
    };
    let contents = batch.records.iter().map(|record| decoder.content(record));
    contents
        .map(|content| match content {
            Content::Row(change) => (change.op.letter(), id(&change.before), id(&change.after)),
            Content::Ddl(_) => ("ddl", None, None),
        })
        .collect()
}

#[test]
fn each_row_change_gets_a_version_in_binlog_order() {
    let t = table("t");
    let mut assembler = assembler();
    feed(&mut assembler, [begin(2, 2000), insert(&t, &[1, 2]), insert(&t, &[3]), commit(1100)]);
    // MySQL's clock steps back, then lies within the versions already minted, then moves ahead of them.
    feed(&mut assembler, [begin(3, 500), insert(&t, &[4]), commit(1200)]);
    feed(&mut assembler, [begin(4, 2003), insert(&table("u"), &[5, 6]), commit(1300)]);
    feed(&mut assembler, [begin(5, 3000), insert(&t, &[7]), commit(1400)]);
    let (batch, watermark) = assembler.take(None);
    assert_eq!(versions(&batch), [2000, 2001, 2002, 2003, 2004, 2005, 3000]);
    assert_eq!((batch.rows, batch.transactions), (7, 4));
    assert_eq!((watermark.gtid_set, watermark.position, watermark.partial), (upto(5), at(1400), None));
}

#[test]
fn a_record_holds_the_source_of_its_change() {
    let t = table("t");
    let mut assembler = assembler();
    let update = vec![(Some(row(1, 7)), Some(row(1, 8)))];
    feed(&mut assembler, [begin(2, 2_345_678), insert(&t, &[1]), rows(&t, RowsKind::Update, 1050, update)]);
    let (batch, _) = assembler.take(None);
    let expected = Change {
        table: t,
        op: Op::Update,
        before: Some(row(1, 7)),
        after: Some(row(1, 8)),
        version: Version(0),
        source: SourceInfo {
            gtid: Some(gtid(2).to_string()),
            file: FILE.into(),
            pos: 1050,
            row: 1,
            server_id: SERVER,
            ts_us: 2_345_678,
            native: None,
        },
    };
    assert_eq!(Decoder::new().content(&batch.records[1]), Content::Row(expected));
}

#[test]
fn a_change_of_the_primary_key_is_a_delete_and_then_an_insert() {
    let t = table("t");
    let moved = rows(&t, RowsKind::Update, 1, vec![(Some(row(1, 7)), Some(row(4, 7)))]);
    let delete = rows(&t, RowsKind::Delete, 1, vec![(Some(row(4, 7)), None)]);
    let mut assembler = assembler();
    feed(&mut assembler, [begin(2, 2000), insert(&t, &[1]), moved, delete, commit(1100)]);
    let (batch, _) = assembler.take(None);
    assert_eq!(
        brief(&batch),
        [("c", None, Some(1)), ("d", Some(1), None), ("c", None, Some(4)), ("d", Some(4), None)]
    );
    assert_eq!(versions(&batch), [2000, 2001, 2002, 2003]);
    assert_eq!(batch.rows, 4);
    // Each half goes to the partition of its key.
    let homes: Vec<_> = batch.records.iter().map(|r| (r.partition, &r.key)).collect();
    assert_eq!((homes[0], homes[2]), (homes[1], homes[3]));
    assert_ne!(homes[0].0, homes[3].0, "the test needs keys 1 and 4 in different partitions");
}

#[test]
fn a_watermark_is_above_all_changes_before_it_and_below_all_after_it() {
    let t = table("t");
    let mut assembler = assembler();
    feed(&mut assembler, [begin(2, 2000), insert(&t, &[1, 2]), commit(1100)]);
    let (_, first) = assembler.take(None);
    assert_eq!(first.version, Version(2002));
    // The same commit time again: its version is still above the watermark.
    feed(&mut assembler, [begin(3, 2000), insert(&t, &[3]), commit(1200)]);
    let (batch, second) = assembler.take(None);
    assert_eq!((versions(&batch), second.version), (vec![2003], Version(2004)));
    // Nothing happened. The watermark has a new version nevertheless.
    let (batch, third) = assembler.take(None);
    assert!(batch.records.is_empty());
    assert_eq!(third.version, Version(2005));
}

#[test]
fn a_watermark_is_at_least_at_mysqls_clock() {
    let mut assembler = assembler();
    let watermark = |assembler: &mut Assembler, clock| {
        let (_, w) = assembler.take(clock);
        (w.version.0, w.clock_us)
    };
    assert_eq!(watermark(&mut assembler, Some(5000)), (5000, 5000));
    assert_eq!(watermark(&mut assembler, Some(4000)), (5001, 5000), "the reported clock must not step back");
    // A transaction without rows of mapped tables also advances the clock, once it is complete.
    feed(&mut assembler, [begin(2, 7000)]);
    assert_eq!(watermark(&mut assembler, None), (5002, 5000));
    feed(&mut assembler, [commit(1100)]);
    assert_eq!(watermark(&mut assembler, None), (7000, 7000));
    feed(&mut assembler, [statement(3, StatementKind::Other, &[], 1200)]);
    assert_eq!(watermark(&mut assembler, None), (7001, 7000));
}

#[test]
fn a_partial_watermark_counts_published_rows_and_not_their_transaction() {
    let t = table("t");
    let mut assembler = assembler();
    feed(&mut assembler, [begin(2, 2000)]);
    assert!(assembler.in_transaction());
    let (_, w) = assembler.take(None);
    assert_eq!(
        (w.gtid_set, w.position, w.partial),
        (upto(1), at(1000), None),
        "none of its rows is published yet"
    );
    feed(&mut assembler, [insert(&t, &[1, 2])]);
    let (batch, w) = assembler.take(None);
    assert_eq!((batch.rows, batch.transactions), (2, 0));
    assert_eq!(
        (w.gtid_set, w.position, w.partial),
        (upto(1), at(1000), Some(PartialTransaction { gtid: gtid(2), rows: 2 }))
    );
    feed(&mut assembler, [insert(&t, &[3])]);
    let (batch, w) = assembler.take(None);
    assert_eq!((batch.rows, w.partial), (1, Some(PartialTransaction { gtid: gtid(2), rows: 3 })));
    feed(&mut assembler, [commit(1100)]);
    assert!(!assembler.in_transaction());
    let (batch, w) = assembler.take(None);
    assert_eq!((batch.rows, batch.transactions), (0, 1));
    assert_eq!((w.gtid_set, w.position, w.partial), (upto(2), at(1100), None));
}

/// After a restart, watermarks stay partial until the transaction has been read again and is complete.
#[test]
fn a_partial_watermark_stays_partial_until_its_transaction_is_complete() {
    let t = table("t");
    let mut assembler = Assembler::resume(config(), &partial_at(3, 2003));
    let partial = |rows| Some(PartialTransaction { gtid: gtid(2), rows });
    assert_eq!(assembler.take(None).1.partial, partial(3));
    feed(&mut assembler, [idle(1000)]);
    assert_eq!(assembler.take(None).1.partial, partial(3));
    feed(&mut assembler, [begin(2, 2000)]);
    assert_eq!(assembler.take(None).1.partial, partial(3));
    feed(&mut assembler, [insert(&t, &[1, 2])]);
    let (batch, watermark) = assembler.take(None);
    assert_eq!((batch.records.len(), batch.rows), (0, 0), "these rows are already published");
    assert_eq!((watermark.partial, watermark.version), (partial(3), Version(2007)));
    feed(&mut assembler, [insert(&t, &[3, 4])]);
    let (batch, watermark) = assembler.take(None);
    assert_eq!(brief(&batch), [("c", None, Some(4))]);
    assert_eq!((versions(&batch), watermark.partial), (vec![2008], partial(4)));
    feed(&mut assembler, [commit(1100)]);
    assert_eq!(assembler.take(None).1.partial, None);
}

/// Another server may group the same row changes into other events. A partial watermark may lie anywhere.
#[test]
fn a_partial_watermark_counts_row_changes_however_events_group_them() {
    let t = table("t");
    let pairs = || {
        let moved = |from, to| (Some(row(from, 0)), Some(row(to, 0)));
        vec![moved(1, 1), moved(2, 3), moved(4, 4), moved(5, 6)]
    };
    let all = [
        ("u", Some(1), Some(1)),
        ("d", Some(2), None),
        ("c", None, Some(3)),
        ("u", Some(4), Some(4)),
        ("d", Some(5), None),
        ("c", None, Some(6)),
    ];
    for published in 1..=all.len() {
        for per_event in 1..=4 {
            let mut assembler = Assembler::resume(config(), &partial_at(published as u64, 2500));
            feed(&mut assembler, [begin(2, 2000)]);
            let mut left = pairs();
            while !left.is_empty() {
                let event = left.drain(..per_event.min(left.len())).collect();
                feed(&mut assembler, [rows(&t, RowsKind::Update, 1, event)]);
            }
            feed(&mut assembler, [commit(1100)]);
            let (batch, watermark) = assembler.take(None);
            assert_eq!(brief(&batch), all[published..]);
            assert_eq!(versions(&batch), (2501..=2500 + batch.rows as i64).collect::<Vec<_>>());
            let decoder = Decoder::new();
            let numbers = batch.records.iter().map(|record| match decoder.content(record) {
                Content::Row(change) => change.source.row,
                Content::Ddl(_) => panic!("no statement was fed"),
            });
            assert!(numbers.eq(published as u64..all.len() as u64));
            assert_eq!((watermark.gtid_set, watermark.partial), (upto(2), None));
        }
    }
}

#[test]
fn a_batch_counts_its_bytes_and_is_empty_after_take() {
    let mut assembler = assembler();
    assert!(assembler.is_empty());
    let alter = statement(3, StatementKind::Alter, &[name("t")], 1200);
    feed(&mut assembler, [begin(2, 2000), insert(&table("t"), &[1, 2]), commit(1100), alter]);
    assert_eq!((assembler.len(), assembler.is_empty()), (3, false));
    let bytes = assembler.bytes();
    let (batch, _) = assembler.take(None);
    let size = |r: &OutRecord| r.key.len() + r.value.as_ref().unwrap().len();
    assert_eq!(bytes, batch.records.iter().map(size).sum::<usize>());
    assert_eq!((assembler.bytes(), assembler.len(), assembler.is_empty()), (0, 0, true));
}

#[test]
fn out_of_band_rows_are_counted_by_table() {
    let mut assembler = assembler();
    let by_gateway = |number| {
        let BinlogEvent::Begin { gtid, commit_us, server_id, .. } = begin(number, 2000) else {
            unreachable!()
        };
        BinlogEvent::Begin { gtid, commit_us, server_id, origin: Origin::Gateway, xa: None }
    };
    let (t, u) = (table("t"), table("u"));
    feed(&mut assembler, [by_gateway(2), insert(&t, &[1, 2]), commit(1100)]);
    assert!(assembler.take(None).0.out_of_band_rows.is_empty());
    // A change of the key counts as two rows.
    let moved = rows(&t, RowsKind::Update, 1, vec![(Some(row(1, 0)), Some(row(3, 0)))]);
    feed(&mut assembler, [begin(3, 2000), insert(&t, &[4]), moved, insert(&u, &[1]), commit(1200)]);
    feed(&mut assembler, [by_gateway(4), insert(&u, &[2]), commit(1300)]);
    let (batch, _) = assembler.take(None);
    assert_eq!(batch.out_of_band_rows, [(t.name.clone(), 3), (u.name.clone(), 1)].into());
    // Rows that were published before a restart are not counted again.
    let mut resumed = Assembler::resume(config(), &partial_at(1, 2500));
    feed(&mut resumed, [begin(2, 2000), insert(&t, &[1, 2]), commit(1100)]);
    assert_eq!(resumed.take(None).0.out_of_band_rows, [(t.name.clone(), 1)].into());
}

#[test]
fn a_schema_comes_with_the_first_batch_that_uses_it() {
    let t = table("t");
    let mut longer = (*t).clone();
    longer.columns.push(ColumnDef { name: "w".into(), ty: "int".parse().unwrap(), nullable: true });
    let longer = Arc::new(longer);
    let wide = |id| rows(&longer, RowsKind::Write, 1, vec![(None, Some(vec![Value::Int(id); 3]))]);
    let tables = |batch: &Batch| batch.schemas.iter().map(|s| Arc::clone(s.table())).collect::<Vec<_>>();
    let mut assembler = assembler();
    feed(&mut assembler, [begin(2, 2000), insert(&t, &[1]), insert(&t, &[2])]);
    assert_eq!(tables(&assembler.take(None).0), [Arc::clone(&t)]);
    feed(
        &mut assembler,
        [insert(&t, &[3]), commit(1100), begin(3, 2000), wide(4), insert(&t, &[5]), wide(6)],
    );
    assert_eq!(tables(&assembler.take(None).0), [Arc::clone(&longer)]);
    feed(&mut assembler, [wide(7), insert(&t, &[8])]);
    assert!(assembler.take(None).0.schemas.is_empty());
}

#[test]
fn idle_moves_the_position_only_outside_a_transaction() {
    let mut assembler = assembler();
    feed(&mut assembler, [idle(1050)]);
    let (batch, w) = assembler.take(None);
    assert!(batch.records.is_empty());
    assert_eq!((w.position, w.gtid_set), (at(1050), upto(1)));
    feed(&mut assembler, [begin(2, 2000), idle(1060), insert(&table("t"), &[1]), idle(1070)]);
    let (_, w) = assembler.take(None);
    assert_eq!((w.position, w.partial), (at(1050), Some(PartialTransaction { gtid: gtid(2), rows: 1 })));
    feed(&mut assembler, [commit(1100)]);
    assert_eq!(assembler.take(None).1.position, at(1100));
    let next_file = BinlogPosition { file: "binlog.000002".into(), pos: 4 };
    feed(&mut assembler, [BinlogEvent::Idle { position: next_file.clone() }]);
    assert_eq!(assembler.take(None).1.position, next_file);
}

#[test]
fn a_statement_on_a_mapped_table_is_a_record_between_the_changes() {
    let t = table("t");
    let mut assembler = assembler();
    feed(&mut assembler, [begin(2, 2000), insert(&t, &[1]), commit(1100)]);
    feed(&mut assembler, [statement(3, StatementKind::Alter, &[name("other"), name("t")], 1200)]);
    feed(&mut assembler, [begin(4, 2000), insert(&t, &[2]), commit(1300)]);
    let (batch, w) = assembler.take(None);
    assert_eq!(brief(&batch), [("c", None, Some(1)), ("ddl", None, None), ("c", None, Some(2))]);
    assert_eq!(versions(&batch), [2000, 2001, 2002]);
    assert_eq!((batch.rows, batch.transactions, w.gtid_set, w.position), (2, 3, upto(4), at(1300)));
    let record = &batch.records[1];
    assert_eq!((record.partition, record.key.as_slice()), (0, &b"s"[..]));
    let ddl = Ddl {
        gtid: gtid(3).to_string(),
        database: "d".into(),
        statement: "the statement".into(),
        kind: "ALTER TABLE".into(),
        tables: vec!["d.other".into(), "d.t".into()],
        version: 0,
        file: FILE.into(),
        pos: 1200,
        ts_us: 2000,
    };
    assert_eq!(Decoder::new().content(record), Content::Ddl(ddl));
}

#[test]
fn a_statement_on_other_tables_counts_only_as_a_transaction() {
    let mut assembler = assembler();
    for (number, kind) in (2..).zip([StatementKind::Alter, StatementKind::Create, StatementKind::Other]) {
        let tables = [name("other"), TableName::new("e", "t")];
        feed(&mut assembler, [statement(number, kind, &tables, 1000 + number)]);
    }
    assert!(assembler.is_empty());
    let (batch, w) = assembler.take(None);
    assert_eq!((batch.transactions, w.gtid_set, w.position), (3, upto(4), at(1004)));
}

const REMOVING: [StatementKind; 3] = [StatementKind::Truncate, StatementKind::Drop, StatementKind::Rename];

#[test]
fn statements_that_take_a_mapped_table_away_are_refused() {
    let database = |kind| BinlogEvent::Statement {
        gtid: gtid(2),
        commit_us: 2000,
        database: "d".into(),
        sql: String::new(),
        kind,
        tables: Vec::new(),
        position: at(1100),
    };
    let on_table = REMOVING.map(|kind| (kind, statement(2, kind, &[name("other"), name("u")], 1100)));
    let all =
        on_table.into_iter().chain([(StatementKind::DropDatabase, database(StatementKind::DropDatabase))]);
    for (kind, event) in all {
        match refusal(&start(), [event]) {
            AssembleError::TablesGone { kind: reported, tables, gtid: found, position } => {
                assert_eq!((reported, found, position), (kind.name(), gtid(2), at(1100)));
                let named = kind != StatementKind::DropDatabase;
                assert!(if named { tables == [name("u")] } else { tables.len() > 1 });
                assert!(tables.iter().all(|table| table.database == "d"));
            }
            other => panic!("{kind:?} was refused as {other}"),
        }
    }
}

#[test]
fn a_table_whose_rows_a_statement_changes_goes_on_and_is_verified() {
    let truncatable = HashSet::from([name("u")]);
    let mut assembler = Assembler::resume(AssemblerConfig { truncatable, ..config() }, &start());
    let swap = [name("t"), name("_t_old"), name("_t_new"), name("t")];
    let statements = [
        (StatementKind::Rewrite, &[name("t")][..]),
        (StatementKind::Truncate, &[name("u"), name("other")]),
        (StatementKind::Rename, &swap),
        (StatementKind::Alter, &[name("u")]),
    ];
    for (number, (kind, tables)) in (2..).zip(statements) {
        feed(&mut assembler, [statement(number, kind, tables, 1100 + number)]);
    }
    let (batch, w) = assembler.take(None);
    assert_eq!(
        batch.rewritten,
        [(name("t"), "ALTER TABLE"), (name("u"), "TRUNCATE"), (name("t"), "RENAME TABLE")]
    );
    assert_eq!((batch.schema_changes.len(), w.gtid_set), (4, upto(5)));
    // A name that leaves last is gone.
    let gone = [name("_t_new"), name("t"), name("t"), name("_t_old")];
    match refusal(&start(), [statement(2, StatementKind::Rename, &gone, 1100)]) {
        AssembleError::TablesGone { tables, .. } => assert_eq!(tables, [name("t")]),
        other => panic!("{other}"),
    }
}

#[test]
fn statements_that_remove_an_unmapped_table_are_accepted() {
    let mut assembler = assembler();
    for (number, kind) in (2..).zip(REMOVING) {
        feed(&mut assembler, [statement(number, kind, &[name("other"), TableName::new("e", "t")], 1100)]);
    }
    feed(
        &mut assembler,
        [BinlogEvent::Statement {
            gtid: gtid(5),
            commit_us: 2000,
            database: "e".into(),
            sql: String::new(),
            kind: StatementKind::DropDatabase,
            tables: Vec::new(),
            position: at(1200),
        }],
    );
    assert!(assembler.is_empty());
    assert_eq!(assembler.take(None).1.gtid_set, upto(5));
}

#[test]
fn a_commit_time_far_ahead_of_this_machines_clock_is_refused() {
    let now = 1_000_000;
    let statement = |commit_us| BinlogEvent::Statement {
        gtid: gtid(2),
        commit_us,
        database: String::new(),
        sql: String::new(),
        kind: StatementKind::Other,
        tables: Vec::new(),
        position: at(1100),
    };
    let events: [&dyn Fn(i64) -> BinlogEvent; 2] = [&|commit_us| begin(2, commit_us), &statement];
    for event in events {
        assembler().on_event(event(now + AHEAD), now).unwrap();
        let mut assembler = assembler();
        match assembler.on_event(event(now + AHEAD + 1_000_000), now) {
            Err(AssembleError::ClockAhead { gtid: found, ahead_s }) => {
                assert_eq!((found, ahead_s), (gtid(2), 6));
            }
            other => panic!("{other:?}"),
        }
        assert!(assembler.on_event(event(now + AHEAD + 1), now).is_err());
        let (_, w) = assembler.take(None);
        assert_eq!(
            (w.version.0, w.gtid_set),
            (START + 1, upto(1)),
            "a refused event must not change the state"
        );
    }
}

#[test]
fn a_server_without_the_partial_transaction_is_refused() {
    let partial = partial_at(3, 2003);
    let other = statement(3, StatementKind::Other, &[], 1100);
    for events in [vec![begin(3, 2000)], vec![idle(1050), begin(3, 2000)], vec![other]] {
        match refusal(&partial, events) {
            AssembleError::PartialMissing { partial, found } => {
                assert_eq!((partial, found), (gtid(2), gtid(3)));
            }
            other => panic!("{other}"),
        }
    }
    // After it, other transactions may follow.
    let mut assembler = Assembler::resume(config(), &partial);
    feed(&mut assembler, [begin(2, 2000), insert(&table("t"), &[1, 2, 3]), commit(1100), begin(3, 2000)]);
}

#[test]
fn events_in_an_order_that_no_binlog_has_are_refused() {
    let t = table("t");
    let images = |kind, before: Option<Row>, after: Option<Row>| rows(&t, kind, 1, vec![(before, after)]);
    let impossible = [
        vec![insert(&t, &[1])],
        vec![commit(1100)],
        vec![begin(2, 2000), commit(1100), insert(&t, &[1])],
        vec![begin(2, 2000), commit(1100), commit(1200)],
        vec![begin(2, 2000), begin(3, 2000)],
        vec![begin(2, 2000), statement(3, StatementKind::Other, &[], 1100)],
        vec![begin(2, 2000), images(RowsKind::Update, Some(row(1, 0)), None)],
    ];
    for events in impossible {
        let refused = refusal(&start(), events.clone());
        assert!(matches!(refused, AssembleError::OutOfOrder(_)), "{events:?}: {refused}");
    }
}

#[test]
fn a_table_without_a_primary_key_is_refused() {
    let t = table("t");
    let keyless = Arc::new(TableDef { primary_key: Vec::new(), ..(*t).clone() });
    // It is refused even if the table had a primary key before.
    for events in [vec![], vec![insert(&t, &[1])]] {
        let lost = rows(&keyless, RowsKind::Delete, 1050, vec![(Some(row(1, 0)), None)]);
        match refusal(&start(), [begin(2, 2000)].into_iter().chain(events).chain([lost])) {
            AssembleError::NoPrimaryKey { table, position } => {
                assert_eq!((table, position), (name("t"), at(1050)));
            }
            other => panic!("{other}"),
        }
    }
}

/// A table (0 or 1), what happens to its rows, and their ids before and after.
type Rows = (usize, RowsKind, Vec<(i64, i64)>);

/// A part of a random binlog.
#[derive(Debug, Clone)]
enum Part {
    Transaction { commit_us: i64, events: Vec<Rows> },
    Statement { commit_us: i64, mapped: bool },
    Idle,
}

fn part() -> impl Strategy<Value = Part> {
    // Around the first version, so that sometimes the clock and sometimes the last version decides.
    let commit_us = || START - 20..START + 200;
    let kind = prop_oneof![Just(RowsKind::Write), Just(RowsKind::Update), Just(RowsKind::Delete)];
    let event = (0..2usize, kind, prop::collection::vec((0..3i64, 0..3i64), 1..4));
    prop_oneof![
        6 => (commit_us(), prop::collection::vec(event, 0..6))
            .prop_map(|(commit_us, events)| Part::Transaction { commit_us, events }),
        1 => (commit_us(), any::<bool>())
            .prop_map(|(commit_us, mapped)| Part::Statement { commit_us, mapped }),
        1 => Just(Part::Idle),
    ]
}

fn binlog() -> impl Strategy<Value = Vec<BinlogEvent>> {
    prop::collection::vec(part(), 1..8).prop_map(|parts| {
        let tables = [table("t"), table("u")];
        let (mut events, mut number, mut pos) = (Vec::new(), 1, START as u64);
        for part in parts {
            pos += 100;
            match part {
                Part::Transaction { commit_us, events: changes } => {
                    number += 1;
                    events.push(begin(number, commit_us));
                    for (i, (table, kind, ids)) in changes.into_iter().enumerate() {
                        let image = |wanted, id| (kind != wanted).then(|| row(id, i as i64));
                        let images = ids.into_iter().map(|(before, after)| {
                            (image(RowsKind::Write, before), image(RowsKind::Delete, after))
                        });
                        events.push(rows(&tables[table], kind, pos + i as u64, images.collect()));
                    }
                    events.push(commit(pos + 50));
                }
                Part::Statement { commit_us, mapped } => {
                    number += 1;
                    events.push(BinlogEvent::Statement {
                        gtid: gtid(number),
                        commit_us,
                        database: "d".into(),
                        sql: String::new(),
                        kind: StatementKind::Alter,
                        tables: vec![name(if mapped { "t" } else { "other" })],
                        position: at(pos),
                    });
                }
                Part::Idle => events.push(idle(pos)),
            }
        }
        events
    })
}

/// The content that the log of this binlog must have, in order. Derived from the binlog alone.
fn expected(events: &[BinlogEvent]) -> Vec<Content> {
    let mut contents = Vec::new();
    let mut source = SourceInfo::default();
    for event in events {
        match event {
            BinlogEvent::Begin { gtid, commit_us, server_id, .. } => {
                source = SourceInfo {
                    gtid: Some(gtid.to_string()),
                    ts_us: *commit_us,
                    server_id: *server_id,
                    ..SourceInfo::default()
                };
            }
            BinlogEvent::Rows(event) => {
                let value = |image: Option<Image<'_>>| image.map(|i| i.decode(&event.table).unwrap());
                for (before, after) in event.rows().map(|(b, a)| (value(b), value(a))) {
                    let halves = match (&before, &after) {
                        (Some(b), Some(a)) if b[0] == a[0] => {
                            vec![(Op::Update, before.clone(), after.clone())]
                        }
                        (Some(_), Some(_)) => {
                            vec![(Op::Delete, before.clone(), None), (Op::Create, None, after.clone())]
                        }
                        (None, _) => vec![(Op::Create, None, after.clone())],
                        (_, None) => vec![(Op::Delete, before.clone(), None)],
                    };
                    for (op, before, after) in halves {
                        let here = SourceInfo { file: FILE.into(), pos: event.end, ..source.clone() };
                        let table = Arc::clone(&event.table);
                        let version = Version(0);
                        contents.push(Content::Row(Change {
                            table,
                            op,
                            before,
                            after,
                            version,
                            source: here,
                        }));
                        source.row += 1;
                    }
                }
            }
            BinlogEvent::Statement { gtid, commit_us, database, sql, kind, tables, position } => {
                if tables.contains(&name("t")) {
                    contents.push(Content::Ddl(Ddl {
                        gtid: gtid.to_string(),
                        database: database.clone(),
                        statement: sql.clone(),
                        kind: kind.name().to_owned(),
                        tables: tables.iter().map(ToString::to_string).collect(),
                        version: 0,
                        file: position.file.to_string(),
                        pos: position.pos as i64,
                        ts_us: *commit_us,
                    }));
                }
            }
            BinlogEvent::Commit { .. } | BinlogEvent::Idle { .. } => {}
            BinlogEvent::Prepared { .. } | BinlogEvent::Decided { .. } => panic!("not in these binlogs"),
        }
    }
    contents
}

/// Where capture ends a batch: the number of events before it, and MySQL's clock if capture reads it.
type End = (usize, Option<i64>);

/// The content of one committed Kafka transaction.
#[derive(Debug, Clone, PartialEq)]
struct Committed {
    records: Vec<OutRecord>,
    watermark: Watermark,
}

fn take(assembler: &mut Assembler, clock_us: Option<i64>) -> Committed {
    let (batch, watermark) = assembler.take(clock_us);
    Committed { records: batch.records, watermark }
}

/// Where the stream begins for a capture that resumes from the watermark taken after `fed` events: at the
/// transaction that was open then, which the server sends again from its start, or else at the next event.
fn resumes_at(events: &[BinlogEvent], fed: usize, last: &Watermark) -> usize {
    let open = |e: &BinlogEvent| match e {
        BinlogEvent::Begin { .. } => Some(true),
        BinlogEvent::Commit { .. } | BinlogEvent::Statement { .. } => Some(false),
        BinlogEvent::Rows(_) | BinlogEvent::Idle { .. } => None,
        BinlogEvent::Prepared { .. } | BinlogEvent::Decided { .. } => panic!("not in these binlogs"),
    };
    let latest = (0..fed).rev().find_map(|i| open(&events[i]).map(|open| (i, open)));
    let from = match latest {
        Some((begin, true)) => begin,
        _ => fed,
    };
    // The server decides by GTIDs alone. It must arrive at the same event.
    let executed = |(i, event): (usize, &BinlogEvent)| match event {
        BinlogEvent::Begin { gtid, .. } | BinlogEvent::Statement { gtid, .. } => {
            assert_eq!(last.gtid_set.contains(gtid), i < from, "{gtid} would be lost or come twice");
        }
        _ => {}
    };
    events.iter().enumerate().for_each(executed);
    from
}

/// Resumes from `last` with the events from index `from` on, and ends batches at `ends`.
fn capture_from(events: &[BinlogEvent], last: &Watermark, from: usize, ends: &[End]) -> Vec<Committed> {
    let mut assembler = Assembler::resume(config(), last);
    let mut fed = from;
    let batch = |&(end, clock_us): &End| {
        feed(&mut assembler, events[fed..end.max(fed)].iter().cloned());
        fed = fed.max(end);
        take(&mut assembler, clock_us)
    };
    ends.iter().map(batch).collect()
}

/// A step of a random run of capture, with crashes.
#[derive(Debug, Clone)]
struct Step {
    /// How many events it processes first.
    events: usize,
    /// Whether it then ends the batch and commits it to Kafka.
    commits: bool,
    /// MySQL's clock, if capture reads it.
    clock_us: Option<i64>,
    /// Whether it then crashes and loses everything that is not committed.
    crashes: bool,
}

fn clock_us() -> impl Strategy<Value = Option<i64>> {
    prop::option::weighted(0.3, START - 20..START + 200)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..6usize, prop::bool::weighted(0.7), clock_us(), any::<bool>())
        .prop_map(|(events, commits, clock_us, crashes)| Step { events, commits, clock_us, crashes });
    prop::collection::vec(step, 0..40)
}

/// Runs these steps and then, without a crash, to the end of the binlog. Also returns where a capture that
/// never crashes would end the same batches.
fn run(events: &[BinlogEvent], steps: &[Step]) -> (Vec<Committed>, Vec<End>) {
    let (mut last, mut from, mut published) = (start(), 0, 0);
    let mut assembler = Assembler::resume(config(), &last);
    let mut fed = from;
    let (mut log, mut ends) = (Vec::new(), Vec::new());
    let rest = Step { events: events.len(), commits: true, clock_us: None, crashes: false };
    for step in steps.iter().chain([&rest]) {
        let next = events.len().min(fed + step.events);
        feed(&mut assembler, events[fed..next].iter().cloned());
        fed = next;
        if step.commits {
            log.push(take(&mut assembler, step.clock_us));
            last = log[log.len() - 1].watermark.clone();
            from = resumes_at(events, fed, &last);
            // Events that come again after a restart were published before, up to here.
            published = fed.max(published);
            ends.push((published, step.clock_us));
        }
        if step.crashes {
            assembler = Assembler::resume(config(), &last);
            fed = from;
        }
    }
    (log, ends)
}

/// Checks that each change of the binlog is published once and in order, and that versions strictly increase.
fn publishes_all_once_in_order(log: &[Committed], events: &[BinlogEvent]) {
    let decoder = Decoder::new();
    let contents: Vec<_> =
        log.iter().flat_map(|c| &c.records).map(|record| decoder.content(record)).collect();
    assert_eq!(contents, expected(events));
    let of = |c: &Committed| {
        let records = c.records.iter().map(|record| record.version.unwrap());
        records.chain([c.watermark.version]).collect::<Vec<_>>()
    };
    let versions: Vec<_> = [start().version].into_iter().chain(log.iter().flat_map(of)).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

fn ends() -> impl Strategy<Value = Vec<(prop::sample::Index, Option<i64>)>> {
    prop::collection::vec((any::<prop::sample::Index>(), clock_us()), 0..12)
}

proptest! {
    /// Batches may end between any two events, and twice at the same position.
    #[test]
    fn who_resumes_from_any_watermark_goes_on_as_if_nothing_had_happened(events in binlog(), ends in ends()) {
        let end = |(at, clock_us): &(prop::sample::Index, _)| (at.index(events.len() + 1), *clock_us);
        let mut ends: Vec<End> = ends.iter().map(end).collect();
        ends.sort_by_key(|&(at, _)| at);
        ends.push((events.len(), None));
        let whole = capture_from(&events, &start(), 0, &ends);
        publishes_all_once_in_order(&whole, &events);
        for (i, Committed { watermark, .. }) in whole.iter().enumerate() {
            let from = resumes_at(&events, ends[i].0, watermark);
            prop_assert_eq!(&capture_from(&events, watermark, from, &ends[i + 1..])[..], &whole[i + 1..]);
        }
    }

    /// Capture may crash any number of times, before and after commits. It may also commit again before all
    /// published rows have come again.
    #[test]
    fn who_dies_at_any_time_publishes_what_who_never_dies_publishes(events in binlog(), steps in steps()) {
        let (log, ends) = run(&events, &steps);
        publishes_all_once_in_order(&log, &events);
        prop_assert_eq!(&log, &capture_from(&events, &start(), 0, &ends));
    }
}
