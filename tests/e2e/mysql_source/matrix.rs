//! MySQL as the judge. For every type and edge value, SELECT's text, a chunk read and the binlog decoder's
//! output agree.

use mysql_async::Value as Raw;
use mysql_async::prelude::Queryable;
use tandem_model::{ColumnType, GtidSet, Row, TableDef};
use tandem_mysql::{BinlogStream, Mysql, MysqlConfig};

use super::types::same_bytes;
use super::{Source, rows, text, values};
use crate::support::random_server_id;

/// Checks every row of a table `m` that the statements create and fill. Returns how many cells were compared.
async fn agree(name: &str, create: &[String], fill: &[String]) -> anyhow::Result<usize> {
    let mut source = Source::new(name).await?;
    for sql in create {
        source.sql(sql).await?;
    }
    let table = source.mysql.table_def(&source.table("m")).await?;
    let from = source.reader.executed().await?;
    let mut stream = source.stream("m").await?;
    for sql in fill {
        source.sql(sql).await?;
    }
    let mut decoded: Vec<Row> = Vec::new();
    for event in rows(source.upto_now(&mut stream).await?) {
        assert_eq!(*event.table, table, "the binlog and information_schema tell different tables");
        same_bytes(&mut source, &table, &event).await?;
        decoded.extend(values(&event)?.into_iter().filter_map(|(_, after)| after));
    }
    drop(stream);
    without_some(&mut source, &from, &table, &decoded).await?;
    let printed = printed(&mut source, &table).await?;
    assert_eq!(printed.len(), decoded.len());
    let mut cells = 0;
    for row in &decoded {
        let said: Vec<Option<String>> =
            row.iter().zip(&table.columns).map(|(value, column)| text::of(value, &column.ty)).collect();
        let key_of = |row: &[Option<String>]| -> Vec<_> {
            table.primary_key.iter().map(|&i| row[i].clone()).collect()
        };
        let key = key_of(&said);
        let found = printed.iter().find(|found| key_of(found) == key).expect("the row is there");
        for ((column, said), found) in table.columns.iter().zip(&said).zip(found) {
            assert_eq!(said, found, "column `{}` of row {key:?}", column.name);
            cells += 1;
        }
    }
    source.drop().await?;
    Ok(cells)
}

/// With every other column excluded, the same rows are read without these columns. Every type is skipped by
/// its length.
async fn without_some(
    source: &mut Source,
    from: &GtidSet,
    table: &TableDef,
    decoded: &[Row],
) -> anyhow::Result<()> {
    for odd in [0, 1] {
        let kept = |i: usize| i % 2 == odd || table.primary_key.contains(&i);
        let names = table.columns.iter().enumerate().filter(|(i, _)| !kept(*i));
        let excluded = names.map(|(_, column)| (table.name.clone(), column.name.to_uppercase())).collect();
        let config = MysqlConfig { server_id: random_server_id(), excluded, ..source.config.clone() };
        let seen = Mysql::connect(&config).await?.table_def(&table.name).await?;
        let wanted = table.name.clone();
        let mut stream = BinlogStream::open(&config, from, move |t| *t == wanted).await?;
        let mut found = Vec::new();
        for event in rows(source.upto_now(&mut stream).await?) {
            assert_eq!(*event.table, seen);
            found.extend(values(&event)?.into_iter().filter_map(|(_, after)| after));
        }
        let without = |row: &Row| -> Row {
            row.iter().enumerate().filter(|(i, _)| kept(*i)).map(|(_, value)| value.clone()).collect()
        };
        assert_eq!(found, decoded.iter().map(without).collect::<Vec<_>>());
    }
    Ok(())
}

/// Every row in the text of SELECT.
async fn printed(source: &mut Source, table: &TableDef) -> anyhow::Result<Vec<Vec<Option<String>>>> {
    let columns: Vec<String> =
        table.columns.iter().map(|c| text::expression(&format!("`{}`", c.name), &c.ty)).collect();
    source.sql("SET NAMES utf8mb4").await?;
    let found: Vec<mysql_async::Row> =
        source.writer.query(format!("SELECT {} FROM m", columns.join(", "))).await?;
    found
        .into_iter()
        .map(|row| {
            row.unwrap()
                .into_iter()
                .zip(&table.columns)
                .map(|(raw, column)| match raw {
                    Raw::NULL => Ok(None),
                    Raw::Bytes(bytes) => {
                        let text = String::from_utf8(bytes)?;
                        Ok(Some(match column.ty {
                            ColumnType::Float | ColumnType::Double => text::double(text.parse()?),
                            _ => text,
                        }))
                    }
                    other => anyhow::bail!("{other:?} is no text"),
                })
                .collect()
        })
        .collect()
}

