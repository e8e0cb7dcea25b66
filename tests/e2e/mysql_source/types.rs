//! Every supported type, with its edge values: the binlog and a read return the same.

use tandem_binlog::{RowsEvent, RowsKind};
use tandem_model::{Decimal, Row, TableDef, Value};
use tandem_wire::Images;

use super::{Source, rows, values};

fn all_members(n: usize) -> String {
    (0..n).map(|i| format!("'m{i}'")).collect::<Vec<_>>().join(",")
}

fn all_bytes() -> String {
    (0..=255u8).map(|b| format!("{b:02x}")).collect::<Vec<_>>().concat()
}

/// Every supported type. The order of the key is not the order of the columns.
fn matrix() -> String {
    let fractions = (0..=6)
        .map(|n| format!("t{n} TIME({n}), dt{n} DATETIME({n}), ts{n} TIMESTAMP({n}) NULL,"))
        .collect::<Vec<_>>()
        .concat();
    format!(
        "CREATE TABLE m (
            kb VARCHAR(20) CHARACTER SET latin1 NOT NULL, y YEAR, ka INT UNSIGNED NOT NULL,
            i1 TINYINT, u1 TINYINT UNSIGNED, i2 SMALLINT, u2 SMALLINT UNSIGNED, i3 MEDIUMINT,
            u3 MEDIUMINT UNSIGNED, i4 INT, u4 INT UNSIGNED ZEROFILL, i8 BIGINT, u8 BIGINT UNSIGNED, b BOOL,
            f FLOAT, d DOUBLE, f2 FLOAT(7,3) UNSIGNED, dec_big DECIMAL(65,30), dec_whole DECIMAL(5,0),
            dec_fraction DECIMAL(10,10), dec_u DECIMAL(12,2) UNSIGNED,
            dt DATE, {fractions}
            c CHAR(10), c_long CHAR(200), c_empty CHAR(0), v VARCHAR(40), v_long VARCHAR(300),
            v_lat VARCHAR(300) CHARACTER SET latin1, v3 VARCHAR(20) CHARACTER SET utf8mb3,
            v_ascii VARCHAR(20) CHARACTER SET ascii, v_bin VARCHAR(9) COLLATE utf8mb4_bin,
            x1 TINYTEXT, x2 TEXT CHARACTER SET latin1, x3 MEDIUMTEXT, x4 LONGTEXT,
            b8 BINARY(8), b255 BINARY(255), vb VARBINARY(300), l1 TINYBLOB, l2 BLOB, l3 MEDIUMBLOB, l4 LONGBLOB,
            e ENUM('', 'a,b', 'it''s', 'back\\\\slash', 'é') CHARACTER SET latin1, e2 ENUM({}),
            s SET('x', 'y', 'z'), s64 SET({}) CHARACTER SET ascii, e3 ENUM('line\\nbreak', '漢'),
            g INT AS (i4 + 1) VIRTUAL, gs VARCHAR(50) AS (CONCAT(kb, '!')) STORED, hidden INT INVISIBLE,
            PRIMARY KEY (ka, kb)
        )",
        all_members(300),
        all_members(64),
    )
}

const COLUMNS_OF_TIMES: [&str; 3] = ["t", "dt", "ts"];

