//! Handwritten events in MySQL's formats.

use proptest::prelude::*;
use tandem_model::{ColumnType, Row, Value};
use tandem_wire::{Image, Images};

use super::*;

mod payload;

const GTID: u8 = 33;
const QUERY: u8 = 2;
const XID: u8 = 16;
const TABLE_MAP: u8 = 19;
const WRITE: u8 = 30;
const UPDATE: u8 = 31;

fn parser() -> EventParser {
    let collations = [(8, "latin1"), (63, "binary"), (255, "utf8mb4"), (13, "sjis")]
        .map(|(id, name)| (id, name.to_owned()));
    let wanted = Box::new(|table: &TableName| table.table.starts_with("wanted"));
    let mut parser = EventParser::new(wanted, ExcludedColumns::default(), Collations::new(collations));
    let idle = feed(&mut parser, 4, 0, &rotate(4, "binlog.000001")).unwrap();
    assert_eq!(idle, Some(BinlogEvent::Idle { position: at("binlog.000001", 4) }));
    parser
}

fn at(file: &str, pos: u64) -> BinlogPosition {
    BinlogPosition { file: file.into(), pos }
}

fn feed(
    parser: &mut EventParser,
    kind: u8,
    log_pos: u32,
    body: &[u8],
) -> Result<Option<BinlogEvent>, DecodeError> {
    parser.feed(&EventHeader { kind, timestamp: 1, server_id: 9, log_pos }, body)
}

fn rotate(pos: u64, file: &str) -> Vec<u8> {
    [&pos.to_le_bytes()[..], file.as_bytes()].concat()
}

fn gtid() -> Vec<u8> {
    [&[0][..], &[0x11; 16], &5u64.to_le_bytes(), &[2], &[0; 16], &[7, 0, 0, 0, 0, 0, 0]].concat()
}

fn query(sql: &str) -> Vec<u8> {
    [&[0; 8][..], &[1, 0, 0, 0, 0], b"d\0", sql.as_bytes()].concat()
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind, value.len() as u8], value].concat()
}

/// `(id INT UNSIGNED, name VARCHAR(40), bin BINARY(3), e ENUM('a', 'b'), t TIME(2))`, key (name, id).
fn table_map(id: u8, table: &str) -> Vec<u8> {
    let metadata = [
        field(1, &[0x80]),
        field(2, &[252, 255, 0, 1, 63]),
        field(4, b"\x02id\x04name\x03bin\x01e\x01t"),
        field(6, b"\x02\x01a\x01b"),
        field(8, &[1, 0]),
        field(10, &[8]),
        field(12, &[0xf8]),
    ]
    .concat();
    [
        &[id, 0, 0, 0, 0, 0, 1, 0, 1][..],
        b"d\0",
        &[table.len() as u8],
        table.as_bytes(),
        &[0, 5, 3, 15, 254, 254, 19, 7, 160, 0, 254, 3, 247, 1, 2, 0b11010],
        &metadata,
    ]
    .concat()
}

fn rows_head(table_id: u8, bitmaps: &[u8]) -> Vec<u8> {
    [&[table_id, 0, 0, 0, 0, 0, 1, 0, 2, 0, 5], bitmaps].concat()
}

const ROW: &[u8] = &[0, 1, 0, 0, 0x80, 2, b'h', b'i', 1, 0xff, 2, 0x7f, 0xff, 0xff, 0x9d];
const NULLS: &[u8] = &[0b11010, 2, 0, 0, 0, 0];

fn row() -> Row {
    vec![
        Value::UInt(0x8000_0001),
        Value::Text("hi".into()),
        Value::Bytes(vec![0xff, 0, 0]),
        Value::Text("b".into()),
        Value::Time(-990_000),
    ]
}

/// A row with NULL in every nullable column except the binary one.
fn nulls() -> Row {
    vec![Value::UInt(2), Value::Null, Value::Bytes(vec![0; 3]), Value::Null, Value::Null]
}

