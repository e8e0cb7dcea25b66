//! `bench decode`: the decoder alone, on binlogs recorded from a real MySQL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tandem_devstack::{Mysql, MysqlOptions};

use crate::invoices::{ROW, TABLE};

/// Names the environment variable with the path of the decoder's bench program.
const BENCH: &str = "TANDEM_DECODE_BENCH";

#[derive(Debug, Args)]
pub(crate) struct DecodeArgs {
    /// Transactions of one row each to record; the bulk transactions get five times as many rows
    #[arg(long, default_value_t = 20_000)]
    rows: u32,
    /// Write the figures to this file as well
    #[arg(long)]
    json: Option<PathBuf>,
}

pub(crate) fn decode(args: &DecodeArgs) -> Result<ExitCode> {
    let program = std::env::var_os(BENCH).map(PathBuf::from);
    let program =
        program.with_context(|| format!("{BENCH} is not set: start this by `cargo xtask bench decode`"))?;
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    eprintln!("recording {} transactions on a MySQL of its own", args.rows);
    let server = Mysql::ephemeral(&MysqlOptions::default())?;
    let runtime = tandem_compare::runtime()?;
    let files = runtime.block_on(record(&server.url(), args.rows, folder.path()))?;
    drop(server);
    let mut bench = Command::new(&program);
    bench.args(&files);
    if let Some(json) = &args.json {
        bench.arg("--json").arg(json);
    }
    if !bench.status().with_context(|| format!("run {}", program.display()))?.success() {
        bail!("the bench failed");
    }
    Ok(ExitCode::SUCCESS)
}

/// Of ten statements, five insert, four update and one deletes. Each is a transaction of one row.
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