/// The rows of the matrix, as assignments.
fn matrix_rows() -> Vec<String> {
    let times = |time: &str, date_time: &str, timestamp: &str| {
        (0..=6)
            .flat_map(|n| {
                COLUMNS_OF_TIMES
                    .iter()
                    .zip([time, date_time, timestamp])
                    .map(move |(c, v)| format!("{c}{n} = {v}, "))
            })
            .collect::<Vec<_>>()
            .concat()
    };
    vec![
        "ka = 0, kb = ''".into(),
        format!(
            "ka = 4294967295, kb = 'é', i1 = -128, u1 = 255, i2 = -32768, u2 = 65535, i3 = -8388608,
             u3 = 16777215, i4 = -2147483648, u4 = 4294967295, i8 = -9223372036854775808,
             u8 = 18446744073709551615, b = 1, f = -3.4028234e38, d = -1.7976931348623157e308, f2 = 1234.567,
             dec_big = -99999999999999999999999999999999999.999999999999999999999999999999,
             dec_whole = -99999, dec_fraction = -0.9999999999, dec_u = 0.01, y = 2155, dt = '9999-12-31',
             {} c = 'trailing  ', c_long = REPEAT('漢', 200), c_empty = '', v = '😀 ', v_long = REPEAT('é', 300),
             v_lat = CONVERT(x'{}' USING latin1), v3 = '漢', v_ascii = 'ascii', v_bin = 'Bin', x1 = 't',
             x2 = 'é', x3 = REPEAT('x', 70000), x4 = REPEAT('é', 200000), b8 = x'ff00000000000000',
             b255 = x'01', vb = x'0100', l1 = x'', l2 = x'00ff', l3 = REPEAT(x'fe', 70000),
             l4 = REPEAT(x'00', 200000), e = 'é', e2 = 'm299', s = 'x,z', s64 = 18446744073709551615,
             e3 = 'line\\nbreak', hidden = 5",
            times("'-838:59:59'", "'9999-12-31 23:59:59.000000'", "'2038-01-19 03:14:07'"),
            all_bytes(),
        ),
        format!(
            "ka = 1, kb = 'A', i1 = 127, i2 = 32767, i3 = 8388607, i4 = 2147483646, i8 = 9223372036854775807,
             u1 = 0, u2 = 0, u3 = 8388608, u4 = 7, u8 = 9223372036854775808, f = 1.1, d = 0.1,
             dec_big = 99999999999999999999999999999999999.999999999999999999999999999999, dec_whole = 0,
             dec_fraction = 0.0000000001, y = 1901, dt = '0001-01-01',
             {} c = '', v = '', b8 = x'0000000000000000', e = '', e2 = 'm0', s = '', s64 = 'm0,m63',
             e3 = '漢'",
            times("'838:59:59'", "'1000-01-01 00:00:00'", "'1970-01-01 00:00:01'"),
        ),
        format!(
            "ka = 1, kb = 'B', f = 0, d = -0.0, y = 0, dt = '0000-00-00', dec_big = -0.000000000000000000000000000001,
             {} e = 'none of them', e2 = 0, s = 'y', i3 = -1, u3 = 1, v = 'tab\\t\\0 nul', vb = x'00'",
            times("'-00:00:00.999999'", "'0000-00-00 00:00:00'", "'0000-00-00 00:00:00'"),
        ),
        format!(
            "ka = 2, kb = '', y = 2000, dt = '2024-00-07', dec_big = 123456789.123456789, dec_u = 9999999999.99,
             {} e = 'a,b', s = 'x,y,z', e3 = 1, i3 = -8388607",
            times("'-12:34:56.789012'", "'2024-02-00 12:34:56.789012'", "'2024-02-29 12:34:56.789012'"),
        ),
        format!(
            "ka = 3, kb = 'x', y = 70, dt = '2024-02-29', f = 16777216, d = 5e-324, dec_whole = 12345,
             {} e = 'it''s', i4 = -1, u8 = 1, e2 = 'm255'",
            times("'00:00:00.000001'", "'2024-02-29 00:00:00.5'", "'2001-09-09 01:46:40.123456'"),
        ),
        format!("ka = 4, kb = 'y', e = 4, e2 = 'm254', {} y = 1970", times("0", "'1969-12-31 23:59:59.9'", "NULL")),
    ]
}

fn value<'a>(table: &TableDef, row: &'a Row, column: &str) -> &'a Value {
    &row[table.column(column).unwrap_or_else(|| panic!("no column {column}"))]
}

