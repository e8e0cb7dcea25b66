//! Classifies statements by their first words.
//!
//! This is not an SQL parser. The result drives transaction boundaries and the log of schema changes;
//! decoding rows does not depend on it.

use tandem_model::TableName;

use crate::StatementKind;

/// The meaning of a QUERY event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Query {
    Begin,
    Commit,
    Rollback,
    /// SAVEPOINT, RELEASE SAVEPOINT or ROLLBACK TO. MySQL has already removed what was undone from the
    /// binlog.
    Savepoint,
    /// The xid as MySQL writes it. The same holds for the next two variants with an xid.
    XaStart(String),
    XaEnd,
    XaCommit(String),
    XaRollback(String),
    /// CREATE TABLE … SELECT. MySQL logs `CREATE TABLE … START TRANSACTION`, rows and an XID.
    CreateAndRows,
    /// A statement on temporary tables only.
    Temporary,
    Other {
        kind: StatementKind,
        tables: Vec<TableName>,
        /// The dropped database of a DROP DATABASE.
        dropped: Option<String>,
    },
}

/// Classifies a statement that ran with this default database.
pub(crate) fn classify(sql: &str, database: &str) -> Query {
    match sql {
        "BEGIN" => return Query::Begin,
        "COMMIT" => return Query::Commit,
        _ => {}
    }
    let mut tokens = Tokens { rest: sql };
    let other = |kind, tables| Query::Other { kind, tables, dropped: None };
    let first = tokens.word();
    match first.as_str() {
        "BEGIN" => Query::Begin,
        "START" if tokens.word() == "TRANSACTION" => Query::Begin,
        "COMMIT" => Query::Commit,
        "ROLLBACK" => match tokens.word().as_str() {
            "TO" => Query::Savepoint,
            "WORK" if tokens.word() == "TO" => Query::Savepoint,
            _ => Query::Rollback,
        },
        "SAVEPOINT" | "RELEASE" => Query::Savepoint,
        "XA" => match tokens.word().as_str() {
            "START" | "BEGIN" => Query::XaStart(tokens.rest.trim().to_owned()),
            "END" => Query::XaEnd,
            "COMMIT" => Query::XaCommit(tokens.rest.trim().to_owned()),
            "ROLLBACK" => Query::XaRollback(tokens.rest.trim().to_owned()),
            _ => other(StatementKind::Other, Vec::new()),
        },
        "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "LOAD" | "WITH" | "CALL" | "DO" | "SELECT" => {
            other(StatementKind::DataChange, Vec::new())
        }
        "TRUNCATE" => {
            tokens.skip(&["TABLE"]);
            other(StatementKind::Truncate, tokens.table(database).into_iter().collect())
        }
        "RENAME" => match tokens.word().as_str() {
            "TABLE" | "TABLES" => {
                let mut tables = Vec::new();
                while let Some(table) = tokens.table(database) {
                    tables.push(table);
                    if !tokens.skip(&["TO"]) && !tokens.sign(',') {
                        break;
                    }
                }
                other(StatementKind::Rename, tables)
            }
            _ => other(StatementKind::Other, Vec::new()),
        },
        "ALTER" => match tokens.word().as_str() {
            "TABLE" => alter(&mut tokens, database),
            _ => other(StatementKind::Other, Vec::new()),
        },
        "DROP" => match tokens.word().as_str() {
            "TEMPORARY" => Query::Temporary,
            "TABLE" | "TABLES" => {
                tokens.skip(&["IF", "EXISTS"]);
                let mut tables = Vec::new();
                while let Some(table) = tokens.table(database) {
                    tables.push(table);
                    if !tokens.sign(',') {
                        break;
                    }
                }
                other(StatementKind::Drop, tables)
            }
            "DATABASE" | "SCHEMA" => {
                tokens.skip(&["IF", "EXISTS"]);
                let dropped = tokens.name();
                Query::Other { kind: StatementKind::DropDatabase, tables: Vec::new(), dropped }
            }
            _ => other(StatementKind::Other, Vec::new()),
        },
        "CREATE" => match tokens.word().as_str() {
            "TEMPORARY" => Query::Temporary,
            "TABLE" if sql.trim_end().to_ascii_uppercase().ends_with(" START TRANSACTION") => {
                Query::CreateAndRows
            }
            "TABLE" => {
                tokens.skip(&["IF", "NOT", "EXISTS"]);
                other(StatementKind::Create, tokens.table(database).into_iter().collect())
            }
            _ => other(StatementKind::Other, Vec::new()),
        },
        _ => other(StatementKind::Other, Vec::new()),
    }
}

