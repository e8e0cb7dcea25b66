//! Under which name the server knows a table.
//!
//! Every name that Tandem derives from a table (topics, keys of control records, the filter of the binlog) comes from the
//! configuration, also in roles that never ask MySQL. So the configuration must spell a table as the binlog does. Under
//! another spelling its changes would be dropped without an error.

use tandem_model::{NameCase, TableName};

use crate::error::MysqlError;
use crate::mysql::Mysql;

/// Asks for the setting of [`NameCase`].
pub(crate) const LOWER_CASE_TABLE_NAMES: &str = "SELECT @@GLOBAL.lower_case_table_names";

impl Mysql {
    /// Returns how the server compares names.
    ///
    /// # Errors
    /// The server cannot be reached or the query fails.
    pub(crate) async fn name_case(&self) -> Result<NameCase, MysqlError> {
        let doing = "asking how the server compares names";
        let answer: Vec<u64> = self.rows(doing, LOWER_CASE_TABLE_NAMES, ()).await?;
        Ok(NameCase::of(answer.first().copied().unwrap_or_default()))
    }

    /// Returns a table that is called `name` but for the case.
    ///
    /// # Errors
    /// The server cannot be reached or the query fails.
    pub(crate) async fn in_another_case(&self, name: &TableName) -> Result<Option<TableName>, MysqlError> {
        let tables: Vec<(String, String)> = self
            .rows(
                &format!("looking for {name} in another case"),
                "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
                 WHERE LOWER(TABLE_SCHEMA) = LOWER(?) AND LOWER(TABLE_NAME) = LOWER(?) \
                 ORDER BY TABLE_SCHEMA, TABLE_NAME LIMIT 1",
                (&name.database, &name.table),
            )
            .await?;
        Ok(tables.into_iter().next().map(|(database, table)| TableName { database, table }))
    }
}
