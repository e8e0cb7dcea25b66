//! Loads a SQL dump, statement by statement.
//!
//! The splitter knows the syntax of a dump: strings with doubled and escaped quotes, quoted names, the three
//! kinds of comments, and `/*! … */`, which MySQL executes. `DELIMITER` is a command of the `mysql` client
//! and not SQL. A dump with `DELIMITER`, and so with stored programs, is refused.

use std::path::Path;

use anyhow::{Context, Result, bail};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// One statement of a dump.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// The line it starts on, from 1.
    pub(crate) line: usize,
    /// The statement without its semicolon, with the comments inside it.
    pub(crate) sql: &'a [u8],
    /// Where it ends in the dump, for progress.
    pub(crate) end: usize,
}

/// An iterator over the statements of a dump.
pub(crate) struct Statements<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl<'a> Statements<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        // A byte order mark is not part of the SQL.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Self { text, at: 0, line: 1 }
    }

    fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    fn forward(&mut self, bytes: usize) {
        let to = (self.at + bytes).min(self.text.len());
        self.line += self.text[self.at..to].split(|b| *b == b'\n').count() - 1;
        self.at = to;
    }

    /// Skips white space, comments and empty statements.
    fn skip_to_statement(&mut self) -> Result<()> {
        loop {
            let rest = self.rest();
            match rest.first() {
                Some(b) if b.is_ascii_whitespace() || *b == b';' => self.forward(1),
                Some(_) => match comment(rest, self.line)? {
                    Some(length) => self.forward(length),
                    None => return Ok(()),
                },
                None => return Ok(()),
            }
        }
    }

    fn next_statement(&mut self) -> Result<Option<Statement<'a>>> {
        self.skip_to_statement()?;
        if self.rest().is_empty() {
            return Ok(None);
        }
        let (start, line) = (self.at, self.line);
        let word = self.rest().split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if word.eq_ignore_ascii_case(b"delimiter") {
            bail!(
                "line {line}: DELIMITER is a command of the mysql client, for stored programs, which are not \
                 migrated: make the dump without them (mysqldump --skip-triggers, without --routines and --events)"
            );
        }
        loop {
            let rest = self.rest();
            match rest.first() {
                None | Some(b';') => {
                    let sql = self.text[start..self.at].trim_ascii();
                    self.forward(1);
                    return Ok(Some(Statement { line, sql, end: self.at }));
                }
                Some(quote @ (b'\'' | b'"' | b'`')) => {
                    let length = quoted(rest, *quote).with_context(|| {
                        format!("line {}: a quote ({}) is not closed", self.line, char::from(*quote))
                    })?;
                    self.forward(length);
                }
                Some(_) => {
                    let length = match comment(rest, self.line)? {
                        None if rest.starts_with(b"/*") => executed(rest, self.line)?,
                        found => found.unwrap_or(1),
                    };
                    self.forward(length);
                }
            }
        }
    }
}

impl<'a> Iterator for Statements<'a> {
    type Item = Result<Statement<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_statement().transpose();
        if matches!(next, Some(Err(_))) {
            self.at = self.text.len();
        }
        next
    }
}

/// The length of the comment at the start of `text`; `None` if there is none. `/*!` and `/*+` are not
/// comments: MySQL reads them.
fn comment(text: &[u8], line: usize) -> Result<Option<usize>> {
    let to_line_end = || Some(text.iter().position(|b| *b == b'\n').map_or(text.len(), |n| n + 1));
    let dashes = text.starts_with(b"--") && text.get(2).is_none_or(|b| *b <= b' ');
    if dashes || text.starts_with(b"#") {
        return Ok(to_line_end());
    }
    if text.starts_with(b"/*") && !text.starts_with(b"/*!") && !text.starts_with(b"/*+") {
        return block_end(text, line).map(Some);
    }
    Ok(None)
}

/// The length of `/*! … */` at the start of `text`. Strings inside may contain anything.
fn executed(text: &[u8], line: usize) -> Result<usize> {
    let mut at = 3;
    while at < text.len() {
        match text[at] {
            quote @ (b'\'' | b'"' | b'`') => match quoted(&text[at..], quote) {
                Some(length) => at += length,
                None => break,
            },
            b'*' if text.get(at + 1) == Some(&b'/') => return Ok(at + 2),
            _ => at += 1,
        }
    }
    bail!("line {line}: a comment (/*!) is not closed")
}

fn block_end(text: &[u8], line: usize) -> Result<usize> {
    let end = text[2..].windows(2).position(|w| w == b"*/");
    end.map(|n| n + 4).with_context(|| format!("line {line}: a comment (/*) is not closed"))
}

