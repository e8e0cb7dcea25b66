//! Rows that are written only by compare-and-set (CAS), which Cassandra calls lightweight transactions.
//!
//! A CAS takes effect once or not at all, and the caller learns which, or that nobody knows. So neither the driver
//! nor this crate sends one again: [`Swap::Unknown`] is settled by a read at [`Freshness::Serial`]. Cassandra allows
//! no timestamps in conditional statements. So such a table is written in no other way.

use std::ops::ControlFlow;
use std::sync::Arc;

use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::response::PagingState;
use scylla::response::query_result::QueryResult;
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::Statement;
use scylla::statement::prepared::PreparedStatement;
use tandem_model::{TargetKey, TargetTable};

use crate::connect::target::Target;
use crate::error::{Failure, ReadError, Rejection, SchemaError};
use crate::read::TokenRange;
use crate::read::keys::unexpected;
use crate::retry;
use crate::statement::bind::raw_rows;
use crate::statement::cql;
use crate::statement::prepared::prepare;

/// The rows of one page of a scan. Such rows may be large.
const PAGE_ROWS: i32 = 200;

/// The regular cells of a row in the table's order, in CQL's serialised form. `None` is null.
pub type Cells = Vec<Option<Vec<u8>>>;

/// What became of a CAS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// The row is written.
    Applied,
    /// The row was another one. Nothing is written.
    Lost,
    /// Cassandra has not answered. The row may be written, now or later: by this statement, once.
    Unknown {
        /// The error.
        cause: String,
    },
}

/// What a read sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Every CAS that was acknowledged before the read began, at the configured consistency.
    Acknowledged,
    /// The same, and the outcome of each CAS under way, which the read brings about.
    Serial,
}

/// A row of a scan: its key and its cells.
pub type KeyedCells = (TargetKey, Cells);

/// A table whose rows change by compare-and-set. Clones share its statements.
#[derive(Clone)]
pub struct Conditional {
    target: Target,
    table: Arc<Statements>,
}

struct Statements {
    name: String,
    key_len: usize,
    regular_len: usize,
    swap: PreparedStatement,
    remove: PreparedStatement,
    select: PreparedStatement,
    select_serial: PreparedStatement,
    scan: PreparedStatement,
}

/// The values of a statement, in its order.
struct Values<'a>(Vec<Option<&'a [u8]>>);