/// A table with a key and a column of each type, and a row for each value. `types` has the types with their
/// values.
async fn types_agree(name: &str, types: &[(&str, &[&str])]) -> anyhow::Result<()> {
    let columns: Vec<String> = types.iter().enumerate().map(|(i, (ty, _))| format!("c{i} {ty}")).collect();
    let create = format!("CREATE TABLE m (id INT AUTO_INCREMENT PRIMARY KEY, {})", columns.join(", "));
    let fill: Vec<String> = types
        .iter()
        .enumerate()
        .flat_map(|(i, (_, values))| {
            values.iter().map(move |value| format!("INSERT INTO m (c{i}) VALUES ({value})"))
        })
        .collect();
    let cells = agree(name, &[create], &fill).await?;
    assert_eq!(cells, fill.len() * (types.len() + 1));
    Ok(())
}

#[tokio::test]
async fn bits() -> anyhow::Result<()> {
    let types: Vec<String> = (1..=64).map(|n| format!("BIT({n})")).collect();
    let values: Vec<[String; 4]> = (1..=64u32)
        .map(|n| {
            let all = u64::MAX >> (64 - n);
            [0, 1, all, all & 0xaaaa_aaaa_aaaa_aaaa].map(|v| v.to_string())
        })
        .collect();
    let values: Vec<Vec<&str>> = values.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    let types: Vec<(&str, &[&str])> =
        types.iter().zip(&values).map(|(ty, values)| (ty.as_str(), values.as_slice())).collect();
    types_agree("bits", &types).await
}

#[tokio::test]
async fn numbers() -> anyhow::Result<()> {
    let edges: &[&str] = &["-128", "-1", "0", "127"];
    let unsigned: &[&str] = &["0", "1", "127", "128", "255"];
    types_agree(
        "numbers",
        &[
            ("TINYINT", edges),
            ("TINYINT UNSIGNED", unsigned),
            ("SMALLINT", &["-32768", "-1", "32767"]),
            ("BIT(7)", &["5"]),
            ("SMALLINT UNSIGNED", &["0", "32768", "65535"]),
            ("MEDIUMINT", &["-8388608", "-8388607", "-1", "8388607"]),
            ("MEDIUMINT UNSIGNED", &["8388608", "16777215"]),
            ("YEAR", &["0", "1901", "2155", "'00'", "70"]),
            ("INT", &["-2147483648", "2147483647"]),
            ("INT UNSIGNED", &["2147483648", "4294967295"]),
            ("BIGINT", &["-9223372036854775808", "9223372036854775807"]),
            ("BIGINT UNSIGNED", &["9223372036854775808", "18446744073709551615", "255", "256"]),
            ("FLOAT", &["-3.4028234e38", "1.1754944e-38", "1.4e-45", "0.1", "-0.0", "16777217"]),
            ("DOUBLE", &["-1.7976931348623157e308", "5e-324", "0.1", "-0.0", "1e22"]),
            (
                "DECIMAL(65,30)",
                &[
                    "-99999999999999999999999999999999999.999999999999999999999999999999",
                    "0.000000000000000000000000000001",
                    "0",
                    "-1",
                ],
            ),
            ("DECIMAL(65,0)", &["99999999999999999999999999999999999999999999999999999999999999999", "-1"]),
            ("DECIMAL(30,30)", &["0.999999999999999999999999999999", "-0.000000000000000000000000000001"]),
            ("DECIMAL(18,9)", &["-999999999.999999999", "0.000000001", "1.5"]),
            ("DECIMAL(19,9)", &["-9999999999.999999999", "0.000000001", "1.5"]),
            ("DECIMAL(1,0)", &["9", "-9", "0"]),
            ("DECIMAL(10,2) UNSIGNED", &["12345678.90", "0.01"]),
        ],
    )
    .await
}

