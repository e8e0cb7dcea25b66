//! Client transactions.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Error, Params, QueryResult, TextProtocol, Value as Raw};
use tandem_model::{GtidSet, Row, TableDef, TableName, Value};
use tokio::time::Instant;

use crate::client::visible::visible;
use crate::connect::{Lease, Server, left};
use crate::error::MysqlError;
use crate::read::query::{keys as key_query, point, quoted, quoted_table};
use crate::read::select::{column_parameter, key_parameters, select_rows};

/// Limit for a COMMIT.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The COMMIT and the query for its GTID, in one packet.
///
/// The driver does not ask the server to report the GTID in its OK packet (`CLIENT_SESSION_TRACK`). So the
/// query reads it from `performance_schema`, where the server keeps the connection's last transactions.
///
/// If that history was switched off meanwhile, its newest GTID is the one of the connection's previous query.
/// The statement then returns NULL. The GTID is compared as bytes, because a variable's collation differs
/// from the column's. If a statement fails, MySQL does not run the following ones.
const COMMIT_AND_GTID: &str = "COMMIT; SET @tandem_before = @tandem_gtid, @tandem_gtid = (SELECT CAST(GTID AS BINARY) FROM \
    performance_schema.events_transactions_history WHERE THREAD_ID = PS_CURRENT_THREAD_ID() AND GTID LIKE \
    '%:%' ORDER BY EVENT_ID DESC LIMIT 1); SELECT IF(@tandem_gtid <=> @tandem_before, NULL, @tandem_gtid)";

/// The outcome of a COMMIT.
#[derive(Debug)]
pub enum Commit {
    /// The transaction is committed, and the GTID set contains it.
    ///
    /// Where the server does not report the transaction's GTID, or where the transaction changed nothing, the
    /// set is everything [visible](crate::ClientPool::visible) at that time. It is `None` where the
    /// connection broke before the query.
    Committed(Option<GtidSet>),
    /// The transaction is certainly not committed.
    Failed(MysqlError),
    /// Whether the transaction is committed is unknown.
    Unknown(MysqlError),
}

/// An open transaction. Dropping it rolls it back.
#[derive(Debug)]
pub struct ClientTransaction {
    lease: Lease,
    server: Server,
    deadline: Instant,
    changed: bool,
}

impl ClientTransaction {
    pub(crate) fn new(lease: Lease, server: Server, deadline: Instant) -> Self {
        Self { lease, server, deadline, changed: false }
    }

    /// Whether its deadline has passed.
    pub fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Locks and reads the row with exactly this key, until the end of the transaction.
    ///
    /// # Errors
    /// The deadline passes, a lock wait times out, a deadlock occurs, or the connection is lost.
    pub async fn lock(&mut self, table: &TableDef, key: &[Value]) -> Result<Option<Row>, MysqlError> {
        Ok(self.image(table, key).await?.filter(|row| table.key_of(row) == key))
    }

    /// Locks and reads the row whose key MySQL considers equal to this one. MySQL may store a key in another
    /// form than the client gave it.
    ///
    /// # Errors
    /// The deadline passes, a lock wait times out, a deadlock occurs, or the connection is lost.
    pub async fn image(&mut self, table: &TableDef, key: &[Value]) -> Result<Option<Row>, MysqlError> {
        let columns: Vec<_> = table.columns.iter().collect();
        let sql = format!("{} FOR UPDATE", key_query(table, 1));
        let params = key_parameters(table, key)?;
        let limit = left(self.deadline);
        let rows =
            select_rows(self.lease.conn(), &self.server, limit, &table.name, &columns, &sql, params).await;
        self.lease.answered(&rows);
        Ok(rows?.into_iter().next())
    }

    /// Inserts a row with these columns. The others take their defaults. Returns the generated key, or 0 if
    /// the server generated none.
    ///
    /// # Errors
    /// MySQL refuses the row (a duplicate key, an invalid value), or as for [`Self::lock`].
    pub async fn insert(&mut self, table: &TableDef, values: &[(usize, Value)]) -> Result<u64, MysqlError> {
        let names: Vec<String> = values.iter().map(|(i, _)| quoted(&table.columns[*i].name)).collect();
        let sql = format!(
            "INSERT INTO {} ({}) VALUES ({})",
            quoted_table(&table.name),
            names.join(", "),
            vec!["?"; values.len()].join(", ")
        );
        let params: Vec<Raw> =
            values.iter().map(|(i, v)| column_parameter(table, *i, v)).collect::<Result<_, _>>()?;
        self.execute(&format!("inserting into {}", table.name), &sql, params).await?;
        let generated = self.lease.conn().last_insert_id().unwrap_or(0);
        // Nothing was asked.
        self.lease.answered(&Ok(()));
        Ok(generated)
    }

    /// Sets columns of the row with this key; `None` sets the column's default.
    ///
    /// # Errors
    /// MySQL refuses a value, or as for [`Self::lock`].
    pub async fn update(
        &mut self,
        table: &TableDef,
        key: &[Value],
        set: &[(usize, Option<Value>)],
    ) -> Result<(), MysqlError> {
        if set.is_empty() {
            return Ok(());
        }
        let assignments: Vec<String> = set
            .iter()
            .map(|(i, value)| {
                let to = if value.is_some() { "?" } else { "DEFAULT" };
                format!("{} = {to}", quoted(&table.columns[*i].name))
            })
            .collect();
        let sql =
            format!("UPDATE {} SET {} {}", quoted_table(&table.name), assignments.join(", "), point(table));
        let mut params = Vec::new();
        for (i, value) in set {
            if let Some(value) = value {
                params.push(column_parameter(table, *i, value)?);
            }
        }
        params.extend(key_parameters(table, key)?);
        self.execute(&format!("updating {}", table.name), &sql, params).await
    }