impl SerializeRow for Values<'_> {
    fn serialize(
        &self,
        _: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        for value in &self.0 {
            let to = writer.make_cell_writer();
            match value {
                Some(bytes) => to.set_value(bytes).map_err(SerializationError::new)?,
                None => to.set_null(),
            };
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Target {
    /// Prepares the statements of a table whose rows change by compare-and-set.
    ///
    /// A CAS compares the table's first regular column. The table has no clustering columns.
    ///
    /// # Errors
    /// The table does not exist, Cassandra does not answer, or it refuses a statement.
    pub async fn conditional(&self, table: &TargetTable) -> Result<Conditional, SchemaError> {
        let statements = retry::bounded(self.retry_timeout(), || self.conditional_statements(table))
            .await
            .map_err(|failure| SchemaError::new(&format!("prepare table `{}`", table.name), failure))?;
        Ok(Conditional { target: self.clone(), table: Arc::new(statements) })
    }

    async fn conditional_statements(&self, table: &TargetTable) -> Result<Statements, Failure> {
        let (session, keyspace) = (self.session(), self.keyspace());
        let read = cql::select_cells(keyspace, table);
        let mut select_serial = prepare(session, read.clone()).await?;
        select_serial.set_consistency(self.consistency().serial_read());
        let mut scan = prepare(session, cql::scan_rows(keyspace, table)).await?;
        scan.set_page_size(PAGE_ROWS);
        Ok(Statements {
            name: table.name.clone(),
            key_len: table.key_len(),
            regular_len: table.regular.len(),
            swap: self.prepare_swap(cql::swap(keyspace, table)).await?,
            remove: self.prepare_swap(cql::remove(keyspace, table)).await?,
            select: prepare(session, read).await?,
            select_serial,
            scan,
        })
    }

    /// The driver sends such a statement once. Its result has other columns if nothing is written, so its metadata is
    /// not kept.
    async fn prepare_swap(&self, cql: String) -> Result<PreparedStatement, Failure> {
        let prepared = self.session().prepare(Statement::new(cql)).await;
        let mut statement = prepared.map_err(|e| Failure::from(&e))?;
        statement.set_is_idempotent(false);
        statement.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
        statement.set_serial_consistency(Some(self.consistency().serial()));
        Ok(statement)
    }
}

impl Conditional {
    /// Writes a row, all of its cells, if the first of them is still `expected`. `None` expects that there is no row.
    ///
    /// # Errors
    /// The statement can never succeed. Nothing is written.
    ///
    /// # Panics
    /// The key or the cells are not as many as the table's columns.
    pub async fn swap(
        &self,
        key: &TargetKey,
        expected: Option<&[u8]>,
        cells: &Cells,
    ) -> Result<Swap, Rejection> {
        assert_eq!((key.len(), cells.len()), (self.table.key_len, self.table.regular_len), "a row's columns");
        let cells = cells.iter().map(Option::as_deref);
        let key = key.iter().map(|part| Some(&part[..]));
        self.execute(&self.table.swap, Values(cells.chain(key).chain([expected]).collect())).await
    }

    /// Deletes a row if its first cell is still `expected`.
    ///
    /// # Errors
    /// The statement can never succeed. Nothing is deleted.
    ///
    /// # Panics
    /// The key has not as many parts as the table's.
    pub async fn remove(&self, key: &TargetKey, expected: &[u8]) -> Result<Swap, Rejection> {
        assert_eq!(key.len(), self.table.key_len, "a key's columns");
        let key = key.iter().map(|part| Some(&part[..]));
        self.execute(&self.table.remove, Values(key.chain([Some(expected)]).collect())).await
    }

    async fn execute(&self, statement: &PreparedStatement, values: Values<'_>) -> Result<Swap, Rejection> {
        let _permit = self.target.writes().acquire().await;
        let answer = match self.target.session().execute_unpaged(statement, values).await {
            Ok(answer) => answer,
            Err(error) => {
                return match Failure::from(&error) {
                    Failure::Transient(cause) => Ok(Swap::Unknown { cause }),
                    Failure::Permanent(rejection) => Err(rejection),
                };
            }
        };
        Ok(match applied(answer) {
            Some(true) => Swap::Applied,
            Some(false) => Swap::Lost,
            None => Swap::Unknown { cause: "the answer does not say whether it was applied".into() },
        })
    }

    /// Reads a row; `None` if there is none. Retries transient failures for five times the request timeout.
    ///
    /// # Errors
    /// Cassandra does not answer, or refuses the read.
    pub async fn read(&self, key: &TargetKey, freshness: Freshness) -> Result<Option<Cells>, ReadError> {
        let statement = match freshness {
            Freshness::Acknowledged => &self.table.select,
            Freshness::Serial => &self.table.select_serial,
        };
        let _permit = self.target.reads().acquire().await;
        let rows = retry::bounded(self.target.retry_timeout(), || async move {
            let values = Values(key.iter().map(|part| Some(&part[..])).collect());
            let answer = self.target.session().execute_unpaged(statement, values).await;
            cells(answer.map_err(|e| Failure::from(&e))?)
        })
        .await;
        let rows = rows.map_err(|failure| ReadError::new(&self.table.name, failure))?;
        Ok(rows.into_iter().next())
    }

    /// Starts a scan of the rows of a token range. It sees every CAS that was acknowledged before it began.
    pub fn scan(&self, range: TokenRange) -> RowScan {
        RowScan { table: self.clone(), range, next: Some(PagingState::start()) }
    }
}

/// A scan of the rows of a [`Conditional`] table.
pub struct RowScan {
    table: Conditional,
    range: TokenRange,
    /// The state of the next page; `None` at the end.
    next: Option<PagingState>,
}

impl RowScan {
    /// Returns the next page of some 200 rows, which may be empty; `None` at the end. Retries transient failures for
    /// five times the request timeout.
    ///
    /// # Errors
    /// Cassandra does not answer, or refuses the read. The next call reads the same page again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<KeyedCells>>, ReadError> {
        let Some(from) = &self.next else { return Ok(None) };
        let (rows, next) = retry::bounded(self.table.target.retry_timeout(), || self.page(from.clone()))
            .await
            .map_err(|failure| ReadError::new(&self.table.table.name, failure))?;
        self.next = next;
        Ok(Some(rows))
    }

    async fn page(&self, from: PagingState) -> Result<(Vec<KeyedCells>, Option<PagingState>), Failure> {
        let (target, table) = (&self.table.target, &self.table.table);
        let _permit = target.reads().acquire().await;
        let bounds = (self.range.first, self.range.last);
        let answer = target.session().execute_single_page(&table.scan, bounds, from).await;
        let (answer, next) = answer.map_err(|e| Failure::from(&e))?;
        let rows = cells(answer)?.into_iter().map(|mut key| {
            if key.len() != table.key_len + table.regular_len {
                return Err(unexpected("a row has another number of columns than its table"));
            }
            let cells = key.split_off(table.key_len);
            let key: Option<TargetKey> = key.into_iter().collect();
            Ok((key.ok_or_else(|| unexpected("a key lacks a part"))?, cells))
        });
        let rows = rows.collect::<Result<_, _>>()?;
        Ok((
            rows,
            match next.into_paging_control_flow() {
                ControlFlow::Break(()) => None,
                ControlFlow::Continue(state) => Some(state),
            },
        ))
    }
}

/// The rows of an answer.
fn cells(answer: QueryResult) -> Result<Vec<Cells>, Failure> {
    let answer = answer.into_rows_result().map_err(|e| unexpected(&e.to_string()))?;
    let rows = raw_rows(&answer).map_err(|e| unexpected(&e))?;
    Ok(rows.into_iter().map(|row| row.into_iter().map(|cell| cell.map(<[u8]>::to_vec)).collect()).collect())
}

/// The column `[applied]`, which comes first.
fn applied(answer: QueryResult) -> Option<bool> {
    let rows = cells(answer).ok()?;
    match rows.first()?.first()?.as_deref() {
        Some([applied]) => Some(*applied != 0),
        _ => None,
    }
}
