//! Which migration owns a target table.
//!
//! Two migrations that write one table would each repair what the other wrote, and delete its rows as extra. So every
//! target table has at most one owner, by the keyspace's table `tandem_targets`. A claim is a compare-and-set, so of two
//! migrations that claim at once one learns of the other. A table's comment could not do that, and tools that keep a
//! schema in their own files would reset it.
//!
//! A claim is of the table with the id that it names. A table that was dropped and created again has another id, and the
//! claim is stale: it keeps nobody out.

use std::collections::HashMap;

use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::{Consistency, SerialConsistency, Statement};

use crate::connect::target::Target;
use crate::error::{Failure, SchemaError};
use crate::read::keys::unexpected;
use crate::retry;
use crate::statement::cql;

const IDS: &str = "SELECT table_name, CAST(id AS text) FROM system_schema.tables WHERE keyspace_name = ?";
const ID: &str = "SELECT table_name, CAST(id AS text) FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";

/// Who owns a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The migration: its prefix in Kafka.
    pub migration: String,
    /// Whether the table held rows when it was claimed, before the migration wrote any.
    pub held_rows: bool,
    /// Whether the claim was of an earlier table with the same name.
    pub stale: bool,
}

/// A row of the table of owners: the table's name and id, its owner, and whether it held rows.
type Claim = (String, String, String, bool);

/// The owner by a claim. `id` is that of the table that exists.
fn owner_of((_, claimed, migration, held_rows): Claim, id: &str) -> Owner {
    Owner { migration, held_rows, stale: claimed != id }
}

impl Target {
    /// The statement that creates the table of owners.
    pub fn owners_cql(&self) -> String {
        cql::create_owners(self.keyspace())
    }

    /// Returns the owners of the keyspace's tables, by table.
    ///
    /// # Errors
    /// Cassandra does not answer, or refuses the query.
    pub async fn owners(&self) -> Result<HashMap<String, Owner>, SchemaError> {
        let action = "look for the owners of the tables";
        let ids: Vec<(String, String)> = self.ask(action, IDS, (self.keyspace(),)).await?;
        let ids: HashMap<String, String> = ids.into_iter().collect();
        if !ids.contains_key(cql::OWNERS) {
            return Ok(HashMap::new());
        }
        let claims: Vec<Claim> = self.ask(action, &cql::select_owners(self.keyspace()), ()).await?;
        let of_existing = claims.into_iter().filter_map(|claim| Some((ids.get(&claim.0)?, claim)));
        Ok(of_existing.map(|(id, claim)| (claim.0.clone(), owner_of(claim, id))).collect())
    }

    /// The first of these tables that belongs to another migration than `migration`.
    ///
    /// # Errors
    /// As for [`Self::owners`].
    pub async fn owned_by_another<'a>(
        &self,
        migration: &str,
        tables: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<String>, SchemaError> {
        let owners = self.owners().await?;
        let is_anothers = |table: &&str| {
            owners.get(*table).is_some_and(|owner| !owner.stale && owner.migration != migration)
        };
        Ok(tables.into_iter().find(is_anothers).map(str::to_owned))
    }

    /// Whether a table has a row. One that does not exist has none.
    ///
    /// # Errors
    /// Cassandra does not answer, or refuses the query.
    pub async fn holds_rows(&self, table: &str) -> Result<bool, SchemaError> {
        let Some(actual) = self.actual(table).await? else { return Ok(false) };
        let Some(key) = actual.columns.iter().find(|column| column.kind == "partition_key") else {
            return Ok(false);
        };
        let statement = Statement::new(cql::any_row(self.keyspace(), table, &key.name));
        let action = format!("look for rows in table `{table}`");
        let answer = self.request(&action, statement, ()).await?;
        let rows = answer.into_rows_result();
        rows.map(|rows| rows.rows_num() > 0)
            .map_err(|e| SchemaError::new(&action, unexpected(&e.to_string())))
    }

    /// Claims a table for a migration if `instead_of` owns it so far, or nobody. `held_rows` becomes that of the owner.
    /// Returns the owner that the table has then, which is another one if that was quicker. Creates the table of owners
    /// if it is absent.
    ///
    /// # Errors
    /// The table does not exist, Cassandra does not answer, or it refuses a statement.
    pub async fn claim(
        &self,
        table: &str,
        migration: &str,
        held_rows: bool,
        instead_of: Option<&Owner>,
    ) -> Result<Owner, SchemaError> {
        let action = format!("claim table `{table}`");
        let gone = || SchemaError::Refused { action: action.clone(), cause: "there is no such table".into() };
        let id = self.table_id(&action, table).await?.ok_or_else(gone)?;
        if self.table_id(&action, cql::OWNERS).await?.is_none() {
            self.execute_ddl(&self.owners_cql()).await?;
        }
        match self.claim_of(&action, table).await? {
            None => {
                let values = (table, id.as_str(), migration, held_rows);
                let statement = compare_and_set(cql::insert_owner(self.keyspace()));
                self.request(&action, statement, values).await?;
            }
            // Somebody else claimed it after the caller had looked.
            Some(claim) if claim.1 == id && instead_of.is_none_or(|by| by.migration != claim.2) => {}
            Some((_, former_id, former, _)) => {
                let values = (id.as_str(), migration, held_rows, table, former_id.as_str(), former.as_str());
                let statement = compare_and_set(cql::update_owner(self.keyspace()));
                self.request(&action, statement, values).await?;
            }
        }
        let claim = self.claim_of(&action, table).await?.ok_or_else(gone)?;
        Ok(owner_of(claim, &id))
    }

    /// The newest claim of a table, whichever the table's id was.
    async fn claim_of(&self, action: &str, table: &str) -> Result<Option<Claim>, SchemaError> {
        // Sees every compare-and-set that has been answered.
        let mut statement = Statement::new(cql::select_owner(self.keyspace()));
        statement.set_consistency(Consistency::Serial);
        let answer = self.request(action, statement, (table,)).await?;
        let row = answer
            .into_rows_result()
            .map_err(|e| unexpected(&e.to_string()))
            .and_then(|rows| rows.maybe_first_row::<Claim>().map_err(|e| unexpected(&e.to_string())));
        row.map_err(|failure| SchemaError::new(action, failure))
    }

    async fn table_id(&self, action: &str, table: &str) -> Result<Option<String>, SchemaError> {
        let ids: Vec<(String, String)> = self.ask(action, ID, (self.keyspace(), table)).await?;
        Ok(ids.into_iter().next().map(|(_, id)| id))
    }

    /// A compare-and-set whose answer was lost is repeated, too. Its outcome is read afterwards.
    async fn request(
        &self,
        action: &str,
        statement: Statement,
        values: impl SerializeRow + Copy,
    ) -> Result<QueryResult, SchemaError> {
        retry::bounded(self.retry_timeout(), || {
            let statement = statement.clone();
            async move {
                self.session().query_unpaged(statement, values).await.map_err(|e| Failure::from(&e))
            }
        })
        .await
        .map_err(|failure| SchemaError::new(action, failure))
    }
}

/// A statement that is serial over all data centres.
fn compare_and_set(cql: String) -> Statement {
    let mut statement = Statement::new(cql);
    statement.set_serial_consistency(Some(SerialConsistency::Serial));
    statement
}