/// The images of an event, decoded to values.
fn values(event: &RowsEvent) -> Vec<(Option<Row>, Option<Row>)> {
    let value = |image: Option<Image<'_>>| image.map(|image| image.decode(&event.table).unwrap());
    event.rows().map(|(before, after)| (value(before), value(after))).collect()
}

fn begin(parser: &mut EventParser) {
    assert_eq!(feed(parser, GTID, 100, &gtid()), Ok(None));
    assert!(matches!(
        feed(parser, QUERY, 200, &query("BEGIN")),
        Ok(Some(BinlogEvent::Begin { commit_us: 7, server_id: 9, origin: Origin::Other, .. }))
    ));
}

#[test]
fn a_transaction_is_decoded() {
    let mut parser = parser();
    begin(&mut parser);
    assert_eq!(feed(&mut parser, 29, 220, b"\x05hello"), Ok(None));
    assert_eq!(feed(&mut parser, TABLE_MAP, 250, &table_map(1, "wanted")), Ok(None));
    assert_eq!(feed(&mut parser, TABLE_MAP, 270, &table_map(2, "other")), Ok(None));
    let write = [&rows_head(1, &[0x1f]), ROW, NULLS].concat();
    let Ok(Some(BinlogEvent::Rows(rows))) = feed(&mut parser, WRITE, 300, &write) else { panic!() };
    assert_eq!((rows.kind, rows.end, &*rows.file), (RowsKind::Write, 300, "binlog.000001"));
    assert_eq!(values(&rows), [(None, Some(row())), (None, Some(nulls()))]);
    assert_eq!(rows.table.primary_key, [1, 0]);
    assert_eq!(rows.table.columns[3].ty, ColumnType::Enum(vec!["a".into(), "b".into()]));
    let nullable: Vec<_> = rows.table.columns.iter().map(|c| c.nullable).collect();
    assert_eq!(nullable, [false, true, false, true, true]);

    // The images equal those encoded from values, including the keys: `name`, then `id`.
    let mut images = Images::default();
    images.push(&rows.table, &row()).unwrap();
    assert_eq!(rows.images.iter().next(), images.iter().next());
    assert_eq!(images.iter().next().unwrap().key, [2, 4, b'h', b'i', 0x82, 0x80, 0x80, 0x80, 0x10]);

    let update = [&rows_head(1, &[0x1f, 0x1f]), ROW, NULLS].concat();
    let Ok(Some(BinlogEvent::Rows(updated))) = feed(&mut parser, UPDATE, 400, &update) else { panic!() };
    assert_eq!(values(&updated), [(Some(row()), Some(nulls()))]);
    assert_eq!(feed(&mut parser, WRITE, 450, &[&rows_head(2, &[0x1f]), ROW].concat()), Ok(None));
    assert_eq!(feed(&mut parser, 27, 450, b"binlog.000001"), Ok(None));
    assert_eq!(
        feed(&mut parser, XID, 500, &[0; 8]),
        Ok(Some(BinlogEvent::Commit { position: at("binlog.000001", 500) }))
    );

    // The same definition under another id yields the same Arc. Another definition does not.
    begin(&mut parser);
    feed(&mut parser, TABLE_MAP, 550, &table_map(7, "wanted")).unwrap();
    let again = [&rows_head(7, &[0x1f]), ROW].concat();
    let Ok(Some(BinlogEvent::Rows(again))) = feed(&mut parser, WRITE, 600, &again) else { panic!() };
    assert!(Arc::ptr_eq(&again.table, &rows.table));
    assert!(matches!(feed(&mut parser, QUERY, 700, &query("COMMIT")), Ok(Some(BinlogEvent::Commit { .. }))));
}