#[tokio::test]
async fn the_binlog_and_a_read_give_the_same_values() -> anyhow::Result<()> {
    let mut source = Source::new("types").await?;
    source.sql(&matrix()).await?;
    let table = source.mysql.table_def(&source.table("m")).await?;
    assert_eq!(
        table.key_of(&(0..table.columns.len() as i64).map(Value::Int).collect()),
        [Value::Int(2), Value::Int(0)]
    );
    let mut stream = source.stream("m").await?;

    for row in matrix_rows() {
        source.sql(&format!("INSERT INTO m SET {row}")).await?;
    }
    let events = source.upto_now(&mut stream).await?;
    let mut inserted = Vec::new();
    for event in rows(events) {
        assert_eq!((event.kind, &*event.table), (RowsKind::Write, &table));
        same_bytes(&mut source, &table, &event).await?;
        inserted.extend(values(&event)?.into_iter().map(|(before, after)| {
            assert_eq!(before, None);
            after.unwrap()
        }));
    }
    assert_eq!(inserted.len(), matrix_rows().len());
    same_rows(&mut source, &table, &inserted).await?;
    spot_values(&table, &inserted);

    source
        .sql("UPDATE m SET i4 = 1000 - ka % 7, v = CONCAT(COALESCE(v, ''), '+'), b255 = NULL, e = 'a,b'")
        .await?;
    let mut updated = Vec::new();
    let mut previous = inserted;
    for event in rows(source.upto_now(&mut stream).await?) {
        assert_eq!(event.kind, RowsKind::Update);
        for (before, after) in values(&event)? {
            let (before, after) = (before.unwrap(), after.unwrap());
            previous.retain(|row| *row != before);
            updated.push(after);
        }
    }
    assert!(previous.is_empty(), "every image before is a row as it was inserted");
    same_rows(&mut source, &table, &updated).await?;

    source.sql("DELETE FROM m").await?;
    for event in rows(source.upto_now(&mut stream).await?) {
        assert_eq!(event.kind, RowsKind::Delete);
        for (before, after) in values(&event)? {
            assert_eq!(after, None);
            let before = before.unwrap();
            updated.retain(|row| *row != before);
        }
    }
    assert!(updated.is_empty(), "every image before is a row as it was updated");
    source.drop().await
}

/// Asserts that reads of an event's rows have the same bytes as the binlog decoder's output.
pub(super) async fn same_bytes(
    source: &mut Source,
    table: &TableDef,
    event: &RowsEvent,
) -> anyhow::Result<()> {
    for (_, after) in event.rows() {
        let after = after.expect("an image after");
        let key = table.key_of(&after.decode(table)?);
        let read = source.reader.read_keys(table, &[key]).await?.remove(0).expect("the row is there");
        let mut images = Images::default();
        images.push(table, &read)?;
        assert_eq!(images.iter().next(), Some(after));
    }
    Ok(())
}

/// Asserts that reads return these rows, by keys and by chunks.
async fn same_rows(source: &mut Source, table: &TableDef, expected: &[Row]) -> anyhow::Result<()> {
    let keys: Vec<_> = expected.iter().map(|row| table.key_of(row)).collect();
    let read = source.reader.read_keys(table, &keys).await?;
    for (expected, read) in expected.iter().zip(read) {
        let read = read.expect("the row is there");
        for (column, (e, r)) in table.columns.iter().zip(expected.iter().zip(&read)) {
            assert_eq!(e, r, "column {} of key {:?}", column.name, table.key_of(expected));
        }
    }
    let upto = source.reader.max_key(table).await?.expect("there are rows");
    let mut chunked: Vec<Row> = Vec::new();
    loop {
        let after = chunked.last().map(|row| table.key_of(row));
        let chunk = source.reader.read_chunk(table, after.as_deref(), &upto, 2).await?;
        if chunk.is_empty() {
            break;
        }
        assert!(chunk.len() <= 2);
        chunked.extend(chunk);
    }
    assert_eq!(chunked.len(), expected.len());
    assert!(expected.iter().all(|row| chunked.contains(row)));
    Ok(())
}

