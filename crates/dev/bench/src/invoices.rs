//! The table of the benches, and binlogs with its changes.

use anyhow::{Context, Result};
use futures::future::try_join_all;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

pub(crate) const TABLE: &str = "CREATE TABLE invoices (
    id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, account_id BIGINT NOT NULL, number VARCHAR(32) NOT NULL,
    status ENUM('draft', 'open', 'paid', 'void') NOT NULL, currency CHAR(3) NOT NULL, country CHAR(2) NOT NULL,
    amount DECIMAL(12,2) NOT NULL, tax DECIMAL(12,2) NOT NULL, discount DECIMAL(5,2),
    customer VARCHAR(100) NOT NULL, note TEXT, positions INT UNSIGNED NOT NULL, flags TINYINT UNSIGNED NOT NULL,
    issued_at DATETIME(6) NOT NULL, due_on DATE NOT NULL, paid_at DATETIME, updated_at TIMESTAMP(6) NOT NULL)";

/// One random row. Every row is different.
pub(crate) const ROW: &str =
    "CREATE VIEW row_of AS SELECT FLOOR(RAND() * 1000000) a, CONCAT('INV-2024-', FLOOR(RAND() * 1e9)) b,
    1 + FLOOR(RAND() * 4) c, 'EUR' d, 'DE' e, ROUND(RAND() * 100000, 2) f, ROUND(RAND() * 10000, 2) g,
    IF(RAND() < 0.5, NULL, 2.50) h, CONCAT('Customer number ', FLOOR(RAND() * 1e6), ' Gmbh & Co') i,
    IF(RAND() < 0.5, NULL, 'Please pay within 30 days.') j, FLOOR(RAND() * 50) k, FLOOR(RAND() * 255) l,
    NOW(6) m, CURDATE() n, NULL o, NOW(6) p";

/// Of ten statements, five insert, four update rows that were just inserted, and one deletes. Each is a
/// transaction of `size` rows, with ids above `base`.
const LOAD: &str = "CREATE PROCEDURE make(base BIGINT UNSIGNED, statements INT, size INT) BEGIN
    DECLARE i INT DEFAULT 0;
    DECLARE next BIGINT UNSIGNED DEFAULT base;
    DECLARE some BIGINT UNSIGNED;
    WHILE i < statements DO
        IF i % 10 < 5 THEN
            INSERT INTO invoices SELECT next + n.i, a.* FROM n CROSS JOIN row_of AS a WHERE n.i < size;
            SET next = next + size;
        ELSEIF i % 10 < 9 THEN
            SET some = next - size * (i % 10 - 4);
            UPDATE invoices SET status = 'paid', paid_at = NOW(), updated_at = NOW(6)
                WHERE id BETWEEN some AND some + size - 1;
        ELSE
            SET some = next - size;
            DELETE FROM invoices WHERE id BETWEEN some AND some + size - 1;
        END IF;
        SET i = i + 1;
    END WHILE;
END";

/// Rows in a bulk transaction.
const BULK: u64 = 50_000;

/// Connections that write single-row transactions.
const WRITERS: u64 = 3;

/// The shapes of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    SingleRow,
    Bulk,
}

impl Shape {
    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SingleRow => "single_row",
            Self::Bulk => "bulk",
        }
    }
}

/// A connection to the database of the bench.
pub(crate) async fn connect(url: &str) -> Result<Conn> {
    let mut conn = Conn::from_url(url).await.context("connect to MySQL")?;
    for sql in ["CREATE DATABASE IF NOT EXISTS bench", "USE bench", "SET SESSION sql_mode = ''"] {
        conn.query_drop(sql).await.with_context(|| sql.to_owned())?;
    }
    Ok(conn)
}

/// Creates the table and the procedure that fills it.
pub(crate) async fn create(conn: &mut Conn) -> Result<()> {
    let numbers = format!(
        "INSERT INTO n WITH RECURSIVE r(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM r WHERE i < {}) SELECT i FROM r",
        BULK - 1
    );
    for sql in [
        TABLE,
        ROW,
        "CREATE TABLE n (i INT UNSIGNED PRIMARY KEY)",
        "SET SESSION cte_max_recursion_depth = 1000000000",
        &numbers,
        LOAD,
    ] {
        conn.query_drop(sql).await.with_context(|| sql.to_owned())?;
    }
    Ok(())
}

/// Writes a binlog of about this many row changes, with ids above the earlier ones. Returns their number.
pub(crate) async fn make(url: &str, shape: Shape, rows: u64) -> Result<u64> {
    let (writers, size) = match shape {
        Shape::SingleRow => (WRITERS, 1),
        Shape::Bulk => (1, BULK.min(rows / 10).max(1)),
    };
    // Whole rounds of ten statements.
    let statements = (rows / (writers * size)).div_ceil(10).max(1) * 10;
    let first: Option<u64> =
        connect(url).await?.query_first("SELECT COALESCE(MAX(id), 0) + 1000000000 FROM invoices").await?;
    let first = first.context("MySQL has no largest id")?;
    try_join_all((0..writers).map(|writer| async move {
        let base = first + writer * 100_000_000;
        let sql = format!("CALL make({base}, {statements}, {size})");
        connect(url).await?.query_drop(&sql).await.context(sql)
    }))
    .await?;
    Ok(writers * statements * size)
}
