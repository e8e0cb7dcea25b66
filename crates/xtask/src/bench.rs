//! `bench`: figures of the decoder, on binlogs recorded from a real MySQL, and of the gateway.

mod gateway;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tandem_devstack::{Mysql, MysqlOptions};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Decode recorded rows of a 17-column invoice table: Tandem, mysql_common's rows(), the raw stream
    Decode(DecodeArgs),
    /// What the gateway adds to the stores' own time: gets and puts by phase, at half of its greatest rate
    Gateway(gateway::GatewayArgs),
}

#[derive(Debug, Args)]
struct DecodeArgs {
    /// Transactions of one row each to record; of bulk transactions, five times as many rows
    #[arg(long, default_value_t = 20_000)]
    rows: u32,
    /// Write the figures to this file as well
    #[arg(long)]
    json: Option<PathBuf>,
}

pub(crate) fn bench(args: &BenchArgs) -> Result<ExitCode> {
    match &args.what {
        What::Decode(args) => decode(args),
        What::Gateway(args) => gateway::gateway(args),
    }
}

fn decode(args: &DecodeArgs) -> Result<ExitCode> {
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    eprintln!("recording {} transactions on a MySQL of its own", args.rows);
    let server = Mysql::ephemeral(&MysqlOptions::default())?;
    let runtime = crate::demo::runtime()?;
    let files = runtime.block_on(record(&server.url(), args.rows, folder.path()))?;
    drop(server);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::demo::root());
    cargo
        .args(["bench", "--quiet", "--package", "tandem-mysql-source", "--bench", "decode", "--"])
        .args(&files);
    if let Some(json) = &args.json {
        // The bench runs in its package's folder.
        cargo.arg("--json").arg(std::path::absolute(json).context("find the JSON file's folder")?);
    }
    if !cargo.status().context("run cargo bench")?.success() {
        bail!("the bench failed");
    }
    Ok(ExitCode::SUCCESS)
}

const TABLE: &str = "CREATE TABLE invoices (
    id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, account_id BIGINT NOT NULL, number VARCHAR(32) NOT NULL,
    status ENUM('draft', 'open', 'paid', 'void') NOT NULL, currency CHAR(3) NOT NULL, country CHAR(2) NOT NULL,
    amount DECIMAL(12,2) NOT NULL, tax DECIMAL(12,2) NOT NULL, discount DECIMAL(5,2),
    customer VARCHAR(100) NOT NULL, note TEXT, positions INT UNSIGNED NOT NULL, flags TINYINT UNSIGNED NOT NULL,
    issued_at DATETIME(6) NOT NULL, due_on DATE NOT NULL, paid_at DATETIME, updated_at TIMESTAMP(6) NOT NULL)";

/// Of ten statements five insert, four update and one deletes, each a transaction of one row.
const SINGLE: &str = "CREATE PROCEDURE single(n INT) BEGIN
    DECLARE i INT DEFAULT 0;
    WHILE i < n DO
        IF i % 10 < 5 THEN INSERT INTO invoices SELECT NULL, a.* FROM row_of AS a;
        ELSEIF i % 10 < 9 THEN
            UPDATE invoices SET status = 'paid', paid_at = NOW(), updated_at = NOW(6) ORDER BY id DESC LIMIT 1;
        ELSE DELETE FROM invoices ORDER BY id DESC LIMIT 1;
        END IF;
        SET i = i + 1;
    END WHILE;
END";

/// One row as it could be; every one is different.
const ROW: &str =
    "CREATE VIEW row_of AS SELECT FLOOR(RAND() * 1000000) a, CONCAT('INV-2024-', FLOOR(RAND() * 1e9)) b,
    1 + FLOOR(RAND() * 4) c, 'EUR' d, 'DE' e, ROUND(RAND() * 100000, 2) f, ROUND(RAND() * 10000, 2) g,
    IF(RAND() < 0.5, NULL, 2.50) h, CONCAT('Customer number ', FLOOR(RAND() * 1e6), ' Gmbh & Co') i,
    IF(RAND() < 0.5, NULL, 'Please pay within 30 days.') j, FLOOR(RAND() * 50) k, FLOOR(RAND() * 255) l,
    NOW(6) m, CURDATE() n, NULL o, NOW(6) p";

/// Records a binlog of single-row transactions and one of bulk transactions.
async fn record(url: &str, rows: u32, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut conn = Conn::from_url(url).await.context("connect to MySQL")?;
    for sql in [
        "SET GLOBAL sync_binlog = 0, GLOBAL innodb_flush_log_at_trx_commit = 0",
        "SET SESSION sql_mode = ''",
        "CREATE DATABASE bench",
        "USE bench",
        TABLE,
        ROW,
        SINGLE,
    ] {
        conn.query_drop(sql).await.with_context(|| sql.to_owned())?;
    }
    let mut files = Vec::new();
    for name in ["single_row", "bulk"] {
        conn.query_drop("FLUSH BINARY LOGS").await?;
        let (file, ..) = status(&mut conn).await?;
        if name == "single_row" {
            conn.query_drop(format!("CALL single({rows})")).await.context("make single-row transactions")?;
        } else {
            let numbers =
                format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})");
            conn.query_drop("SET SESSION cte_max_recursion_depth = 1000000000").await?;
            let insert =
                format!("INSERT INTO invoices {numbers} SELECT NULL, a.* FROM n CROSS JOIN row_of AS a");
            for sql in
                [insert.as_str(), insert.as_str(), "UPDATE invoices SET status = 'paid', paid_at = NOW()"]
            {
                conn.query_drop(sql).await.context("make bulk transactions")?;
            }
        }
        conn.query_drop("FLUSH BINARY LOGS").await?;
        let base: String = conn.query_first("SELECT @@log_bin_basename").await?.unwrap_or_default();
        let base = Path::new(&base).parent().context("MySQL has no binlog")?.join(file);
        let copy = folder.join(format!("{name}.binlog"));
        fs::copy(&base, &copy).with_context(|| format!("copy {}", base.display()))?;
        files.push(copy);
    }
    Ok(files)
}

/// The binlog's file and position.
async fn status(conn: &mut Conn) -> Result<(String, u64)> {
    let row: mysql_async::Row =
        conn.query_first("SHOW BINARY LOG STATUS").await?.context("MySQL has no binlog")?;
    Ok((row.get(0).context("no file")?, row.get(1).context("no position")?))
}