#[tokio::test]
async fn moments() -> anyhow::Result<()> {
    let mut types: Vec<(String, Vec<&str>)> = vec![(
        "DATE".into(),
        vec![
            "'0000-00-00'",
            "'0001-01-01'",
            "'1969-12-31'",
            "'1970-01-01'",
            "'2024-02-29'",
            "'2024-00-00'",
            "'2024-05-00'",
            "'9999-12-31'",
        ],
    )];
    for fsp in 0..=6 {
        types.push((
            format!("TIME({fsp})"),
            vec![
                "'-838:59:59'",
                "'838:59:59'",
                "'-00:00:00.000001'",
                "'-00:00:00.999999'",
                "'-00:00:01.5'",
                "'24:00:00'",
                "'100:00:00.123456'",
                "'0'",
                "'-25:00:00.01'",
            ],
        ));
        types.push((
            format!("DATETIME({fsp})"),
            vec![
                "'0000-00-00'",
                "'0001-01-01'",
                "'1969-12-31 23:59:59.999999'",
                "'2024-00-07 01:02:03.456789'",
                "'9999-12-31 23:59:59'",
                "'2024-02-29 12:34:56.789012'",
                "'1000-01-01 00:00:00.000001'",
            ],
        ));
        types.push((
            format!("TIMESTAMP({fsp}) NULL"),
            vec![
                "'0000-00-00'",
                "'1970-01-01 00:00:01'",
                "'2038-01-19 03:14:07'",
                "'2001-09-09 01:46:40.123456'",
            ],
        ));
    }
    let types: Vec<(&str, &[&str])> = types.iter().map(|(ty, v)| (ty.as_str(), v.as_slice())).collect();
    types_agree("moments", &types).await
}

#[tokio::test]
async fn bytes_and_members() -> anyhow::Result<()> {
    let members: Vec<String> = (0..64).map(|i| format!("'m{i}'")).collect();
    let set = format!("SET({})", members.join(","));
    types_agree(
        "bytes",
        &[
            ("BINARY(3)", &["x'ff'", "x'000000'", "x'010000'", "''"]),
            ("BINARY(255)", &["x'00'", "REPEAT(x'ff', 255)"]),
            ("VARBINARY(65000)", &["x''", "x'0100'", "REPEAT(x'fe00', 300)"]),
            ("TINYBLOB", &["''", "REPEAT(x'00', 255)"]),
            ("BLOB", &["REPEAT(x'0a', 300)"]),
            ("MEDIUMBLOB", &["REPEAT(x'0b', 70000)"]),
            ("LONGBLOB", &["REPEAT(x'0c', 70000)"]),
            ("ENUM('a', '', 'it''s', 'b')", &["'a'", "''", "'it''s'", "4", "'none of them'", "0"]),
            (&set, &["''", "'m0'", "'m63'", "18446744073709551615", "'m5,m62,m1'"]),
            ("POINT SRID 4326", &["ST_GeomFromText('POINT(48.1 11.5)', 4326)"]),
            (
                "GEOMETRY",
                &[
                    "ST_GeomFromText('POINT(1 2)')",
                    "ST_GeomFromText('POINT(-1e300 2)', 3857)",
                    "ST_GeomFromText('LINESTRING(0 0, 1 1, 2 0)')",
                    "ST_GeomFromText('POLYGON((0 0, 0 1, 1 1, 0 0))', 4326)",
                    "ST_GeomFromText('MULTIPOINT(1 1, 2 2)')",
                    "ST_GeomFromText('GEOMETRYCOLLECTION EMPTY')",
                    "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1), LINESTRING(0 0, 1 1))')",
                    "ST_GeomFromText('MULTIPOLYGON(((0 0, 0 1, 1 1, 0 0)))')",
                ],
            ),
        ],
    )
    .await
}

#[tokio::test]
async fn vectors() -> anyhow::Result<()> {
    types_agree(
        "vectors",
        &[
            ("VECTOR(3)", &["STRING_TO_VECTOR('[1, -2.5, 3e38]')", "STRING_TO_VECTOR('[0]')"]),
            ("VECTOR", &["STRING_TO_VECTOR('[1,2,3,4,5,6,7]')"]),
            ("INT UNSIGNED", &["4294967295"]),
        ],
    )
    .await
}