#[test]
fn positions() {
    let mut parser = parser();
    let idle = |file: &str, pos| Ok(Some(BinlogEvent::Idle { position: at(file, pos) }));
    assert_eq!(feed(&mut parser, 15, 0, &[]), idle("binlog.000001", 4));
    assert_eq!(feed(&mut parser, 35, 158, &[]), idle("binlog.000001", 158));
    assert_eq!(feed(&mut parser, 27, u32::MAX - 9, b"binlog.000001"), idle("binlog.000001", 0xffff_fff6));
    assert_eq!(feed(&mut parser, 27, 50, b"binlog.000001"), idle("binlog.000001", 0x1_0000_0032));
    let beyond =
        [&field(1, b"binlog.000001")[..], &[2, 9, 254], &0x2_0000_0000u64.to_le_bytes(), &[0]].concat();
    assert_eq!(feed(&mut parser, 41, 0, &beyond), idle("binlog.000001", 0x2_0000_0000));
    assert_eq!(feed(&mut parser, 4, 77, &rotate(4, "binlog.000002")), idle("binlog.000002", 4));
    assert_eq!(feed(&mut parser, 27, 158, b"binlog.000003"), idle("binlog.000003", 158));
}

#[test]
fn statements_are_whole_transactions() {
    let mut parser = parser();
    feed(&mut parser, GTID, 100, &gtid()).unwrap();
    let statement = feed(&mut parser, QUERY, 200, &query("TRUNCATE TABLE x")).unwrap().unwrap();
    let BinlogEvent::Statement { kind, tables, position, commit_us: 7, database, .. } = statement else {
        panic!("{statement:?}");
    };
    assert_eq!((kind, position, database.as_str()), (StatementKind::Truncate, at("binlog.000001", 200), "d"));
    assert_eq!(tables, [TableName::new("d", "x")]);

    feed(&mut parser, GTID, 300, &gtid()).unwrap();
    let created = feed(&mut parser, QUERY, 350, &query("CREATE TABLE x (id int) START TRANSACTION"));
    assert!(matches!(created, Ok(Some(BinlogEvent::Begin { .. }))));
    assert!(matches!(feed(&mut parser, XID, 400, &[]), Ok(Some(BinlogEvent::Commit { .. }))));
}

#[test]
fn the_names_of_statements_are_those_that_the_server_compares() {
    let named = |names, sql: &str| {
        let mut parser = parser();
        parser.compare_names(names);
        feed(&mut parser, GTID, 100, &gtid()).unwrap();
        match feed(&mut parser, QUERY, 200, &query(sql)).unwrap() {
            Some(BinlogEvent::Statement { database, tables, .. }) => {
                let tables: Vec<_> = tables.iter().map(ToString::to_string).collect();
                (database, tables.join(" "))
            }
            other => panic!("{other:?}"),
        }
    };
    for (sql, typed, folded) in [
        ("TRUNCATE `D`.Orders", ("d", "D.Orders"), ("d", "d.orders")),
        ("RENAME TABLE Orders TO `X.Y`.z", ("d", "d.Orders `X.Y`.z"), ("d", "d.orders `x.y`.z")),
        ("DROP DATABASE Shop", ("Shop", ""), ("shop", "")),
    ] {
        for (names, (database, tables)) in [(NameCase::Sensitive, typed), (NameCase::Insensitive, folded)] {
            assert_eq!(named(names, sql), (database.into(), tables.into()), "{sql}");
        }
    }
}

