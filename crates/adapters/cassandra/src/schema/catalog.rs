//! Reads and changes the schema.

use std::time::Duration;

use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Statement;
use tandem_model::TargetTable;

use crate::connect::target::Target;
use crate::error::{Failure, SchemaError};
use crate::read::keys::unexpected;
use crate::retry;
use crate::schema::compare::{ActualColumn, ActualTable, Finding, compare};
use crate::statement::cql;

/// The least timeout of a schema change. It waits for all nodes to agree, which can take longer than a
/// request.
const DDL_TIMEOUT: Duration = Duration::from_mins(1);

const KEYSPACE: &str = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
const TABLE: &str = "SELECT flags, default_time_to_live, gc_grace_seconds FROM system_schema.tables \
                     WHERE keyspace_name = ? AND table_name = ?";
const COLUMNS: &str = "SELECT column_name, clustering_order, kind, position, type FROM system_schema.columns \
                       WHERE keyspace_name = ? AND table_name = ?";

const TABLES: &str = "SELECT table_name FROM system_schema.tables";
const GUARDRAILS: &str = "SELECT name, value FROM system_views.settings \
                          WHERE name IN ('tables_warn_threshold', 'tables_fail_threshold')";

/// How many tables there are, and how many Cassandra's guardrails allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLimits {
    /// The tables of all keyspaces, Cassandra's own included.
    pub existing: usize,
    /// The number of tables above which Cassandra warns, if that guardrail is set.
    pub warn: Option<usize>,
    /// The number of tables above which Cassandra refuses to create one, if that guardrail is set.
    pub fail: Option<usize>,
}

impl Target {
    /// Creates the keyspace if it does not exist, replicated within the local data centre.
    ///
    /// # Errors
    /// As for [`Self::execute_ddl`].
    pub async fn create_keyspace(&self) -> Result<(), SchemaError> {
        self.execute_ddl(&self.create_keyspace_cql()).await
    }

    fn create_keyspace_cql(&self) -> String {
        cql::create_keyspace(self.keyspace(), self.datacenter(), self.replication_factor())
    }

    /// Whether the keyspace exists.
    ///
    /// # Errors
    /// Cassandra does not answer, or refuses the query.
    pub async fn keyspace_exists(&self) -> Result<bool, SchemaError> {
        let rows: Vec<(String,)> = self.ask("look for the keyspace", KEYSPACE, (self.keyspace(),)).await?;
        Ok(!rows.is_empty())
    }

    /// Executes a schema statement and waits until all nodes agree on the schema. Does not retry. The
    /// statement must name each table with its keyspace.
    ///
    /// # Errors
    /// Cassandra does not answer in time, or refuses the statement.
    pub async fn execute_ddl(&self, statement: &str) -> Result<(), SchemaError> {
        let mut prepared = Statement::new(statement);
        prepared.set_request_timeout(Some(self.request_timeout().max(DDL_TIMEOUT)));
        match self.session().query_unpaged(prepared, ()).await {
            Ok(_) => Ok(()),
            Err(e) => Err(SchemaError::new(&format!("execute `{statement}`"), Failure::from(&e))),
        }
    }

    /// Reads the definition of a table, with its regular columns sorted by name; `None` if the table does not
    /// exist.
    ///
    /// # Errors
    /// [`SchemaError::Column`] if Tandem cannot write a column; otherwise the query fails.
    pub async fn describe(&self, table: &str) -> Result<Option<TargetTable>, SchemaError> {
        self.actual(table).await?.map(|actual| actual.to_target()).transpose()
    }

    /// Reads how long a table keeps its tombstones; `None` if the table does not exist.
    ///
    /// # Errors
    /// Cassandra does not answer, or refuses the query.
    pub async fn gc_grace(&self, table: &str) -> Result<Option<Duration>, SchemaError> {
        let seconds = self.actual(table).await?.map(|actual| actual.gc_grace_seconds);
        Ok(seconds.map(|s| Duration::from_secs(s.max(0) as u64)))
    }

    /// Returns everything that prevents Tandem from writing these tables.
    ///
    /// # Errors
    /// Cassandra does not answer, or refuses the query.
    pub async fn check_schema(&self, tables: &[TargetTable]) -> Result<Vec<Finding>, SchemaError> {
        let mut findings = Vec::new();
        if !self.keyspace_exists().await? {
            findings.push(Finding {
                table: String::new(),
                problem: format!("keyspace `{}` does not exist", self.keyspace()),
                remedy: Some(self.create_keyspace_cql()),
            });
        }
        for wanted in tables {
            let actual = self.actual(&wanted.name).await?;
            findings.extend(compare(self.keyspace(), wanted, actual.as_ref()));
        }
        Ok(findings)
    }

    /// Returns how many tables there are, and how many Cassandra's guardrails allow.
    ///
    /// # Errors
    /// Cassandra does not answer, or refuses the query for the tables.
    pub async fn table_limits(&self) -> Result<TableLimits, SchemaError> {
        let tables: Vec<(String,)> = self.ask("count the tables", TABLES, ()).await?;
        let mut limits = TableLimits { existing: tables.len(), warn: None, fail: None };
        // The account may not be allowed to read the settings, which are only a help.
        let settings: Vec<(String, Option<String>)> =
            self.ask("read the guardrails", GUARDRAILS, ()).await.unwrap_or_default();
        for (name, value) in settings {
            // A negative value means that the guardrail is off.
            let limit = value.and_then(|value| value.parse::<usize>().ok());
            if name == "tables_warn_threshold" { limits.warn = limit } else { limits.fail = limit }
        }
        Ok(limits)
    }

    pub(super) async fn actual(&self, table: &str) -> Result<Option<ActualTable>, SchemaError> {
        let action = format!("describe table `{table}`");
        let key = (self.keyspace(), table);
        let tables: Vec<(Option<Vec<String>>, i32, i32)> = self.ask(&action, TABLE, key).await?;
        let Some((flags, default_ttl, gc_grace_seconds)) = tables.into_iter().next() else { return Ok(None) };
        let columns: Vec<(String, String, String, i32, String)> = self.ask(&action, COLUMNS, key).await?;
        let columns = columns.into_iter().map(|(name, clustering_order, kind, position, ty)| ActualColumn {
            name,
            clustering_order,
            kind,
            position,
            ty,
        });
        Ok(Some(ActualTable {
            name: table.to_owned(),
            flags: flags.unwrap_or_default(),
            default_ttl,
            gc_grace_seconds,
            columns: columns.collect(),
        }))
    }

    pub(super) async fn ask<R>(
        &self,
        action: &str,
        cql: &str,
        values: impl SerializeRow + Copy,
    ) -> Result<Vec<R>, SchemaError>
    where
        R: for<'r> DeserializeRow<'r, 'r>,
    {
        retry::bounded(self.retry_timeout(), || async move {
            let answer = query(self.session(), cql, values).await?;
            let rows = answer.rows::<R>().map_err(|e| unexpected(&e.to_string()))?;
            rows.collect::<Result<Vec<R>, _>>().map_err(|e| unexpected(&e.to_string()))
        })
        .await
        .map_err(|failure| SchemaError::new(action, failure))
    }
}

async fn query(session: &Session, cql: &str, values: impl SerializeRow) -> Result<QueryRowsResult, Failure> {
    session
        .query_unpaged(cql, values)
        .await
        .map_err(|e| Failure::from(&e))?
        .into_rows_result()
        .map_err(|e| unexpected(&e.to_string()))
}