#[tokio::test]
async fn json_of_every_kind() -> anyhow::Result<()> {
    let deep = format!("'{}1{}'", "[".repeat(99), "]".repeat(99));
    let keys: Vec<String> = (0..300).map(|i| format!("\"key {i}\": {i}")).collect();
    let many = format!("'{{{}}}'", keys.join(", "));
    types_agree(
        "json",
        &[("JSON", &[
            "'null'", "'true'", "'false'", "'[]'", "'{}'", "'\"\"'", "'[null, true, false, [], {}]'",
            "'{\"bb\": 1, \"a\": 2, \"\": 3, \"ab\": {\"x\": [1, 2]}}'",
            "'[0, -1, 32767, -32768, 32768, 65535, 65536, 2147483647, 2147483648, -2147483649, 4294967295]'",
            "'[9223372036854775807, -9223372036854775808, 18446744073709551615, 18446744073709551616]'",
            "'[0.0, -0.0, 1.0, 1.5, 1e14, 1e15, 1e16, 123456789012345678, 1e300, 5e-324, 1e-14, 1e-15, 1e-16]'",
                "'[1950662499942183.25, 1950662499942183.75, 5.6843418860808015e-14, 4503599627370497.5]'",
            "'[0.1, 0.30000000000000004, 1.7976931348623157e308, 2.2250738585072014e-308, 12345678901234.5]'",
                r#"'["\\\\ \\" / \\b\\f\\n\\r\\t \\u0001\\u001f \\u007f \\u00e9 \\ud83d\\ude00 \\u2028"]'"#,
            "JSON_ARRAY(CAST('1.50' AS DECIMAL(10,2)), CAST('-99999999999999999999.999' AS DECIMAL(30,3)))",
            "JSON_ARRAY(CAST('2024-02-29' AS DATE), CAST('0000-00-00' AS DATE))",
            "JSON_ARRAY(CAST('2024-02-29 01:02:03.456789' AS DATETIME(6)), CAST('2024-02-29 01:02:03' AS DATETIME))",
            "JSON_ARRAY(CAST('-838:59:59' AS TIME), CAST('-00:00:00.5' AS TIME(1)), CAST('12:34:56.789' AS TIME(3)))",
            "JSON_ARRAY(TIMESTAMP'2001-09-09 01:46:40.123456', CAST(2001 AS YEAR))",
            "JSON_ARRAY(x'00ff', CAST('' AS BINARY), b'101', REPEAT(x'ab', 200), CAST(REPEAT('x', 57) AS BINARY))",
            "JSON_OBJECT('blob', CAST(REPEAT(x'01', 300) AS BINARY), 'geo', ST_GeomFromText('POINT(1 2.5)'))",
            "JSON_ARRAY(REPEAT('x', 70000), 1, -1, 70000, -70000)",
            "JSON_ARRAY(REPEAT('y', 200), REPEAT('z', 20000))",
            &deep,
            &many,
        ])],
    )
    .await
}

/// The text in which MySQL prints random DOUBLEs, with few and with many digits.
#[tokio::test]
async fn json_of_random_numbers() -> anyhow::Result<()> {
    let mut fill = Vec::new();
    for _ in 0..40 {
        let numbers: Vec<String> = (0..100)
            .map(|i| {
                let bits = rand::random::<f64>();
                let exponent = i32::from(rand::random::<i8>()) * if i % 2 == 0 { 2 } else { 1 } / 8;
                let number = match i % 4 {
                    0 => f64::from_bits(rand::random::<u64>() >> 2),
                    1 => (bits * 1000.0).round() * 10f64.powi(exponent),
                    2 => bits * 10f64.powi(exponent),
                    _ => -bits,
                };
                format!("{number:e}")
            })
            .collect();
        fill.push(format!("INSERT INTO m (j) VALUES ('[{}]')", numbers.join(", ")));
    }
    let create = "CREATE TABLE m (id INT AUTO_INCREMENT PRIMARY KEY, j JSON NOT NULL)".to_owned();
    let cells = agree("doubles", &[create], &fill).await?;
    assert_eq!(cells, 80);
    Ok(())
}

#[tokio::test]
async fn invisible_and_generated_columns() -> anyhow::Result<()> {
    let create = [
        "SET SESSION sql_generate_invisible_primary_key = ON".to_owned(),
        "CREATE TABLE m (a INT, hidden VARCHAR(9) INVISIBLE, v INT AS (a + 1) VIRTUAL, s INT AS (a * 2) STORED,
         j JSON AS (JSON_ARRAY(a)) STORED)"
            .to_owned(),
    ];
    let fill = ["INSERT INTO m (a) VALUES (1), (NULL), (3)", "INSERT INTO m (a, hidden) VALUES (4, 'x')"];
    let cells = agree("invisible", &create, &fill.map(str::to_owned)).await?;
    assert_eq!(cells, 4 * 6, "the generated key and four rows");
    Ok(())
}