/// Classifies `ALTER TABLE x …`. A clause `RENAME [TO | AS] y` makes it a rename.
fn alter(tokens: &mut Tokens<'_>, database: &str) -> Query {
    let mut tables: Vec<_> = tokens.table(database).into_iter().collect();
    let mut kind = StatementKind::Alter;
    let (mut depth, mut clause_begins) = (0, true);
    loop {
        let token = tokens.next();
        match &token {
            Token::End => break,
            Token::Sign('(') => depth += 1,
            Token::Sign(')') => depth -= 1,
            Token::Word(word) if depth == 0 && clause_begins && word.eq_ignore_ascii_case("RENAME") => {
                if tokens.skip(&["COLUMN"]) {
                    kind = rewrites(kind);
                } else if !["INDEX", "KEY"].iter().any(|w| tokens.skip(&[w])) {
                    if !tokens.skip(&["TO"]) {
                        tokens.skip(&["AS"]);
                    }
                    tables.extend(tokens.table(database));
                    kind = StatementKind::Rename;
                }
            }
            // Rows disappear or appear without row changes, so the statement counts as a TRUNCATE.
            Token::Word(word) if depth == 0 && clause_begins && moves_rows(word, tokens) => {
                kind = StatementKind::Truncate;
            }
            Token::Word(word) if depth == 0 && clause_begins && changes_columns(word, tokens) => {
                kind = rewrites(kind);
            }
            // EXCHANGE PARTITION p WITH TABLE x changes the rows of x as well.
            Token::Word(word)
                if depth == 0
                    && kind == StatementKind::Truncate
                    && word.eq_ignore_ascii_case("WITH")
                    && tokens.skip(&["TABLE"]) =>
            {
                tables.extend(tokens.table(database));
            }
            _ => {}
        }
        clause_begins = depth == 0 && token == Token::Sign(',');
    }
    Query::Other { kind, tables, dropped: None }
}

/// The kind of a statement with a clause that may change stored values. A rename or a lost row says more.
fn rewrites(kind: StatementKind) -> StatementKind {
    if kind == StatementKind::Alter { StatementKind::Rewrite } else { kind }
}

/// Whether a clause of ALTER TABLE that begins with `word` changes or drops columns.
fn changes_columns(word: &str, tokens: &mut Tokens<'_>) -> bool {
    match word.to_ascii_uppercase().as_str() {
        "MODIFY" | "CHANGE" | "CONVERT" => true,
        "DROP" => {
            let others = ["INDEX", "KEY", "PRIMARY", "FOREIGN", "CONSTRAINT", "CHECK"];
            !others.iter().any(|other| tokens.skip(&[other]))
        }
        _ => false,
    }
}

/// Whether a clause of ALTER TABLE that begins with `word` removes or adds rows without row changes.
fn moves_rows(word: &str, tokens: &mut Tokens<'_>) -> bool {
    let next = match word.to_ascii_uppercase().as_str() {
        "DROP" | "TRUNCATE" | "EXCHANGE" => "PARTITION",
        "DISCARD" | "IMPORT" => {
            return tokens.skip(&["TABLESPACE"]) || tokens.skip(&["PARTITION"]);
        }
        _ => return false,
    };
    tokens.skip(&[next])
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Quoted(String),
    Literal,
    Sign(char),
    End,
}

