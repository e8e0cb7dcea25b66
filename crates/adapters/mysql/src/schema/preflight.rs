//! Checks of the server's settings that run before any role starts.

use std::collections::HashMap;

use crate::error::MysqlError;
use crate::mysql::Mysql;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Tandem cannot work until this is fixed.
    Error,
    /// Tandem works, but a server crash could lose changes.
    Warning,
}

/// A setting that does not have the required value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The system variable or privilege.
    pub setting: String,
    /// What is wrong with it.
    pub problem: String,
    /// The statement or the option that fixes it.
    pub remedy: String,
    /// How bad it is.
    pub severity: Severity,
}

/// A system variable and its required value.
struct Rule {
    name: &'static str,
    wanted: &'static str,
    why: &'static str,
    remedy: &'static str,
    severity: Severity,
    /// How a server behaves that does not have the variable.
    unknown: Unknown,
}

#[derive(PartialEq, Eq)]
enum Unknown {
    /// It behaves as if the variable had the required value.
    Fine,
    /// The server is too old.
    TooOld,
}

const RULES: [Rule; 9] = [
    Rule {
        name: "log_bin",
        wanted: "ON",
        why: "there is no binlog to read changes from",
        remedy: "start mysqld with log_bin = binlog and a server_id in my.cnf",
        severity: Severity::Error,
        unknown: Unknown::TooOld,
    },
    Rule {
        name: "enforce_gtid_consistency",
        wanted: "ON",
        why: "statements that have no GTID of their own would be allowed",
        remedy: "SET PERSIST enforce_gtid_consistency = ON",
        severity: Severity::Error,
        unknown: Unknown::TooOld,
    },
    Rule {
        name: "gtid_mode",
        wanted: "ON",
        why: "the stream is resumed by GTIDs",
        remedy: "SET PERSIST gtid_mode = OFF_PERMISSIVE; SET PERSIST gtid_mode = ON_PERMISSIVE; SET PERSIST \
                 gtid_mode = ON",
        severity: Severity::Error,
        unknown: Unknown::TooOld,
    },
    Rule {
        name: "binlog_format",
        wanted: "ROW",
        why: "rows changed by statements are not in the binlog",
        remedy: "SET PERSIST binlog_format = ROW",
        severity: Severity::Error,
        unknown: Unknown::Fine,
    },
    Rule {
        name: "binlog_row_image",
        wanted: "FULL",
        why: "row images would lack columns",
        remedy: "SET PERSIST binlog_row_image = FULL",
        severity: Severity::Error,
        unknown: Unknown::TooOld,
    },
    Rule {
        name: "binlog_row_metadata",
        wanted: "FULL",
        why: "the binlog would not say what its rows' columns are",
        remedy: "SET PERSIST binlog_row_metadata = FULL",
        severity: Severity::Error,
        unknown: Unknown::TooOld,
    },
    Rule {
        name: "binlog_row_value_options",
        wanted: "",
        why: "parts of JSON documents are not carried",
        remedy: "SET PERSIST binlog_row_value_options = ''",
        severity: Severity::Error,
        unknown: Unknown::Fine,
    },
    Rule {
        name: "sync_binlog",
        wanted: "1",
        why: "after a crash the server may give a GTID that has been published to another transaction",
        remedy: "SET PERSIST sync_binlog = 1",
        severity: Severity::Warning,
        unknown: Unknown::Fine,
    },
    Rule {
        name: "innodb_flush_log_at_trx_commit",
        wanted: "1",
        why: "a crash may lose transactions that have been published",
        remedy: "SET PERSIST innodb_flush_log_at_trx_commit = 1",
        severity: Severity::Warning,
        unknown: Unknown::Fine,
    },
];

impl Mysql {
    /// Returns every setting of the server that prevents a migration or endangers it.
    ///
    /// # Errors
    /// The server cannot be reached or the query fails.
    pub async fn preflight(&self) -> Result<Vec<Finding>, MysqlError> {
        let doing = "checking the server's settings";
        let names = RULES.map(|rule| format!("'{}'", rule.name)).join(", ");
        let sql = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})");
        let variables: Vec<(String, String)> = self.rows(doing, &sql, ()).await?;
        Ok(findings(&variables.into_iter().collect()))
    }
}

fn findings(variables: &HashMap<String, String>) -> Vec<Finding> {
    let mut out = Vec::new();
    for rule in &RULES {
        let problem = match variables.get(rule.name) {
            Some(value) if value.eq_ignore_ascii_case(rule.wanted) => continue,
            Some(value) => format!("it is `{value}` and must be `{}`: {}", rule.wanted, rule.why),
            None if rule.unknown == Unknown::Fine => continue,
            None => "this server does not know it: MySQL 8.0 or newer is needed".to_owned(),
        };
        let (setting, remedy) = (rule.name.to_owned(), rule.remedy.to_owned());
        out.push(Finding { setting, problem, remedy, severity: rule.severity });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(changes: &[(&str, &str)]) -> HashMap<String, String> {
        let mut all: HashMap<_, _> = RULES.iter().map(|r| (r.name.to_owned(), r.wanted.to_owned())).collect();
        for (name, value) in changes {
            all.insert((*name).to_owned(), (*value).to_owned());
        }
        all
    }

    #[test]
    fn required_values_give_no_finding() {
        assert_eq!(findings(&variables(&[])), []);
    }

    #[test]
    fn each_finding_has_its_remedy() {
        for rule in &RULES {
            let found = findings(&variables(&[(rule.name, "something")]));
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].setting.as_str(), found[0].severity), (rule.name, rule.severity));
            assert!(found[0].remedy.contains(rule.name));
        }
        let found = findings(&HashMap::new());
        assert!(found.iter().any(|f| f.setting == "binlog_row_metadata"));
        assert!(!found.iter().any(|f| f.setting == "binlog_format"));
    }
}
