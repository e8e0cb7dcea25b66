//! Reads by keys and by chunks.

use mysql_async::prelude::Queryable;
use tandem_model::{Row, Value};
use tandem_mysql::MysqlError;

use super::Source;

#[tokio::test]
async fn keys_are_read_exactly_and_by_the_index() -> anyhow::Result<()> {
    let mut source = Source::new("keys").await?;
    // A key column of each type that allows it, with values in the type's order.
    let numbers: Vec<i64> = (0..300).collect();
    let of = |f: &dyn Fn(i64) -> String| numbers.iter().map(|&i| f(i)).collect::<Vec<_>>();
    let columns: Vec<(&str, &str, Vec<String>)> = vec![
        ("i", "INT", of(&|i| (i - 150).to_string())),
        ("u", "BIGINT UNSIGNED", of(&|i| (u64::MAX - 299 + i as u64).to_string())),
        ("dc", "DECIMAL(40,10)", of(&|i| format!("{}.{i:010}", i128::from(i - 150) * 10_i128.pow(25)))),
        ("y", "YEAR", (1901..2156).map(|y| y.to_string()).collect()),
        (
            "dt",
            "DATE",
            of(&|i| if i == 0 { "'0000-00-00'".into() } else { format!("'2024-01-01' + INTERVAL {i} DAY") }),
        ),
        ("tm", "TIME(6)", of(&|i| format!("'{:02}:00:00.000001'", i - 150))),
        (
            "dtm",
            "DATETIME(6)",
            of(&|i| format!("TIMESTAMP '2024-01-01 00:00:00.000001' + INTERVAL {i} HOUR")),
        ),
        ("ts", "TIMESTAMP(3)", of(&|i| format!("TIMESTAMP '2024-03-30 00:00:00.001' + INTERVAL {i} HOUR"))),
        ("v", "VARCHAR(20)", of(&|i| format!("'k{i:03}'"))),
        ("vu", "VARCHAR(20) COLLATE utf8mb4_bin", of(&|i| format!("'漢{i:03}'"))),
        ("v3", "VARCHAR(20) CHARACTER SET utf8mb3", of(&|i| format!("'漢{i:03}'"))),
        ("vl", "VARCHAR(20) CHARACTER SET latin1", of(&|i| format!("'é{i:03}'"))),
        ("vlb", "CHAR(20) CHARACTER SET latin1 COLLATE latin1_bin", of(&|i| format!("'€{i:03}'"))),
        ("va", "VARCHAR(20) CHARACTER SET ascii", of(&|i| format!("'a{i:03}'"))),
        ("b", "BINARY(4)", of(&|i| format!("x'{i:04x}0000'"))),
        ("vb", "VARBINARY(9)", of(&|i| format!("x'{i:04x}'"))),
    ];
    let mut problems = Vec::new();
    for (name, ty, values) in columns {
        let table = format!("key_{name}");
        source
            .sql(&format!("CREATE TABLE {table} (v INT, k {ty} NOT NULL, n INT, PRIMARY KEY (n, k))"))
            .await?;
        source.sql(&format!("CREATE TABLE {table}_1 (v INT, k {ty} NOT NULL PRIMARY KEY)")).await?;
        let of = |row: &dyn Fn(usize, &String) -> String| {
            values.iter().enumerate().map(|(i, value)| row(i, value)).collect::<Vec<_>>().join(", ")
        };
        let (two, one) = (of(&|i, v| format!("({i}, {v}, {})", i % 3)), of(&|i, v| format!("({i}, {v})")));
        source.sql(&format!("INSERT INTO {table} VALUES {two}")).await?;
        source.sql(&format!("INSERT INTO {table}_1 VALUES {one}")).await?;
        for table in [table.clone(), format!("{table}_1")] {
            source.sql(&format!("ANALYZE TABLE {table}")).await?;
            let def = source.mysql.table_def(&source.table(&table)).await?;
            let upto = source.reader.max_key(&def).await?.expect("there are rows");
            let all = source.reader.read_chunk(&def, None, &upto, 1000).await?;
            assert_eq!(all.len(), values.len(), "{table}");
            let keys: Vec<_> = all.iter().map(|row| def.key_of(row)).collect();
            let read = source.reader.read_keys(&def, &keys).await?;
            assert!(read.iter().zip(&all).all(|(read, row)| read.as_ref() == Some(row)), "{table}");
            // A read of few keys or of a small part must not examine the whole table.
            let before = examined(&mut source, &table).await?;
            let few = source.reader.read_keys(&def, &keys[50..66]).await?;
            assert!(few.iter().zip(&all[50..66]).all(|(read, row)| read.as_ref() == Some(row)), "{table}");
            let part = source.reader.read_chunk(&def, Some(&keys[99]), &keys[119], 1000).await?;
            assert_eq!(part, all[100..120], "{table}");
            let examined = examined(&mut source, &table).await? - before;
            if !(36..=60).contains(&examined) {
                problems.push(format!("{table}: {examined} rows examined"));
            }
        }
    }
    assert_eq!(problems, Vec::<String>::new());

    // A key that is equal only by the collation is another key.
    let def = source.mysql.table_def(&source.table("key_v_1")).await?;
    let text = |s: &str| vec![Value::Text(s.into())];
    let read = source
        .reader
        .read_keys(&def, &[text("K007"), text("k007"), text("none"), text("k007 "), text("k007")])
        .await?;
    let found: Vec<_> = read.iter().map(Option::is_some).collect();
    assert_eq!(found, [false, true, false, false, true]);
    assert_eq!(source.reader.read_keys(&def, &[]).await?, Vec::<Option<Row>>::new());
    assert!(source.reader.approximate_rows(&source.table("key_v_1")).await? > 100);

    // The definition is checked against the result's columns.
    source.sql("ALTER TABLE key_v_1 MODIFY v BIGINT").await?;
    let changed = source.reader.read_keys(&def, &[text("k007")]).await;
    assert!(matches!(changed, Err(MysqlError::TableChanged { .. })), "{changed:?}");
    source.sql("DROP TABLE key_v_1").await?;
    let gone = source.reader.max_key(&def).await;
    assert!(matches!(gone, Err(MysqlError::TableChanged { .. })), "{gone:?}");
    source.drop().await
}

/// How many rows statements on a table have examined, according to the server.
async fn examined(source: &mut Source, table: &str) -> anyhow::Result<u64> {
    // The server accounts for a statement after it has sent its last packet and before it takes the
    // connection's next statement. So one round trip on the reader's connection makes the account complete.
    source.reader.clock_us().await?;
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(SUM_ROWS_EXAMINED), 0) AS UNSIGNED) FROM
         performance_schema.events_statements_summary_by_digest
         WHERE DIGEST_TEXT LIKE 'EXECUTE SELECT%FROM `{}` . `{table}` WHERE%'",
        source.database
    );
    Ok(source.writer.query_first(sql).await?.unwrap_or(0))
}