/// The tokens of a statement. Comments are skipped, except for `/*! … */`: MySQL executes their content, so
/// it is part of the statement.
#[derive(Clone)]
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn skip_blanks(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            let line = self.rest.starts_with('#')
                || self
                    .rest
                    .strip_prefix("--")
                    .is_some_and(|r| r.is_empty() || r.starts_with([' ', '\t', '\n']));
            if line {
                self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(executed) = self.rest.strip_prefix("/*!") {
                self.rest = executed.trim_start_matches(|c: char| c.is_ascii_digit());
            } else if let Some(after) = self.rest.strip_prefix("*/") {
                self.rest = after;
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
            } else {
                return;
            }
        }
    }

    fn next(&mut self) -> Token<'a> {
        self.skip_blanks();
        let Some(first) = self.rest.chars().next() else {
            return Token::End;
        };
        if let '`' | '"' | '\'' = first {
            let text = self.quoted(first, first != '`');
            return if first == '\'' { Token::Literal } else { Token::Quoted(text) };
        }
        let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
        let end = self.rest.find(|c| !word(c)).unwrap_or(self.rest.len());
        if end == 0 {
            self.rest = &self.rest[first.len_utf8()..];
            return Token::Sign(first);
        }
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        Token::Word(text)
    }

    /// Reads the text between the quotes that come next. A backslash may take away the meaning of the character after it.
    fn quoted(&mut self, quote: char, escapes: bool) -> String {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1).peekable();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                if chars.next_if(|(_, c)| *c == quote).is_none() {
                    end = at + c.len_utf8();
                    break;
                }
            } else if c == '\\' && escapes {
                chars.next();
                continue;
            }
            text.push(c);
        }
        self.rest = &self.rest[end..];
        text
    }

    /// The next word in upper case. Empty if another token follows.
    fn word(&mut self) -> String {
        match self.next() {
            Token::Word(word) => word.to_ascii_uppercase(),
            _ => String::new(),
        }
    }

    /// Skips these words if they come next. Returns whether they do.
    fn skip(&mut self, words: &[&str]) -> bool {
        let mut ahead = self.clone();
        if words.iter().all(|w| matches!(ahead.next(), Token::Word(found) if found.eq_ignore_ascii_case(w))) {
            *self = ahead;
            return true;
        }
        false
    }

    /// Skips this sign if it comes next. Returns whether it does.
    fn sign(&mut self, sign: char) -> bool {
        let mut ahead = self.clone();
        if ahead.next() == Token::Sign(sign) {
            *self = ahead;
            return true;
        }
        false
    }

    /// Reads a name, quoted or not. One in double quotes is a name only under the SQL mode ANSI_QUOTES. Backslashes have
    /// no special meaning in it.
    fn name(&mut self) -> Option<String> {
        self.skip_blanks();
        if self.rest.starts_with('"') {
            return Some(self.quoted('"', false));
        }
        match self.next() {
            Token::Word(word) => Some(word.to_owned()),
            Token::Quoted(name) => Some(name),
            _ => None,
        }
    }

    /// Reads a table's name, with or without its database.
    fn table(&mut self, database: &str) -> Option<TableName> {
        let first = self.name()?;
        if self.sign('.') {
            return Some(TableName::new(first, self.name()?));
        }
        Some(TableName::new(database, first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_classified() {
        use StatementKind as K;
        for (sql, kind, tables) in [
            ("TRUNCATE x", K::Truncate, "d.x"),
            ("truncate table `a`.`x y` /* xid=1 */", K::Truncate, "a.x y"),
            ("TRUNCATE `table`", K::Truncate, "d.table"),
            ("TRUNCATE Shop . Orders", K::Truncate, "Shop.Orders"),
            ("TRUNCATE `a.b`.`c``d`", K::Truncate, "`a.b`.`c``d`"),
            ("RENAME TABLE \"a\"\"\\\" TO \"x.y\".\"z\"", K::Rename, "d.a\"\\ `x.y`.z"),
            ("DROP TABLE `a`.`x` /* generated by server */", K::Drop, "a.x"),
            ("drop table if exists x, `b`.\"y\" , z cascade", K::Drop, "d.x b.y d.z"),
            ("DROP INDEX i ON x", K::Other, ""),
            ("DROP VIEW v", K::Other, ""),
            ("RENAME TABLE a TO b, c.d TO `e`.`f`", K::Rename, "d.a d.b c.d e.f"),
            ("RENAME USER a TO b", K::Other, ""),
            ("ALTER TABLE x ADD COLUMN `rename` int, ADD INDEX (c)", K::Alter, "d.x"),
            ("ALTER TABLE x ADD COLUMN `rename` int, DROP c", K::Rewrite, "d.x"),
            ("alter table x modify c int, RENAME y", K::Rename, "d.x d.y"),
            ("ALTER TABLE x MODIFY COLUMN c DECIMAL(9, 1), DROP PARTITION p", K::Truncate, "d.x"),
            ("ALTER TABLE x ALGORITHM=COPY, CHANGE a b INT", K::Rewrite, "d.x"),
            ("ALTER TABLE x CONVERT TO CHARACTER SET latin1", K::Rewrite, "d.x"),
            (
                "ALTER TABLE x DROP INDEX i, DROP PRIMARY KEY, DROP FOREIGN KEY f, DROP CHECK c",
                K::Alter,
                "d.x",
            ),
            ("ALTER TABLE x ALTER COLUMN c SET DEFAULT 'MODIFY'", K::Alter, "d.x"),
            ("ALTER TABLE a.x ADD k INT DEFAULT (f(1, rename)), RENAME TO y", K::Rename, "a.x d.y"),
            ("alter table x rename y", K::Rename, "d.x d.y"),
            ("alter table x rename as `q``q`.y", K::Rename, "d.x `q``q`.y"),
            ("ALTER TABLE x RENAME INDEX i TO j, RENAME KEY k TO l", K::Alter, "d.x"),
            ("ALTER TABLE x RENAME COLUMN a TO b, RENAME INDEX i TO j", K::Rewrite, "d.x"),
            ("ALTER TABLE x COMMENT 'it''s, RENAME TO y'", K::Alter, "d.x"),
            ("ALTER TABLE x DROP PARTITION p0, p1", K::Truncate, "d.x"),
            ("ALTER TABLE x TRUNCATE PARTITION ALL", K::Truncate, "d.x"),
            (
                "alter table a.x exchange partition p with table b.`y` WITHOUT VALIDATION",
                K::Truncate,
                "a.x b.y",
            ),
            ("ALTER TABLE x DISCARD TABLESPACE", K::Truncate, "d.x"),
            ("ALTER TABLE x IMPORT PARTITION p TABLESPACE", K::Truncate, "d.x"),
            (
                "ALTER TABLE x DROP `partition`, ADD PARTITION (PARTITION p VALUES LESS THAN (9))",
                K::Rewrite,
                "d.x",
            ),
            ("ALTER TABLE x DROP COLUMN c, COMMENT 'DROP PARTITION p'", K::Rewrite, "d.x"),
            ("ALTER USER u IDENTIFIED BY 'x'", K::Other, ""),
            ("CREATE TABLE IF NOT EXISTS x (i int)", K::Create, "d.x"),
            ("CREATE DATABASE x", K::Other, ""),
            ("-- hello\n# there\n/* you */ INSERT INTO x VALUES (1)", K::DataChange, ""),
            ("/*+ hint */ with c as (select 1) delete from x", K::DataChange, ""),
            ("/*!50003 DROP*/ TABLE x", K::Drop, "d.x"),
            ("GRANT ALL ON *.* TO u", K::Other, ""),
            ("TRUNCATE", K::Truncate, ""),
            ("DROP TABLE `unclosed", K::Drop, "d.unclosed"),
            ("", K::Other, ""),
        ] {
            let Query::Other { kind: found, tables: named, dropped: None } = classify(sql, "d") else {
                panic!("{sql}");
            };
            assert_eq!(found, kind, "{sql}");
            assert_eq!(named.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), tables, "{sql}");
        }
    }

    #[test]
    fn transaction_statements_are_classified() {
        for (sql, query) in [
            ("BEGIN", Query::Begin),
            ("begin /* x */", Query::Begin),
            ("START TRANSACTION", Query::Begin),
            ("COMMIT", Query::Commit),
            ("ROLLBACK", Query::Rollback),
            ("ROLLBACK TO `s`", Query::Savepoint),
            ("rollback work to savepoint s", Query::Savepoint),
            ("SAVEPOINT `s`", Query::Savepoint),
            ("RELEASE SAVEPOINT s", Query::Savepoint),
            ("XA START X'61',X'',1", Query::XaStart("X'61',X'',1".into())),
            ("XA END X'61',X'',1", Query::XaEnd),
            ("XA COMMIT X'61',X'',1", Query::XaCommit("X'61',X'',1".into())),
            ("XA ROLLBACK X'61',X'',1", Query::XaRollback("X'61',X'',1".into())),
            ("CREATE TABLE `a`.`c` (\n  `id` int\n) START TRANSACTION", Query::CreateAndRows),
            ("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `t`", Query::Temporary),
            ("CREATE TEMPORARY TABLE t (i int)", Query::Temporary),
        ] {
            assert_eq!(classify(sql, "d"), query, "{sql}");
        }
        assert_eq!(
            classify("DROP DATABASE IF EXISTS `a b`", ""),
            Query::Other {
                kind: StatementKind::DropDatabase,
                tables: Vec::new(),
                dropped: Some("a b".into())
            }
        );
    }
}
