//! Table definitions from `information_schema`.

use tandem_model::{TableDef, TableName};

use crate::{Mysql, MysqlError, TableError};

impl Mysql {
    /// The base tables of a database, by name.
    pub async fn list_tables(&self, database: &str) -> Result<Vec<TableName>, MysqlError> {
        let _ = database;
        unimplemented!()
    }

    /// The definition of a table that can be carried, or every reason why it cannot.
    pub async fn table_def(&self, table: &TableName) -> Result<TableDef, TableError> {
        let _ = table;
        unimplemented!()
    }
}
