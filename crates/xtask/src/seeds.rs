//! `seeds`: records small transactions with every column type on a real MySQL, for the tests with
//! damaged events and as what fuzzing begins with.
//!
//! A seed is one transaction: its events one after the other, each as it stands in the binlog but
//! without its checksum, its size set right. A seed of rows is a TABLE_MAP's body after two bytes of its
//! length, then the body of the rows event that follows it after a byte for its kind.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tandem_devstack::{Mysql, MysqlOptions};

/// Where the seeds are, from the workspace's root: of transactions, and of rows.
const EVENTS: &str = "fuzz/seeds/events";
const ROWS: &str = "fuzz/seeds/rows";

const HEADER: usize = 19;
const CHECKSUM: usize = 4;

const STATEMENTS: &[&str] = &[
    "SET SESSION sql_mode = ''",
    "CREATE DATABASE seeds",
    "USE seeds",
    "CREATE TABLE numbers (b BIT(11), i1 TINYINT, i2 SMALLINT UNSIGNED, id BIGINT UNSIGNED PRIMARY KEY, i3 MEDIUMINT,
     i4 INT, y YEAR, f FLOAT, d DOUBLE, dec1 DECIMAL(65,30), dec2 DECIMAL(10,2), b64 BIT(64))",
    "CREATE TABLE moments (d DATE, t0 TIME, t3 TIME(3), t6 TIME(6), dt0 DATETIME, dt4 DATETIME(4), dt6 DATETIME(6),
     ts0 TIMESTAMP NULL, ts2 TIMESTAMP(2) NULL, ts6 TIMESTAMP(6) NULL, id INT PRIMARY KEY)",
    "CREATE TABLE texts (a VARCHAR(20), l VARCHAR(300) CHARACTER SET latin1, s VARCHAR(20) CHARACTER SET sjis,
     u VARCHAR(20) CHARACTER SET ujis, g VARCHAR(20) CHARACTER SET gb18030, w VARCHAR(20) CHARACTER SET utf16,
     c CHAR(100), x TEXT, e ENUM('a', 'é', '') CHARACTER SET latin1, st SET('p', 'q', 'r'), id VARCHAR(20) NOT NULL,
     k BINARY(4) NOT NULL, PRIMARY KEY (k, id(3)))",
    "CREATE TABLE others (id INT PRIMARY KEY, b VARBINARY(20), l BLOB, f BINARY(255), j JSON, g GEOMETRY, v VECTOR(4))",
    "INSERT INTO numbers VALUES (5, -1, 65535, 18446744073709551615, -8388608, 2147483647, 2155, 1.5, -0.1,
     -99999999999999999999999999999999999.999999999999999999999999999999, 12.34, 18446744073709551615)",
    "INSERT INTO numbers (id) VALUES (1), (2), (3)",
    "UPDATE numbers SET i4 = id, dec1 = id, dec2 = -id, b = 7 WHERE id < 10",
    "UPDATE numbers SET id = id + 100, y = 0 WHERE id < 10",
    "DELETE FROM numbers",
    "INSERT INTO moments VALUES ('2024-02-29', '-838:59:59', '-00:00:00.001', '12:34:56.789012', '9999-12-31 23:59:59',
     '2024-00-07 01:02:03.4567', '0000-00-00', '2038-01-19 03:14:07', '2001-09-09 01:46:40.12', 0, 1)",
    "INSERT INTO moments (id, d) VALUES (2, '0000-00-00'), (3, '1000-01-01')",
    "INSERT INTO texts VALUES ('😀 ü', 'é€', '漢字ｱ', '丂漢', '汉\u{10000}', 'a😀', 'char', 'text', 'é', 'p,r', 'key', x'01'),
     (NULL, NULL, NULL, NULL, NULL, NULL, NULL, REPEAT('x', 300), 'none', '', '', '')",
    "UPDATE texts SET a = CONCAT(a, '!'), id = 'other' WHERE k = x'01000000'",
    r#"INSERT INTO others VALUES (1, x'00ff', REPEAT(x'ab', 300), x'01', '{"a": [1, -70000, 1.5e300, null, "x\\n"], "bb": true}',
     ST_GeomFromText('POLYGON((0 0, 0 1, 1 1, 0 0))', 4326), STRING_TO_VECTOR('[1, -2.5]'))"#,
    "INSERT INTO others (id, j) VALUES (2, JSON_ARRAY(CAST('1.50' AS DECIMAL(10,2)), CAST('2024-02-29' AS DATE),
     NOW(6), CAST('-12:00' AS TIME), x'00ff', CAST(18446744073709551615 AS UNSIGNED))), (3, '[]'),
     (4, JSON_OBJECT('long', REPEAT('y', 300)))",
    "DELETE FROM others",
];