fn spot_values(table: &TableDef, rows: &[Row]) {
    let text = |s: &str| Value::Text(s.into());
    let invalid = |s: &str| Value::InvalidDate(s.into());
    let decimal = |s: &str, scale| Value::Decimal(Decimal::parse(s, scale).expect("a decimal"));
    let expect = |row: usize, values: &[(&str, Value)]| {
        for (column, expected) in values {
            assert_eq!(value(table, &rows[row], column), expected, "column {column} of row {row}");
        }
    };
    expect(
        0,
        &[
            ("ka", Value::UInt(0)),
            ("kb", text("")),
            ("e", Value::Null),
            ("gs", text("!")),
            ("g", Value::Null),
        ],
    );
    let fives: String = LATIN1_SAMPLE.iter().collect();
    assert!(
        matches!(value(table, &rows[1], "v_lat"), Value::Text(s) if s.contains(&fives) && s.chars().count() == 256)
    );
    expect(
        1,
        &[
            ("kb", text("é")),
            ("i1", Value::Int(-128)),
            ("u1", Value::UInt(255)),
            ("i3", Value::Int(-8_388_608)),
            ("u3", Value::UInt(16_777_215)),
            ("i8", Value::Int(i64::MIN)),
            ("u8", Value::UInt(u64::MAX)),
            ("f", Value::Float(f32::MIN)),
            ("d", Value::Double(f64::MIN)),
            ("dec_big", decimal("-99999999999999999999999999999999999.999999999999999999999999999999", 30)),
            ("dec_whole", decimal("-99999", 0)),
            ("dec_fraction", decimal("-0.9999999999", 10)),
            ("y", Value::Int(2155)),
            ("dt", Value::Date(2_932_896)),
            ("t0", Value::Time(-3_020_399_000_000)),
            ("t6", Value::Time(-3_020_399_000_000)),
            ("ts0", Value::Timestamp(i64::from(i32::MAX) * 1_000_000)),
            ("c", text("trailing")),
            ("v", text("😀 ")),
            ("b8", Value::Bytes(vec![0xff, 0, 0, 0, 0, 0, 0, 0])),
            ("b255", Value::Bytes([vec![1], vec![0; 254]].concat())),
            ("vb", Value::Bytes(vec![1, 0])),
            ("l1", Value::Bytes(vec![])),
            ("e", text("é")),
            ("e2", text("m299")),
            ("s", text("x,z")),
            ("e3", text("line\nbreak")),
            ("gs", text("é!")),
            ("hidden", Value::Int(5)),
        ],
    );
    expect(
        2,
        &[("e", text("")), ("s", text("")), ("s64", text("m0,m63")), ("g", Value::Int(i32::MAX.into()))],
    );
    expect(2, &[("dt", Value::Date(-719_162)), ("ts6", Value::Timestamp(1_000_000)), ("c", text(""))]);
    expect(
        3,
        &[
            ("y", Value::Int(0)),
            ("dt", invalid("0000-00-00")),
            ("dt0", invalid("0000-00-00 00:00:00")),
            ("dt3", invalid("0000-00-00 00:00:00.000")),
            ("ts0", invalid("0000-00-00 00:00:00")),
            ("ts6", invalid("0000-00-00 00:00:00.000000")),
            ("t0", Value::Time(-1_000_000)),
            ("t6", Value::Time(-999_999)),
            ("e", text("")),
            ("i3", Value::Int(-1)),
            ("dec_big", decimal("-0.000000000000000000000000000001", 30)),
        ],
    );
    expect(
        4,
        &[
            ("dt", invalid("2024-00-07")),
            ("dt4", invalid("2024-02-00 12:34:56.7890")),
            ("ts5", Value::Timestamp(1_709_210_096_789_010)),
            ("t1", Value::Time(-45_296_800_000)),
            ("t2", Value::Time(-45_296_790_000)),
            ("t3", Value::Time(-45_296_789_000)),
            ("t6", Value::Time(-45_296_789_012)),
            ("dec_u", decimal("9999999999.99", 2)),
        ],
    );
    expect(
        5,
        &[
            ("d", Value::Double(5e-324)),
            ("t6", Value::Time(1)),
            ("y", Value::Int(1970)),
            ("e2", text("m255")),
        ],
    );
    expect(6, &[("e", text("back\\slash")), ("dt1", Value::DateTime(-100_000)), ("ts0", Value::Null)]);
}

/// The characters of latin1's bytes 0x80 to 0x82. Windows-1252 does not define the second.
const LATIN1_SAMPLE: [char; 3] = ['€', '\u{81}', '‚'];
