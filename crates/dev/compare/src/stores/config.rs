//! The comparison's own reader of `tandem.toml`.
//!
//! It deliberately does not use Tandem's reader: the comparison must not share a misunderstanding with the
//! code that it checks. It ignores keys that it does not need. Tandem itself refuses unknown ones.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The parts of `tandem.toml` that the comparison needs.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// `[mysql]`.
    pub mysql: Mysql,
    /// `[cassandra]`.
    pub cassandra: Cassandra,
    /// Every `[[table]]`.
    #[serde(rename = "table")]
    pub tables: Vec<Source>,
}

/// `[mysql]`.
#[derive(Debug, Clone, Deserialize)]
pub struct Mysql {
    /// `mysql://user:password@host:port`.
    pub url: String,
}

/// `[cassandra]`.
#[derive(Debug, Clone, Deserialize)]
pub struct Cassandra {
    /// Contact points.
    pub nodes: Vec<String>,
    /// The keyspace of every target table.
    pub keyspace: String,
}

/// A MySQL table and its targets.
#[derive(Debug, Clone, Deserialize)]
pub struct Source {
    /// `database.table`.
    pub source: String,
    /// Every `[[table.target]]`.
    #[serde(rename = "target", default)]
    pub targets: Vec<Target>,
}

/// A Cassandra table.
#[derive(Debug, Clone, Deserialize)]
pub struct Target {
    /// Its name in the keyspace.
    pub table: String,
    /// Column names.
    #[serde(default)]
    pub partition_key: Vec<String>,
    /// Column names, each optionally followed by `asc` or `desc`.
    #[serde(default)]
    pub clustering_key: Vec<String>,
    /// MySQL's name → Cassandra's name.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
    /// MySQL's names of excluded columns.
    #[serde(default)]
    pub exclude_from_target: Vec<String>,
    #[serde(default, rename = "where")]
    filter: Option<String>,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// If the file cannot be read or parsed.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("understand {}", path.display()))
    }

    /// Parses the text of such a file.
    ///
    /// # Errors
    /// If it is no valid TOML, a target is missing, or a target has a filter.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)?;
        for source in &config.tables {
            source.parts()?;
            if source.targets.is_empty() {
                bail!("{}: the comparison needs explicit targets ([[table.target]])", source.source);
            }
            for target in &source.targets {
                if target.filter.is_some() {
                    bail!("{}: the comparison does not support `where`", target.table);
                }
            }
        }
        Ok(config)
    }
}

impl Source {
    /// Database and table.
    ///
    /// # Errors
    /// If the name is not of the form `database.table`. A part with a dot or a backtick is in backticks.
    pub fn parts(&self) -> Result<(String, String)> {
        let parts = part(&self.source).and_then(|(database, rest)| {
            let (table, rest) = part(rest.strip_prefix('.')?)?;
            rest.is_empty().then_some((database, table))
        });
        parts.with_context(|| format!("source {:?} is not of the form database.table", self.source))
    }
}

/// A name at the beginning of the text, in backticks or not, and the rest of the text.
fn part(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('`') else {
        let (name, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
        return (!name.is_empty()).then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    loop {
        let (before, after) = rest.split_once('`')?;
        name.push_str(before);
        match after.strip_prefix('`') {
            Some(after) => {
                name.push('`');
                rest = after;
            }
            None => return Some((name, after)),
        }
    }
}

impl Target {
    /// The name of a MySQL column in this table; `None` if it is excluded.
    pub fn name_of(&self, mysql_column: &str) -> Option<String> {
        if self.exclude_from_target.iter().any(|o| o == mysql_column) {
            return None;
        }
        Some(self.rename.get(mysql_column).cloned().unwrap_or_else(|| mysql_column.to_owned()))
    }

    /// The partition key and the clustering columns, as the file names them.
    pub fn key(&self) -> Vec<&str> {
        let clustering = self.clustering_key.iter().map(|c| c.split_whitespace().next().unwrap_or(c));
        self.partition_key.iter().map(String::as_str).chain(clustering).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "[mysql]\nurl = \"mysql://root@h\"\n[cassandra]\nnodes = [\"a:1\"]\nkeyspace = \"k\"\n";

    #[test]
    fn names_with_dots_are_in_backticks() {
        let parts = |source: &str| Source { source: source.into(), targets: Vec::new() }.parts().ok();
        assert_eq!(parts("`a.b`.`c``d`"), Some(("a.b".into(), "c`d".into())));
        assert!(["t", ".t", "d.t.u", "`d.t", "`d`.`t`u"].iter().all(|bad| parts(bad).is_none()));
    }

    #[test]
    fn names_in_the_target() {
        let text = format!(
            "{HEAD}[kafka]\nbrokers = \"b\"\n[[table]]\nsource = \"d.t\"\n[[table.target]]\ntable = \"x\"\n\
             partition_key = [\"a\"]\nclustering_key = [\"b desc\", \"c\"]\nrename = {{ d = \"e\" }}\nexclude_from_target = [\"f\"]\n"
        );
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.tables[0].parts().unwrap(), ("d".to_owned(), "t".to_owned()));
        let target = &config.tables[0].targets[0];
        assert_eq!(target.key(), ["a", "b", "c"]);
        let names: Vec<_> = ["a", "d", "f"].iter().map(|n| target.name_of(n)).collect();
        assert_eq!(names, [Some("a".into()), Some("e".into()), None]);
    }

    #[test]
    fn what_it_cannot_compare_is_refused() {
        let table = "[[table]]\nsource = \"d.t\"\n";
        assert!(Config::parse(&format!("{HEAD}{table}")).is_err());
        let target = "[[table.target]]\ntable = \"x\"\npartition_key = [\"a\"]\n";
        assert!(Config::parse(&format!("{HEAD}{table}{target}")).is_ok());
        assert!(Config::parse(&format!("{HEAD}{table}{target}where = \"a > 1\"\n")).is_err());
    }
}
