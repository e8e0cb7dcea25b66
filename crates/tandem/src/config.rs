//! `tandem.toml`.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use tandem_mapping::TableConfig;

/// The configuration file. Unknown keys are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) mysql: MysqlSection,
    pub(crate) cassandra: CassandraSection,
    #[serde(default)]
    pub(crate) table: Vec<TableConfig>,
}

/// `[mysql]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MysqlSection {
    pub(crate) url: String,
}

/// `[cassandra]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CassandraSection {
    pub(crate) keyspace: String,
}

impl Config {
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a valid configuration", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let text = "[mysql]\nurl = 'mysql://h'\n[cassandra]\nkeyspace = 'k'\nkeyspaze = 'k'\n";
        let error = toml::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains("keyspaze"), "{error}");
    }
}