/// The length of the quoted text at the start of `text`. A doubled quote closes the text and opens the next,
/// which has the same effect as an escape here. Backslashes escape in strings, not in names.
fn quoted(text: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' if quote != b'`' => at += 2,
            b if b == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// Whether a statement changes the server's replication settings. Dumps of servers with GTIDs contain such
/// statements. They are not part of the data.
fn is_replication_setting(sql: &[u8]) -> bool {
    let upper = sql.to_ascii_uppercase();
    let has = |word: &[u8]| upper.windows(word.len()).any(|w| w == word);
    upper.starts_with(b"SET") && (has(b"GTID_PURGED") || has(b"SQL_LOG_BIN"))
}

fn is_create_database(sql: &[u8]) -> bool {
    let mut words = sql.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    words.next().is_some_and(|w| w.eq_ignore_ascii_case(b"create"))
        && words
            .next()
            .is_some_and(|w| w.eq_ignore_ascii_case(b"database") || w.eq_ignore_ascii_case(b"schema"))
}

/// Runs all statements of the dump at `path` and returns their number. `progress` is called with the number
/// of bytes done.
pub(crate) async fn load(
    conn: &mut Conn,
    path: &Path,
    database: &str,
    mut progress: impl FnMut(u64, u64),
) -> Result<u64> {
    let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let name = tandem_compare::stores::schema::tick(database);
    let makes_its_own = Statements::new(&text).map_while(Result::ok).any(|s| is_create_database(s.sql));
    if !makes_its_own {
        conn.query_drop(format!("CREATE DATABASE {name} DEFAULT CHARACTER SET utf8mb4")).await?;
        conn.query_drop(format!("USE {name}")).await?;
    }
    let mut count = 0;
    for statement in Statements::new(&text) {
        let statement = statement.with_context(|| path.display().to_string())?;
        if !is_replication_setting(statement.sql) {
            conn.query_drop(statement.sql)
                .await
                .with_context(|| format!("{}, the statement on line {}", path.display(), statement.line))?;
            count += 1;
        }
        progress(statement.end as u64, text.len() as u64);
    }
    // The dump may have changed these settings for its session.
    conn.query_drop("SET NAMES utf8mb4, foreign_key_checks = 1, unique_checks = 1").await?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        Statements::new(text.as_bytes())
            .map(|s| String::from_utf8(s.unwrap().sql.to_vec()).unwrap())
            .collect()
    }

    fn error(text: &str) -> String {
        format!("{:#}", Statements::new(text.as_bytes()).find_map(Result::err).unwrap())
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes() {
        assert_eq!(split("a; b ;;\n c"), ["a", "b", "c"]);
        assert_eq!(split("i ';' ; j \";\" ; k `;`"), ["i ';'", "j \";\"", "k `;`"]);
        assert_eq!(split(""), Vec::<String>::new());
        assert_eq!(split("\u{feff}USE x;"), ["USE x"]);
    }

    #[test]
    fn quotes_within_quotes() {
        for text in
            [r"x 'it''s; it'", r"x 'it\'s; it'", r#"x 'a";"' "#, r"x 'back\\'", "x `a``;b`", r"x N'Ünï;'"]
        {
            assert_eq!(split(&format!("{text};y")), [text.trim(), "y"], "{text}");
        }
        // A backslash has no special meaning in a name.
        assert_eq!(split(r"x `a\`; y"), [r"x `a\`", "y"]);
    }

    #[test]
    fn comments() {
        assert_eq!(split("-- a; b\n# c; d\n/* e; f */ g; --\nh"), ["g", "h"]);
        assert_eq!(split("a /* ; */ b -- ;\n c; d"), ["a /* ; */ b -- ;\n c", "d"]);
        assert_eq!(split("a--1; b"), ["a--1", "b"]); // MySQL requires a blank after the dashes
        assert_eq!(split("/*!40101 SET NAMES 'x;y' */; /**/b"), ["/*!40101 SET NAMES 'x;y' */", "b"]);
        assert_eq!(split("SELECT /*+ HINT(';') */ 1; 2"), ["SELECT /*+ HINT(';') */ 1", "2"]);
        assert_eq!(
            split("a '-- not'; b '/* nor */'; c '# nor'"),
            ["a '-- not'", "b '/* nor */'", "c '# nor'"]
        );
    }

    #[test]
    fn lines_are_counted() {
        let text = "a;\n-- x\n\nb '\n';\nc";
        let lines: Vec<usize> = Statements::new(text.as_bytes()).map(|s| s.unwrap().line).collect();
        assert_eq!(lines, [1, 4, 6]);
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        assert!(error("a;\nDELIMITER $$\nx $$").starts_with("line 2: DELIMITER"));
        assert!(error("a;\nb 'c").starts_with("line 2: a quote (') is not closed"));
        assert!(error("a;\n\n/* b").starts_with("line 3: a comment (/*) is not closed"));
        assert!(error("/*! b ").starts_with("line 1: a comment (/*!) is not closed"));
        assert_eq!(split("delimiters"), ["delimiters"]);
    }

    #[test]
    fn dumps_with_a_database_of_their_own() {
        assert!(is_create_database(b"CREATE  database `x`"));
        assert!(!is_create_database(b"CREATE TABLE `database`"));
    }

    #[test]
    fn settings_of_replication_are_left_out() {
        assert!(is_replication_setting(b"SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'x'"));
        assert!(is_replication_setting(b"set @@session.sql_log_bin= 0"));
        assert!(!is_replication_setting(b"INSERT INTO t VALUES ('SET SQL_LOG_BIN')"));
    }
}