#[test]
fn errors_hold_the_position_and_the_remedy() {
    let refused = |parser: &mut EventParser, kind, body: &[u8], text: &str| {
        let error = feed(parser, kind, 777, body).unwrap_err();
        let remedy = error.remedy().and_then(|remedy| remedy.first).unwrap_or_default();
        let error = format!("{error}; {remedy}");
        assert!(error.contains("binlog.000001:777") && error.contains(text), "{error}");
    };
    let row_event = [&rows_head(1, &[0x1f]), ROW].concat();

    refused(&mut parser(), WRITE, &row_event, "outside a transaction");
    refused(&mut parser(), XID, &[], "has not begun");
    refused(&mut parser(), QUERY, &query("BEGIN"), "gtid_mode");
    for (kind, text) in [
        (5, "binlog_format"),
        (13, "binlog_format"),
        (14, "binlog_format"),
        (18, "binlog_format"),
        (24, "log_bin_use_v1_row_events"),
        (26, "INCIDENT"),
        (34, "gtid_mode"),
        (38, "XA"),
        (40, "no transaction begins"),
        (42, "too early"),
        (99, "number 99"),
    ] {
        refused(&mut parser(), kind, &[], text);
    }
    let in_transaction = |kind, body: &[u8], text: &str| {
        let mut parser = parser();
        begin(&mut parser);
        feed(&mut parser, TABLE_MAP, 250, &table_map(1, "wanted")).unwrap();
        refused(&mut parser, kind, body, text);
    };
    in_transaction(GTID, &gtid(), "before the last one has ended");
    in_transaction(4, &rotate(4, "binlog.000001"), "inside a transaction");
    in_transaction(QUERY, &query("INSERT INTO x VALUES (1)"), "binlog_format = ROW");
    in_transaction(QUERY, &query("DROP TABLE x"), "inside a transaction");
    in_transaction(QUERY, &query("ROLLBACK"), "InnoDB");
    in_transaction(QUERY, &query("XA START x'00'"), "inside a transaction");
    in_transaction(38, &[0], "XA");
    in_transaction(39, &rows_head(1, &[0x1f]), "binlog_row_value_options");
    in_transaction(WRITE, &[&rows_head(9, &[0x1f]), ROW].concat(), "not been mapped");
    in_transaction(WRITE, &[&rows_head(1, &[0x0f]), ROW].concat(), "binlog_row_image = FULL");
    in_transaction(UPDATE, &[&rows_head(1, &[0x1f, 0x1e]), ROW].concat(), "binlog_row_image = FULL");
    in_transaction(WRITE, &[&rows_head(1, &[0x1f]), &ROW[..9]].concat(), "column `bin`");
    let longer = [&ROW[..8], &[4, 1, 2, 3, 4], &ROW[10..]].concat();
    in_transaction(WRITE, &[&rows_head(1, &[0x1f])[..], &longer].concat(), "`bin`: the BINARY is longer");

    // A map without names, one without a key, and maps with unknown types.
    let map = table_map(1, "wanted");
    let names = map.windows(2).position(|w| w == b"id").unwrap() - 3;
    in_transaction(TABLE_MAP, &map[..names], "binlog_row_metadata = FULL");
    let key = map.windows(4).position(|w| w == [8, 2, 1, 0]).unwrap();
    let keyless = [&map[..key], &map[key + 4..]].concat();
    in_transaction(TABLE_MAP, &keyless, "table d.wanted");
    let mut unknown = map.clone();
    *unknown.last_mut().unwrap() = 0;
    let unknown = [&unknown[..], &field(77, &[])].concat();
    in_transaction(TABLE_MAP, &unknown, "unknown field 77");
    let types = map.windows(5).position(|w| w == [3, 15, 254, 254, 19]).unwrap();
    for (code, name) in [(20, "`id` has the type number 20"), (99, "number 99")] {
        let mut map = map.clone();
        map[types] = code;
        in_transaction(TABLE_MAP, &map, name);
        map = table_map(1, "other");
        map[types - 1] = code;
        let mut parser = parser();
        begin(&mut parser);
        assert_eq!(
            feed(&mut parser, TABLE_MAP, 250, &map),
            Ok(None),
            "tables that are not wanted are ignored"
        );
    }
}

/// A damaged cell of an excluded column is an error, too.
#[test]
fn excluded_columns_are_skipped() {
    let excluding = |columns: &[&str]| {
        let excluded = columns.iter().map(|c| (TableName::new("d", "wanted"), (*c).to_owned())).collect();
        let mut parser = EventParser { excluded, ..parser() };
        begin(&mut parser);
        let mapped = feed(&mut parser, TABLE_MAP, 250, &table_map(1, "wanted"));
        (parser, mapped)
    };
    let (mut parser, mapped) = excluding(&["BIN", "t"]);
    assert_eq!(mapped, Ok(None));
    let write = [&rows_head(1, &[0x1f]), ROW, NULLS].concat();
    let Ok(Some(BinlogEvent::Rows(rows))) = feed(&mut parser, WRITE, 300, &write) else { panic!() };
    assert_eq!(rows.table.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["id", "name", "e"]);
    assert_eq!(rows.table.primary_key, [1, 0]);
    let found: Vec<Row> = rows.images.iter().map(|image| image.decode(&rows.table).unwrap()).collect();
    let without = |row: Row| vec![row[0].clone(), row[1].clone(), row[3].clone()];
    assert_eq!(found, [row(), nulls()].map(without));

    let cut = [&rows_head(1, &[0x1f]), &ROW[..ROW.len() - 1]].concat();
    let error = feed(&mut parser, WRITE, 300, &cut).unwrap_err().to_string();
    assert!(error.contains("column 5 of the row, an excluded one"), "{error}");
    let (mut parser, _) = excluding(&["bin"]);
    let error = feed(&mut parser, WRITE, 300, &cut).unwrap_err().to_string();
    assert!(error.contains("column `t`"), "{error}");

    let error = excluding(&["id"]).1.unwrap_err();
    let remedy = error.remedy().and_then(|remedy| remedy.first).unwrap_or_default();
    assert!(remedy.contains("exclude_from_capture"), "{remedy}");
    assert!(error.to_string().contains("the excluded column `id`"), "{error}");
}

