//! `charsets`: writes down what each of MySQL's character sets means, as MySQL itself converts it.
//!
//! A table is a text of lines `BYTES CHARACTERS`: the characters of the byte sequence BYTES and of those
//! after it, whose last byte is one more each time, some as `\\` and four hexadecimal digits. Four-byte
//! sequences (gb18030) stand in lines `+NUMBER CODE COUNT`, the first two in hexadecimal: so many
//! sequences from that one on, counted in gb18030's order, are the characters from U+CODE on. What is not
//! there has no meaning.

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tandem_devstack::{Mysql, MysqlOptions};

/// Where the tables are, from the workspace's root.
const FOLDER: &str = "crates/mysql-source/src/charset/tables";

/// The character sets of the server that no table describes.
const UNICODE: &str =
    "'binary', 'utf8mb3', 'utf8mb4', 'ucs2', 'utf16', 'utf16le', 'utf32', 'ascii', 'latin1'";

#[derive(Debug, Args)]
pub(crate) struct CharsetsArgs {
    /// Only compare with the tables that are there
    #[arg(long)]
    check: bool,
}

pub(crate) fn charsets(args: &CharsetsArgs) -> Result<ExitCode> {
    let server = Mysql::ephemeral(&MysqlOptions::default())?;
    let folder = crate::demo::root().join(FOLDER);
    let tables = crate::demo::runtime()?.block_on(tables(&server.url()))?;
    let mut differ = 0;
    for (name, table) in tables {
        let path = folder.join(format!("{name}.txt"));
        if args.check {
            if fs::read_to_string(&path).ok().as_deref() != Some(&table) {
                eprintln!("{} is not what this MySQL says", path.display());
                differ += 1;
            }
        } else {
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
            fs::write(&path, table).with_context(|| format!("write {}", path.display()))?;
        }
    }
    ensure!(differ == 0, "{differ} tables differ");
    Ok(ExitCode::SUCCESS)
}

async fn tables(url: &str) -> Result<Vec<(String, String)>> {
    let mut conn = Conn::from_url(url).await.context("connect to MySQL")?;
    conn.query_drop("SET SESSION sql_mode = '', cte_max_recursion_depth = 2000000").await?;
    let names: Vec<(String, u32)> = conn
        .query(format!(
            "SELECT CHARACTER_SET_NAME, MAXLEN FROM information_schema.CHARACTER_SETS
             WHERE CHARACTER_SET_NAME NOT IN ({UNICODE}) ORDER BY 1"
        ))
        .await?;
    let mut out = Vec::new();
    for (name, longest) in names {
        eprintln!("{name}");
        let mut found = meanings(&mut conn, &name, 1, 0, 256).await?;
        if longest > 1 {
            found.extend(meanings(&mut conn, &name, 2, 0x8000, 0x8000).await?);
        }
        if longest == 3 {
            found.extend(meanings(&mut conn, &name, 3, 0x8f_8000, 0x8000).await?);
        }
        let mut table = lines(&found);
        if longest == 4 {
            table.push_str(&four_bytes(&mut conn, &name).await?);
        }
        out.push((name, table));
    }
    Ok(out)
}

/// The sequences of so many bytes, from `first` on, that are exactly one character.
async fn meanings(
    conn: &mut Conn,
    charset: &str,
    bytes: usize,
    first: u32,
    count: u32,
) -> Result<Vec<(Vec<u8>, char)>> {
    let digits = bytes * 2;
    let rows: Vec<(u32, Option<String>)> = conn
        .query(format!(
            "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {}),
             t AS (SELECT i, CONVERT(UNHEX(LPAD(HEX(i), {digits}, '0')) USING {charset}) AS c FROM n)
             SELECT i, CONVERT(c USING utf8mb4) FROM t WHERE c IS NOT NULL AND CHAR_LENGTH(c) = 1 ORDER BY i",
            first + count - 1
        ))
        .await
        .with_context(|| format!("ask MySQL for {charset}"))?;
    let question = u32::from('?');
    let meaning = |(code, text): (u32, Option<String>)| {
        let character = text?.chars().next()?;
        // What has no meaning comes as a question mark.
        (character != '?' || code == question).then(|| (code.to_be_bytes()[4 - bytes..].to_vec(), character))
    };
    Ok(rows.into_iter().filter_map(meaning).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// The lines of a table.
fn lines(found: &[(Vec<u8>, char)]) -> String {
    let mut out = String::new();
    let mut last: Option<&[u8]> = None;
    for (bytes, character) in found {
        let follows = last.is_some_and(|last| {
            last.len() == bytes.len()
                && last[..last.len() - 1] == bytes[..bytes.len() - 1]
                && last.last().zip(bytes.last()).is_some_and(|(a, b)| a.checked_add(1) == Some(*b))
        });
        if !follows {
            let _ = write!(out, "{}{} ", if out.is_empty() { "" } else { "\n" }, hex(bytes));
        }
        match character {
            c if c.is_control()
                || c.is_whitespace()
                || *c == '\\'
                || ('\u{e000}'..='\u{f8ff}').contains(c) =>
            {
                let _ = write!(out, "\\{:04x}", u32::from(*c));
            }
            c => out.push(*c),
        }
        last = Some(bytes);
    }
    out.push('\n');
    out
}

/// Four-byte sequences as runs: their number in gb18030's order, the first character, how many.
async fn four_bytes(conn: &mut Conn, charset: &str) -> Result<String> {
    let rows: Vec<(u32, String)> = conn
        .query(format!(
            "WITH RECURSIVE n(i) AS (SELECT 128 UNION ALL SELECT i + 1 FROM n WHERE i < 1114111),
             t AS (SELECT i, HEX(CONVERT(CONVERT(UNHEX(LPAD(HEX(i), 8, '0')) USING utf32) USING {charset})) AS c
                   FROM n WHERE i NOT BETWEEN 0xd800 AND 0xdfff)
             SELECT i, c FROM t WHERE LENGTH(c) = 8 ORDER BY c"
        ))
        .await
        .with_context(|| format!("ask MySQL for the four-byte characters of {charset}"))?;
    let mut runs: Vec<(u32, u32, u32)> = Vec::new();
    for (code, bytes) in rows {
        let bytes = u32::from_str_radix(&bytes, 16).context("MySQL's HEX")?.to_be_bytes();
        let at = [(0, 0x81, 12_600), (1, 0x30, 1260), (2, 0x81, 10), (3, 0x30, 1)]
            .iter()
            .map(|&(i, first, weight)| (u32::from(bytes[i]) - first) * weight)
            .sum::<u32>();
        match runs.last_mut() {
            Some((first, start, count)) if *first + *count == at && *start + *count == code => *count += 1,
            _ => runs.push((at, code, 1)),
        }
    }
    Ok(runs.iter().fold(String::new(), |mut out, (at, code, count)| {
        let _ = writeln!(out, "+{at:x} {code:x} {count}");
        out
    }))
}
