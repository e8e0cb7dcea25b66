//! A client's transaction.

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

/// How long a COMMIT may take.
const COMMIT: Duration = Duration::from_secs(10);

/// The COMMIT, and in the same packet the question for its GTID. The driver does not ask the server to
/// report it in its OK packet (`CLIENT_SESSION_TRACK`), so it is read from where the server keeps the
/// connection's last transactions. Where that was switched off meanwhile, the newest there is an older
/// one, the same as the last time: that is none. As bytes, since a variable's collation is not the
/// column's. A statement that fails ends the packet: the others are not run.
const COMMIT_AND_GTID: &str = "COMMIT; SET @tandem_before = @tandem_gtid, @tandem_gtid = (SELECT CAST(GTID AS BINARY) FROM \
    performance_schema.events_transactions_history WHERE THREAD_ID = PS_CURRENT_THREAD_ID() AND GTID LIKE \
    '%:%' ORDER BY EVENT_ID DESC LIMIT 1); SELECT IF(@tandem_gtid <=> @tandem_before, NULL, @tandem_gtid)";

/// What has become of a COMMIT.
#[derive(Debug)]
pub enum Commit {
    /// It is committed. The set holds the transaction; where the server does not tell which one it
    /// was, or where it changed nothing, it is all that was [visible](crate::ClientPool::visible) by then.
    /// None where the connection broke before that could be asked.
    Committed(Option<GtidSet>),
    /// It is certainly not committed.
    Failed(MysqlError),
    /// Nobody knows.
    Unknown(MysqlError),
}

/// A transaction under way. Dropping it rolls it back.
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

    /// Locks the row with exactly this key, if there is one, until the end of the transaction.
    pub async fn lock(&mut self, table: &TableDef, key: &[Value]) -> Result<Option<Row>, MysqlError> {
        Ok(self.image(table, key).await?.filter(|row| table.key_of(row) == key))
    }

    /// Locks and reads the row whose key MySQL takes for equal to this one: a key may be stored in
    /// another form than it was given.
    pub async fn image(&mut self, table: &TableDef, key: &[Value]) -> Result<Option<Row>, MysqlError> {
        let columns: Vec<_> = table.columns.iter().collect();
        let sql = format!("{} FOR UPDATE", key_query(table, 1));
        let params = key_parameters(table, key)?;
        let limit = left(self.deadline);
        let rows =
            select_rows(self.lease.conn(), &self.server, limit, &table.name, &columns, &sql, params).await?;
        Ok(rows.into_iter().next())
    }

    /// Inserts a row with these columns; the others take their defaults. Gives the key that the
    /// server generated, 0 if it did not.
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
        Ok(self.lease.conn().last_insert_id().unwrap_or(0))
    }

    /// Sets columns of the row with this key; `None` is the column's default.
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
    pub async fn delete(&mut self, table: &TableDef, key: &[Value]) -> Result<(), MysqlError> {
        let sql = format!("DELETE FROM {} {}", quoted_table(&table.name), point(table));
        let params = key_parameters(table, key)?;
        self.execute(&format!("deleting from {}", table.name), &sql, params).await
    }

    /// Claims an idempotency key: `None` if it is new. Otherwise the request that claimed it, hashed,
    /// and its answer. Waits for another transaction that is claiming it.
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
        let found = self.server.answer(left(self.deadline), doing, question).await?;
        Ok(found.map(|(request, answer)| (request, answer.unwrap_or_default())))
    }

    /// Keeps the answer for an idempotency key that this transaction has claimed.
    pub async fn keep_answer(
        &mut self,
        table: &TableName,
        id: &[u8; 32],
        answer: &[u8],
    ) -> Result<(), MysqlError> {
        let sql = format!("UPDATE {} SET answer = ? WHERE id = ?", quoted_table(table));
        self.execute("keeping an answer", &sql, vec![Raw::from(answer), Raw::from(&id[..])]).await
    }

    async fn execute(&mut self, doing: &str, sql: &str, params: Vec<Raw>) -> Result<(), MysqlError> {
        let limit = left(self.deadline);
        let params = if params.is_empty() { Params::Empty } else { Params::Positional(params) };
        let question = self.lease.conn().exec_drop(sql, params);
        self.server.answer(limit, doing, question).await?;
        self.changed |= self.lease.conn().affected_rows() > 0;
        Ok(())
    }

    /// Commits. The COMMIT is waited for beyond the deadline, up to 10 s: not to know its outcome is
    /// worse than to be late.
    pub async fn commit(mut self) -> Commit {
        let doing = "committing";
        let sql = if self.changed { COMMIT_AND_GTID } else { "COMMIT" };
        let committing = self.lease.conn().query_iter(sql);
        let answers = match tokio::time::timeout(COMMIT, committing).await {
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
                    cause: format!("no answer within {COMMIT:?}"),
                });
            }
        };
        // It is committed, whatever becomes of the question by which name.
        let question = own_gtid(answers);
        let answer = self.server.answer(self.server.timeout, "asking for the GTID", question).await;
        let gtids = match answer {
            Ok(Some(gtid)) => gtid.parse().ok(),
            // What an account may not ask is an answer too; the connection stays usable.
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

    /// Rolls back, so that the connection can be used again.
    pub async fn rollback(mut self) {
        let question = self.lease.conn().query_drop("ROLLBACK");
        if self.server.answer(self.server.timeout, "rolling back", question).await.is_ok() {
            self.lease.is_clean();
        }
    }
}

/// The answer to the last statement of [`COMMIT_AND_GTID`], whose first was answered already.
async fn own_gtid(
    mut answers: QueryResult<'_, 'static, TextProtocol>,
) -> mysql_async::Result<Option<String>> {
    let mut gtid = None;
    while !answers.is_empty() {
        let rows: Vec<Option<String>> = answers.collect().await?;
        gtid = rows.into_iter().next().flatten();
    }
    // An error of a later statement is kept until now.
    answers.drop_result().await?;
    Ok(gtid)
}

/// Whether an error that answers a COMMIT says that it was not committed: the server's own, but for
/// those of a connection or a server that is being ended (1053 shutdown, 1317 interrupted, 1927 and
/// 3169 killed), which may come after the commit.
fn is_certain(error: &Error) -> bool {
    matches!(error, Error::Server(error) if !matches!(error.code, 1053 | 1317 | 1927 | 3169))
}