/// A key that holds only a prefix of a column counts as a key of the whole column.
#[test]
fn keys_of_prefixes_are_keys_of_columns() {
    let map = table_map(1, "wanted");
    let key = map.windows(4).position(|w| w == [8, 2, 1, 0]).unwrap();
    let map = [&map[..key], &[9, 4, 1, 1, 0, 0], &map[key + 4..]].concat();
    let mut parser = parser();
    begin(&mut parser);
    feed(&mut parser, TABLE_MAP, 250, &map).unwrap();
    let write = [&rows_head(1, &[0x1f]), ROW].concat();
    let Ok(Some(BinlogEvent::Rows(rows))) = feed(&mut parser, WRITE, 300, &write) else { panic!() };
    assert_eq!(rows.table.primary_key, [1, 0]);
    assert_eq!(rows.images.iter().next().unwrap().key[..3], [2, 4, b'h']);
}

#[test]
fn savepoints_and_temporary_tables_are_skipped() {
    let mut parser = parser();
    begin(&mut parser);
    for sql in ["SAVEPOINT `s`", "ROLLBACK TO `s`", "DROP TEMPORARY TABLE IF EXISTS x"] {
        assert_eq!(feed(&mut parser, QUERY, 300, &query(sql)), Ok(None));
    }
    let dummy = [0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 2, 0, 0];
    assert_eq!(feed(&mut parser, WRITE, 300, &dummy), Ok(None));
}

#[test]
fn truncated_events_are_errors() {
    let map = table_map(1, "wanted");
    for end in 0..map.len() {
        let mut parser = parser();
        begin(&mut parser);
        let cut = feed(&mut parser, TABLE_MAP, 250, &map[..end]);
        // Only the last field may be missing, because it is not needed.
        assert!(cut.is_err() || end == map.len() - 3 || end == map.len() - 6, "{end}");
    }
    let mut parser = parser();
    begin(&mut parser);
    feed(&mut parser, TABLE_MAP, 250, &map).unwrap();
    let head = rows_head(1, &[0x1f]);
    let write = [&head, ROW, NULLS].concat();
    for end in 0..write.len() {
        let whole_rows = end == head.len() || end == head.len() + ROW.len();
        assert_eq!(feed(&mut parser, WRITE, 300, &write[..end]).is_ok(), whole_rows, "{end}");
    }
}

proptest! {
    #[test]
    fn damaged_events_never_panic(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        values in proptest::collection::vec(any::<u8>(), 0..60),
        kind in 0u8..45,
    ) {
        let mut parser = parser();
        begin(&mut parser);
        let mut map = table_map(1, "wanted");
        for (at, byte) in &damage {
            let at = at.index(map.len());
            map[at] = *byte;
        }
        let _ = feed(&mut parser, TABLE_MAP, 250, &map);
        let _ = feed(&mut parser, WRITE, 300, &[&rows_head(1, &[0x1f]), &values[..]].concat());
        let _ = feed(&mut parser, UPDATE, 300, &[&rows_head(1, &[0x1f, 0x1f]), &values[..]].concat());
        let _ = feed(&mut parser, kind, 300, &values);
    }
}
