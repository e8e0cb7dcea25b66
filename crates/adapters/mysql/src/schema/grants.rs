//! The account's privileges compared with the required ones.

use tandem_model::TableName;

use crate::error::MysqlError;
use crate::mysql::Mysql;
use crate::read::query::quoted_table;
use crate::schema::preflight::{Finding, Severity};

/// A required privilege.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// MySQL's name for it, such as `SELECT` or `REPLICATION SLAVE`.
    pub privilege: &'static str,
    /// The table; `None` means the whole server.
    pub on: Option<TableName>,
    /// What is impossible without it.
    pub why: &'static str,
}

impl Mysql {
    /// Returns the required privileges that the account lacks, each with the statement that grants it.
    ///
    /// A grant on some columns does not count as a grant on the table, because the other columns would be
    /// left out silently.
    ///
    /// # Errors
    /// The server cannot be reached or does not show the grants.
    pub async fn missing_privileges(&self, needs: &[Need]) -> Result<Vec<Finding>, MysqlError> {
        let doing = "asking what the account may do";
        let account: Vec<String> = self.rows(doing, "SELECT CURRENT_USER()", ()).await?;
        let grants: Vec<String> = self.rows(doing, "SHOW GRANTS", ()).await?;
        Ok(missing(needs, account.first().map_or("", String::as_str), &grants))
    }
}

fn missing(needs: &[Need], account: &str, grants: &[String]) -> Vec<Finding> {
    let grants: Vec<Grant> = grants.iter().filter_map(|line| Grant::parse(line)).collect();
    let (user, host) = account.rsplit_once('@').unwrap_or((account, "%"));
    let finding = |need: &Need| {
        let on = need.on.as_ref().map_or_else(|| "*.*".to_owned(), quoted_table);
        Finding {
            setting: format!("{} on {on}", need.privilege),
            problem: format!("the account lacks this privilege: {}", need.why),
            remedy: format!("GRANT {} ON {on} TO '{user}'@'{host}'", need.privilege),
            severity: Severity::Error,
        }
    };
    needs.iter().filter(|need| !granted(need, &grants)).map(finding).collect()
}

/// Whether the grants meet the need. A grant on the whole server does not count where a partial revoke
/// (`partial_revokes`) takes it back for the database.
fn granted(need: &Need, grants: &[Grant]) -> bool {
    let covers = |grant: &&Grant| grant.gives(need.privilege) && grant.covers(need.on.as_ref());
    let taken_back = grants.iter().filter(|grant| grant.revokes).any(|grant| covers(&grant));
    let mut given = grants.iter().filter(|grant| !grant.revokes).filter(covers);
    given.any(|grant| !taken_back || grant.database.is_some())
}

/// A line of SHOW GRANTS.
struct Grant {
    revokes: bool,
    privileges: Vec<String>,
    /// A LIKE pattern; `None` means every database.
    database: Option<String>,
    /// `None` means every table.
    table: Option<String>,
}

impl Grant {
    /// Parses a line. Returns `None` for a role or a proxy: the privileges of active roles have their own
    /// lines.
    fn parse(line: &str) -> Option<Self> {
        let (revokes, rest) = match line.strip_prefix("GRANT ") {
            Some(rest) => (false, rest),
            None => (true, line.strip_prefix("REVOKE ")?),
        };
        let (privileges, rest) = rest.split_once(" ON ")?;
        let (database, rest) = name(rest)?;
        let (table, _) = name(rest.strip_prefix('.')?)?;
        // The lists in brackets are columns.
        let mut outside = String::new();
        let mut depth = 0;
        for c in privileges.chars() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            outside.push(if depth > 0 && c == ',' { ' ' } else { c });
        }
        let privileges = outside.split(',').map(|p| p.trim().to_owned()).collect();
        Some(Self { revokes, privileges, database, table })
    }

    fn gives(&self, privilege: &str) -> bool {
        self.privileges.iter().any(|p| p == privilege || p == "ALL PRIVILEGES")
    }

    fn covers(&self, on: Option<&TableName>) -> bool {
        let Some(on) = on else { return self.database.is_none() };
        self.database.as_ref().is_none_or(|pattern| like(pattern.as_bytes(), on.database.as_bytes()))
            && self.table.as_ref().is_none_or(|table| *table == on.table)
    }
}