    /// Deletes the row with this key.
    ///
    /// # Errors
    /// As for [`Self::lock`].
    pub async fn delete(&mut self, table: &TableDef, key: &[Value]) -> Result<(), MysqlError> {
        let sql = format!("DELETE FROM {} {}", quoted_table(&table.name), point(table));
        let params = key_parameters(table, key)?;
        self.execute(&format!("deleting from {}", table.name), &sql, params).await
    }

    /// Claims an idempotency key. Returns `None` if the key is new. Otherwise returns the hash of the request
    /// that claimed it and its answer. Waits for another transaction that is claiming the key.
    ///
    /// # Errors
    /// As for [`Self::lock`].
    pub async fn claim(
        &mut self,
        table: &TableName,
        id: &[u8; 32],
        request: &[u8; 32],
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>, MysqlError> {
        let name = quoted_table(table);
        let doing = "claiming an idempotency key";
        let insert = format!("INSERT INTO {name} (id, request) VALUES (?, ?)");
        match self.execute(doing, &insert, vec![Raw::from(&id[..]), Raw::from(&request[..])]).await {
            Ok(()) => return Ok(None),
            Err(MysqlError::Server { code: 1062, .. }) => {}
            Err(error) => return Err(error),
        }
        let select = format!("SELECT request, answer FROM {name} WHERE id = ? FOR SHARE");
        let question = self.lease.conn().exec_first::<(Vec<u8>, Option<Vec<u8>>), _, _>(select, (&id[..],));
        let found = self.server.answer(left(self.deadline), doing, question).await;
        self.lease.answered(&found);
        Ok(found?.map(|(request, answer)| (request, answer.unwrap_or_default())))
    }

    /// Stores the answer under an idempotency key that this transaction has claimed.
    ///
    /// # Errors
    /// As for [`Self::lock`].
    pub async fn keep_answer(
        &mut self,
        table: &TableName,
        id: &[u8; 32],
        answer: &[u8],
    ) -> Result<(), MysqlError> {
        let sql = format!("UPDATE {} SET answer = ? WHERE id = ?", quoted_table(table));
        self.execute("storing an answer", &sql, vec![Raw::from(answer), Raw::from(&id[..])]).await
    }

    async fn execute(&mut self, doing: &str, sql: &str, params: Vec<Raw>) -> Result<(), MysqlError> {
        let limit = left(self.deadline);
        let params = if params.is_empty() { Params::Empty } else { Params::Positional(params) };
        let question = self.lease.conn().exec_drop(sql, params);
        let answer = self.server.answer(limit, doing, question).await;
        let affected = self.lease.conn().affected_rows();
        self.lease.answered(&answer);
        self.changed |= answer.is_ok() && affected > 0;
        answer
    }

    /// Commits. Waits up to 10 s for the answer, even beyond the deadline, because an unknown outcome is
    /// worse than a late one.
    pub async fn commit(mut self) -> Commit {
        let doing = "committing";
        // Killed or not, its outcome would be unknown.
        self.lease.spare();
        let sql = if self.changed { COMMIT_AND_GTID } else { "COMMIT" };
        let committing = self.lease.conn().query_iter(sql);
        let answers = match tokio::time::timeout(COMMIT_TIMEOUT, committing).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => {
                let certain = is_certain(&error);
                let error = MysqlError::while_doing(error, &self.server.address, doing);
                return if certain { Commit::Failed(error) } else { Commit::Unknown(error) };
            }
            Err(_) => {
                return Commit::Unknown(MysqlError::Lost {
                    address: self.server.address.clone(),
                    doing: doing.into(),
                    cause: format!("no answer within {COMMIT_TIMEOUT:?}"),
                });
            }
        };
        // The transaction is committed, even if the query for its GTID fails.
        let question = own_gtid(answers);
        let answer = self.server.answer(self.server.timeout, "asking for the GTID", question).await;
        let gtids = match answer {
            Ok(Some(gtid)) => gtid.parse().ok(),
            // A refused query is an answer too, and the connection stays usable.
            Ok(None) | Err(MysqlError::Server { .. } | MysqlError::MissingPrivilege { .. }) => {
                visible(self.lease.conn(), &self.server, self.server.timeout).await.ok()
            }
            Err(_) => None,
        };
        if gtids.is_some() {
            self.lease.is_clean();
        }
        Commit::Committed(gtids)
    }

    /// Rolls back. The connection then returns to the pool. If a statement has not been answered, it is killed instead,
    /// which rolls back as well: a ROLLBACK would have to wait for it.
    pub async fn rollback(mut self) {
        if self.lease.awaits() {
            return;
        }
        let question = self.lease.conn().query_drop("ROLLBACK");
        if self.server.answer(self.server.timeout, "rolling back", question).await.is_ok() {
            self.lease.is_clean();
        }
    }
}

/// Reads the answer to the last statement of [`COMMIT_AND_GTID`]. The first one has been answered already.
async fn own_gtid(
    mut answers: QueryResult<'_, 'static, TextProtocol>,
) -> mysql_async::Result<Option<String>> {
    let mut gtid = None;
    while !answers.is_empty() {
        let rows: Vec<Option<String>> = answers.collect().await?;
        gtid = rows.into_iter().next().flatten();
    }
    // This returns the error of a later statement.
    answers.drop_result().await?;
    Ok(gtid)
}

/// Whether an error in answer to a COMMIT proves that the transaction is not committed.
///
/// The server's own errors prove it, with four exceptions that may follow the commit: 1053 (shutdown), 1317
/// (interrupted), 1927 and 3169 (killed).
fn is_certain(error: &Error) -> bool {
    matches!(error, Error::Server(error) if !matches!(error.code, 1053 | 1317 | 1927 | 3169))
}