pub(crate) fn seeds() -> Result<ExitCode> {
    let server = Mysql::ephemeral(&MysqlOptions::default())?;
    let log = crate::demo::runtime()?.block_on(record(&server.url()))?;
    let transactions = transactions(&log);
    let rows: Vec<_> = transactions.iter().filter_map(|t| rows(t)).collect();
    write(EVENTS, &transactions)?;
    write(ROWS, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn write(folder: &str, seeds: &[Vec<u8>]) -> Result<()> {
    let folder = crate::demo::root().join(folder);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    for (number, seed) in seeds.iter().enumerate() {
        let path = folder.join(format!("{number:02}"));
        fs::write(&path, seed).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The binlog of the statements.
async fn record(url: &str) -> Result<Vec<u8>> {
    let mut conn = Conn::from_url(url).await.context("connect to MySQL")?;
    let status: mysql_async::Row =
        conn.query_first("SHOW BINARY LOG STATUS").await?.context("MySQL has no binlog")?;
    let (file, from): (String, usize) =
        (status.get(0).context("no file")?, status.get(1).context("no position")?);
    for sql in STATEMENTS {
        match conn.query_drop(*sql).await {
            // Older servers have no VECTOR.
            Err(error) if sql.contains("VECTOR") => return Err(error).context("this needs MySQL 9"),
            outcome => outcome.with_context(|| (*sql).to_owned())?,
        }
    }
    conn.query_drop("FLUSH BINARY LOGS").await?;
    let base: String = conn.query_first("SELECT @@log_bin_basename").await?.unwrap_or_default();
    let path = std::path::Path::new(&base).with_file_name(file);
    let log = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(log.get(from..).unwrap_or_default().to_vec())
}

/// The transactions that hold rows.
fn transactions(log: &[u8]) -> Vec<Vec<u8>> {
    let (mut out, mut open, mut has_rows) = (Vec::new(), Vec::new(), false);
    let mut rest = log;
    while let Some(size) = rest.get(9..13).and_then(|s| s.first_chunk()) {
        let size = u32::from_le_bytes(*size) as usize;
        let Some((event, left)) = rest.split_at_checked(size.max(HEADER + CHECKSUM)) else { break };
        rest = left;
        if event[4] == 33 {
            open.clear();
            has_rows = false;
        }
        has_rows |= matches!(event[4], 30..=32);
        let start = open.len();
        open.extend_from_slice(&event[..event.len() - CHECKSUM]);
        open[start + 9..start + 13].copy_from_slice(&((size - CHECKSUM) as u32).to_le_bytes());
        if event[4] == 16 && has_rows {
            out.push(open.clone());
        }
    }
    out
}

/// The seed of rows in a transaction.
fn rows(transaction: &[u8]) -> Option<Vec<u8>> {
    let (mut seed, mut rest) = (Vec::new(), transaction);
    while let Some(size) = rest.get(9..13).and_then(|s| s.first_chunk()) {
        let (event, left) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        rest = left;
        match event[4] {
            19 => {
                seed = u16::try_from(event.len() - HEADER).ok()?.to_le_bytes().to_vec();
                seed.extend_from_slice(&event[HEADER..]);
            }
            kind @ 30..=32 => {
                seed.push(kind - 30);
                seed.extend_from_slice(&event[HEADER..]);
                return Some(seed);
            }
            _ => {}
        }
    }
    None
}
