//! `[reverse]`: the way back to MySQL.

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::config::secret::Secret;

/// `[reverse]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReverseSection {
    /// An account of its own. The default is that of `[mysql]`.
    pub(super) url: Option<String>,
    pub(super) password: Option<Secret>,
    /// The database of reverse's own tables. The default is that of the first mapped table.
    pub(super) database: Option<String>,
    pub(super) max_records: usize,
}

impl Default for ReverseSection {
    fn default() -> Self {
        Self { url: None, password: None, database: None, max_records: 500 }
    }
}

impl ReverseSection {
    pub(super) fn validate(&self) -> Result<()> {
        if self.max_records == 0 {
            bail!("reverse.max_records must be above 0");
        }
        if self.database.as_ref().is_some_and(String::is_empty) {
            bail!("reverse.database must not be empty");
        }
        Ok(())
    }
}