/// Parses a quoted name, or `*` for every name. Returns it and the rest of the text.
fn name(text: &str) -> Option<(Option<String>, &str)> {
    if let Some(rest) = text.strip_prefix('*') {
        return Some((None, rest));
    }
    let quoted = text.strip_prefix('`')?;
    let mut name = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '`' {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == '`').is_some() {
            name.push('`');
        } else {
            return Some((Some(name), &quoted[at + 1..]));
        }
    }
    None
}

/// SQL's LIKE, which MySQL applies to the database part of a grant.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        ([b'%', rest @ ..], _) => (0..=text.len()).any(|skip| like(rest, &text[skip..])),
        ([b'_', rest @ ..], [_, tail @ ..]) => like(rest, tail),
        ([b'\\', c, rest @ ..] | [c, rest @ ..], [first, tail @ ..]) => c == first && like(rest, tail),
        (_, []) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks(privilege: &'static str, on: Option<(&str, &str)>, grants: &[&str]) -> Option<String> {
        let need = Need { privilege, on: on.map(|(d, t)| TableName::new(d, t)), why: "nothing works" };
        let grants: Vec<String> = grants.iter().map(|g| (*g).to_owned()).collect();
        missing(&[need], "u@10.0.%", &grants).pop().map(|finding| finding.remedy)
    }

    #[test]
    fn the_remedy_is_the_grant_statement() {
        let none = ["GRANT USAGE ON *.* TO `u`@`10.0.%`", "GRANT `role`@`%` TO `u`@`10.0.%`"];
        assert_eq!(
            lacks("REPLICATION SLAVE", None, &none).unwrap(),
            "GRANT REPLICATION SLAVE ON *.* TO 'u'@'10.0.%'"
        );
        assert_eq!(
            lacks("INSERT", Some(("d", "a`b")), &none).unwrap(),
            "GRANT INSERT ON `d`.`a``b` TO 'u'@'10.0.%'"
        );
    }

    #[test]
    fn a_grant_covers_its_databases_and_tables() {
        let table = Some(("my_db", "t"));
        for (privilege, on, grant, enough) in [
            ("SELECT", table, "GRANT INSERT, SELECT ON *.* TO u", true),
            ("SELECT", table, "GRANT ALL PRIVILEGES ON `my\\_db`.* TO u WITH GRANT OPTION", true),
            ("SELECT", table, "GRANT SELECT ON `my_d%`.* TO u", true),
            ("SELECT", table, "GRANT SELECT ON `myxdb`.* TO u", false),
            ("SELECT", Some(("myxdb", "t")), "GRANT SELECT ON `my\\_db`.* TO u", false),
            ("SELECT", table, "GRANT SELECT ON `my_db`.`t` TO u", true),
            ("SELECT", table, "GRANT SELECT ON `my_db`.`u` TO u", false),
            ("SELECT", table, "GRANT SELECT (`a`, `b`), INSERT ON `my_db`.`t` TO u", false),
            ("INSERT", table, "GRANT SELECT (`a`, `b`), INSERT ON `my_db`.`t` TO u", true),
            ("REPLICATION SLAVE", None, "GRANT ALL PRIVILEGES ON `my_db`.* TO u", false),
            ("REPLICATION SLAVE", None, "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO u", true),
        ] {
            assert_eq!(lacks(privilege, on, &[grant]).is_none(), enough, "{privilege} {on:?} {grant}");
        }
    }

    #[test]
    fn a_partial_revoke_takes_a_grant_back() {
        let all = "GRANT SELECT ON *.* TO u";
        let revoked = "REVOKE SELECT ON `d`.* FROM u";
        assert!(lacks("SELECT", Some(("d", "t")), &[all, revoked]).is_some());
        assert!(lacks("SELECT", Some(("e", "t")), &[all, revoked]).is_none());
        assert!(lacks("SELECT", Some(("d", "t")), &[all, revoked, "GRANT SELECT ON `d`.`t` TO u"]).is_none());
    }
}