#[tokio::test]
async fn keys_of_beginnings_of_columns() -> anyhow::Result<()> {
    let create =
        "CREATE TABLE m (a INT NOT NULL, t TEXT NOT NULL, b VARBINARY(300) NOT NULL, n BIT(9) NOT NULL,
                  PRIMARY KEY (t(3), n, b(2), a)) COLLATE utf8mb4_bin";
    let fill = [
        "INSERT INTO m VALUES (1, 'abc and more', x'0102ff', 1), (2, 'abcd', x'0102ff', 2), (1, 'é', x'', 256)",
        "INSERT INTO m VALUES (1, REPEAT('z', 5000), REPEAT(x'ff', 300), 511), (3, '', x'00', 0)",
    ];
    let cells = agree("prefixes", &[create.to_owned()], &fill.map(str::to_owned)).await?;
    assert_eq!(cells, 5 * 4);
    Ok(())
}

/// Every character of every character set that Unicode's first planes can be converted to.
#[tokio::test]
async fn every_character_set() -> anyhow::Result<()> {
    let mut source = Source::new("charsets").await?;
    let charsets: Vec<String> = source
        .writer
        .query(
            "SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS \
             WHERE CHARACTER_SET_NAME <> 'binary' ORDER BY 1",
        )
        .await?;
    source.drop().await?;
    assert!(charsets.len() > 30, "{charsets:?}");
    let characters: Vec<char> = ('\u{1}'..='\u{ffff}').chain('\u{1f300}'..'\u{1f400}').collect();
    for charset in charsets {
        let create = format!(
            "CREATE TABLE m (id INT AUTO_INCREMENT PRIMARY KEY, c LONGTEXT, f CHAR(9), e ENUM('a', 'x', 'one')) \
             CHARACTER SET {charset}"
        );
        let mut fill: Vec<String> = characters
            .chunks(2048)
            .map(|chunk| {
                let hex: String =
                    chunk.iter().collect::<String>().bytes().map(|b| format!("{b:02x}")).collect();
                format!("INSERT INTO m (c) VALUES (CONVERT(x'{hex}' USING utf8mb4))")
            })
            .collect();
        fill.push("INSERT INTO m (f, e) VALUES ('ab  ', 'one'), ('', 'x'), (' x', 0)".into());
        let rows = characters.chunks(2048).len() + 3;
        let cells = agree(&format!("cs_{charset}"), &[create], &fill).await?;
        assert_eq!(cells, rows * 4, "{charset}");
    }
    Ok(())
}

/// The metadata of a table count columns within classes. So each type is placed between others of every
/// class.
#[tokio::test]
async fn every_type_between_others() -> anyhow::Result<()> {
    let types = [
        ("JSON", "'[1]'"),
        ("GEOMETRY", "ST_GeomFromText('POINT(1 2)')"),
        ("POINT", "ST_GeomFromText('POINT(1 2)')"),
        ("VECTOR(2)", "STRING_TO_VECTOR('[1]')"),
        ("BIT(9)", "300"),
        ("YEAR", "2000"),
        ("DECIMAL(9,2)", "1.5"),
        ("FLOAT", "1.5"),
        ("DATE", "'2024-02-29'"),
        ("TIMESTAMP(2) NULL", "'2024-02-29 00:00:00'"),
        ("TIME(1)", "'1:2:3.4'"),
        ("LONGBLOB", "x'00ff'"),
        ("BINARY(3)", "x'ff'"),
        ("ENUM('x', 'y') CHARACTER SET ascii", "'y'"),
        ("SET('x', 'y') CHARACTER SET ucs2", "'x,y'"),
    ];
    for (ty, value) in types {
        let create = format!(
            "CREATE TABLE m (i INT UNSIGNED, t CHAR(9) CHARACTER SET sjis, e ENUM('漢', 'é') CHARACTER SET utf8mb4,
             it {ty}, s SET('é') CHARACTER SET latin1, u TINYTEXT CHARACTER SET utf16, n TINYINT, k BIGINT UNSIGNED
             PRIMARY KEY)"
        );
        let fill = format!(
            "INSERT INTO m VALUES (4294967295, '漢', 'é', {value}, 'é', 'a漢', -1, 18446744073709551615)"
        );
        let cells = agree("between", &[create], &[fill]).await?;
        assert_eq!(cells, 8, "{ty}");
    }
    Ok(())
}
