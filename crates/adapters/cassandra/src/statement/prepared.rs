//! The prepared statements of the target tables.

use scylla::client::session::Session;
use scylla::statement::Statement;
use scylla::statement::prepared::PreparedStatement;
use tandem_model::{Mutation, TargetTable, Write};

use crate::error::{Failure, Rejection};
use crate::statement::cql;

/// The rows of one page of a scan.
const PAGE_ROWS: i32 = 1000;

/// The prepared statements of one target table.
#[derive(Debug)]
pub(crate) struct PreparedTable {
    pub(crate) key_len: usize,
    pub(crate) regular_len: usize,
    insert: PreparedStatement,
    delete: PreparedStatement,
    pub(crate) select: PreparedStatement,
    pub(crate) scan: PreparedStatement,
}

impl PreparedTable {
    pub(crate) async fn new(session: &Session, keyspace: &str, table: &TargetTable) -> Result<Self, Failure> {
        let mut scan = prepare(session, cql::scan(keyspace, table)).await?;
        scan.set_page_size(PAGE_ROWS);
        Ok(Self {
            key_len: table.key_len(),
            regular_len: table.regular.len(),
            insert: prepare(session, cql::insert(keyspace, table)).await?,
            delete: prepare(session, cql::delete(keyspace, table)).await?,
            select: prepare(session, cql::select(keyspace, table)).await?,
            scan,
        })
    }

    pub(crate) fn statement(&self, write: &Write) -> &PreparedStatement {
        match write {
            Write::Upsert(_) => &self.insert,
            Write::DeleteRow => &self.delete,
        }
    }

    /// Checks that a mutation has as many values as its statement. A driver error would not show that the
    /// plan is at fault, and not the row.
    pub(crate) fn check(&self, mutation: &Mutation) -> Result<(), Rejection> {
        let (key, expected_key) = (mutation.key.len(), self.key_len);
        if key != expected_key {
            return Err(Rejection::Shape(format!("a key has {key} parts and the table's {expected_key}")));
        }
        match &mutation.write {
            Write::Upsert(cells) if cells.len() != self.regular_len => Err(Rejection::Shape(format!(
                "an upsert has {} cells and the table {} regular columns",
                cells.len(),
                self.regular_len
            ))),
            _ => Ok(()),
        }
    }
}

pub(crate) async fn prepare(session: &Session, cql: String) -> Result<PreparedStatement, Failure> {
    let mut statement = session.prepare(Statement::new(cql)).await.map_err(|e| Failure::from(&e))?;
    statement.set_is_idempotent(true);
    statement.set_use_cached_result_metadata(true);
    Ok(statement)
}
