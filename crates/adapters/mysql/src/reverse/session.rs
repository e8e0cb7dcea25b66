//! The session that writes native rows.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Opts, Value as Raw};
use tandem_model::{Epoch, Row, TableDef, TableName, Value, Version};

use crate::connect::{MysqlConfig, Server};
use crate::error::MysqlError;
use crate::read::query::quoted_table;
use crate::read::select::{column_parameter, key_parameters, select_rows};
use crate::reverse::sql;

/// The session variables.
///
/// - Foreign keys are not checked: a row may come before the row that it refers to. Cascades do not run.
/// - Strict SQL mode: MySQL stores a value unchanged or refuses it. It accepts what it has stored before: invalid dates, and 0
///   in an AUTO_INCREMENT column.
/// - `lc_time_names` marks the transactions in the binlog ([`REVERSE_LOCALE`](tandem_binlog::REVERSE_LOCALE)).
const SETUP: &str = "SET SESSION autocommit = 1, transaction_isolation = 'READ-COMMITTED', time_zone = '+00:00', \
                     lc_time_names = 'en_ZA', foreign_key_checks = 0, sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,\
                     NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', innodb_lock_wait_timeout = 5, lock_wait_timeout = 5";

/// How long one statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Parameters of one statement at most. MySQL allows 65,535.
const PARAMETERS: usize = 16_384;

/// The version of a placeholder.
const NO_VERSION: i64 = i64::MIN;

/// Identifies a row of any table: a hash of its table and its key.
pub type RowKey = [u8; 32];

/// The version that MySQL keeps for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptVersion {
    /// The row.
    pub row: RowKey,
    /// The epoch of its last native write.
    pub epoch: Epoch,
    /// The version of that write.
    pub version: Version,
}

/// Up to where a partition of the log is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset of the first record that is not applied.
    pub next: i64,
}

/// One connection that writes native rows. After an error that is not of a row it must not be used again.
#[derive(Debug)]
pub struct ReverseSession {
    conn: Conn,
    server: Server,
    /// The names of Tandem's tables, quoted.
    versions: String,
    offsets: String,
    /// What is known of the tables in MySQL.
    known: HashMap<TableName, HashMap<String, bool>>,
    /// The bytes of the rows of one statement at most.
    max_packet: usize,
}

/// What a delete has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// The rows of these keys, which are deleted.
    pub rows: usize,
    /// Rows with other keys that the collation takes for the same. They are still there.
    pub others: usize,
}

/// The columns of a definition that are written.
struct Written {
    columns: Vec<usize>,
    /// Whether they are all columns of the table in MySQL that are not generated.
    all: bool,
}

impl ReverseSession {
    /// Reverse's own tables: the versions of rows, and the offsets of the log.
    pub fn tables(database: &str) -> [TableName; 2] {
        ["tandem_reverse_versions", "tandem_reverse_offsets"].map(|table| TableName::new(database, table))
    }

    /// Connects, and creates Tandem's tables in `database` if they do not exist. Makes one attempt.
    ///
    /// # Errors
    /// The server cannot be reached, refuses the account, or does not let it create the tables.
    pub async fn open(config: &MysqlConfig, database: &str) -> Result<Self, MysqlError> {
        let opts: Opts = config.options(vec![SETUP.to_owned()])?.into();
        let server = Server::new(config, &opts);
        let conn = server.connecting(Conn::new(opts)).await?;
        let [versions, offsets] = Self::tables(database).map(|table| quoted_table(&table));
        let mut session = Self { conn, server, versions, offsets, known: HashMap::new(), max_packet: 0 };
        for create in [
            format!(
                "CREATE TABLE IF NOT EXISTS {} (row_key BINARY(32) PRIMARY KEY, epoch INT UNSIGNED NOT NULL, version BIGINT NOT \
                 NULL)",
                session.versions
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (topic VARCHAR(249) CHARACTER SET ascii COLLATE ascii_bin, partition_id INT, \
                 next_offset BIGINT NOT NULL, PRIMARY KEY (topic, partition_id))",
                session.offsets
            ),
        ] {
            session.run("creating reverse's tables", &create, Vec::new()).await?;
        }
        let packet: Vec<u64> =
            session.ask("reading max_allowed_packet", "SELECT @@max_allowed_packet", Vec::new()).await?;
        // The rest is for the statement and for keys.
        session.max_packet =
            packet.first().map_or(0, |bytes| usize::try_from(bytes / 2).unwrap_or(usize::MAX));
        Ok(session)
    }

    /// Returns up to where each partition of the log is applied. A partition that is not there has not begun.
    ///
    /// # Errors
    /// The connection is lost or the query fails.
    pub async fn applied(&mut self) -> Result<Vec<PartitionOffset>, MysqlError> {
        let select = format!("SELECT topic, partition_id, next_offset FROM {}", self.offsets);
        let rows: Vec<(String, i32, i64)> =
            self.ask("reading reverse's offsets", &select, Vec::new()).await?;
        let offset = |(topic, partition, next)| PartitionOffset { topic, partition, next };
        Ok(rows.into_iter().map(offset).collect())
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn begin(&mut self) -> Result<(), MysqlError> {
        self.run("beginning a transaction", "START TRANSACTION", Vec::new()).await
    }

    /// Locks and reads the versions of these rows. Another session that writes one of them waits until this transaction ends.
    ///
    /// A row without a version gets a placeholder first: MySQL cannot lock what is not there.
    ///
    /// # Errors
    /// A lock wait times out, a deadlock occurs, or the connection is lost.
    pub async fn kept(&mut self, rows: &[RowKey]) -> Result<HashMap<RowKey, Version>, MysqlError> {
        // Always in the same order, so that two sessions rarely meet in a deadlock.
        let rows: Vec<RowKey> = rows.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let mut from = 0;
        for size in sql::sizes(rows.len(), 1, PARAMETERS) {
            let placeholders = format!(
                "INSERT INTO {} VALUES {} ON DUPLICATE KEY UPDATE version = version",
                self.versions,
                vec![format!("(?, 0, {NO_VERSION})"); size].join(", ")
            );
            let params = rows[from..from + size].iter().map(|row| Raw::from(&row[..])).collect();
            from += size;
            self.run("locking reverse's versions", &placeholders, params).await?;
        }
        let (mut kept, mut from) = (HashMap::with_capacity(rows.len()), 0);
        for size in sql::sizes(rows.len(), 1, PARAMETERS) {
            let some = &rows[from..from + size];
            from += size;
            let select = format!(
                "SELECT row_key, version FROM {} WHERE row_key IN ({}) FOR UPDATE",
                self.versions,
                vec!["?"; size].join(", ")
            );
            let params = some.iter().map(|row| Raw::from(&row[..])).collect();
            let found: Vec<(Vec<u8>, i64)> = self.ask("reading reverse's versions", &select, params).await?;
            let version =
                |(row, version): (Vec<u8>, i64)| Some((RowKey::try_from(row).ok()?, Version(version)));
            kept.extend(found.into_iter().filter(|(_, version)| *version != NO_VERSION).filter_map(version));
        }
        Ok(kept)
    }

    /// Makes rows what they are in `rows`: inserts those whose keys are not there, and overwrites the others. Columns that the
    /// definition leaves out keep their values, or get their defaults. MySQL computes generated columns. No key comes twice.
    ///
    /// # Errors
    /// MySQL refuses a row, for example because of a unique value or a CHECK; or as for [`Self::kept`]. The transaction must
    /// be rolled back then.
    pub async fn put(&mut self, table: &TableDef, rows: &[&Row]) -> Result<(), MysqlError> {
        let written = self.written(table).await?;
        let keys: Vec<Vec<Value>> = rows.iter().map(|row| table.key_of(row)).collect();
        let there = self.lock(table, &keys).await?;
        let (old, new): (Vec<_>, Vec<_>) =
            rows.iter().zip(&keys).partition(|(_, key)| there.contains(&hashed(key)));
        let old: Vec<&Row> = old.iter().map(|(row, _)| **row).collect();
        let new: Vec<&Row> = new.iter().map(|(row, _)| **row).collect();
        if written.all {
            self.write(table, &written.columns, &old, sql::overwrite).await?;
        } else {
            // MySQL would refuse the insert of a row without a column that has no default, even if the key is there.
            self.update(table, &written.columns, &old).await?;
        }
        self.write(table, &written.columns, &new, sql::insert).await
    }

    /// Inserts rows whose keys are not there.
    ///
    /// # Errors
    /// As for [`Self::put`].
    pub async fn insert(&mut self, table: &TableDef, rows: &[&Row]) -> Result<(), MysqlError> {
        let written = self.written(table).await?;
        self.write(table, &written.columns, rows, sql::insert).await
    }

    /// Whether a row of this definition is the whole row, so that it can be deleted and inserted again.
    ///
    /// # Errors
    /// The connection is lost or the query fails.
    pub async fn is_whole(&mut self, table: &TableDef) -> Result<bool, MysqlError> {
        Ok(self.written(table).await?.all)
    }

    /// Sets these columns of rows that are there, one by one.
    async fn update(&mut self, table: &TableDef, columns: &[usize], rows: &[&Row]) -> Result<(), MysqlError> {
        let columns: Vec<usize> =
            columns.iter().copied().filter(|column| !table.primary_key.contains(column)).collect();
        if columns.is_empty() {
            return Ok(());
        }
        let sql = sql::update(table, &columns);
        for row in rows {
            let mut params = Vec::with_capacity(columns.len() + table.primary_key.len());
            for &column in &columns {
                params.push(column_parameter(table, column, &row[column])?);
            }
            params.extend(key_parameters(table, &table.key_of(row))?);
            self.run_of(table, &sql, params).await?;
        }
        Ok(())
    }

    /// Runs a statement that writes rows of a table.
    async fn run_of(&mut self, table: &TableDef, sql: &str, params: Vec<Raw>) -> Result<(), MysqlError> {
        let outcome = self.run(&format!("writing rows of {}", table.name), sql, params).await;
        if outcome.is_err() {
            // The table may have been altered.
            self.known.remove(&table.name);
        }
        outcome
    }

    async fn write(
        &mut self,
        table: &TableDef,
        columns: &[usize],
        rows: &[&Row],
        statement: fn(&TableDef, &[usize], usize) -> String,
    ) -> Result<(), MysqlError> {
        let mut converted = Vec::with_capacity(rows.len());
        for row in rows {
            let params = columns.iter().map(|&column| column_parameter(table, column, &row[column]));
            converted.push(params.collect::<Result<Vec<Raw>, _>>()?);
        }
        let mut rest = converted.into_iter().peekable();
        while rest.peek().is_some() {
            // As many rows as fit into one packet.
            let (mut fitting, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rest.peek() {
                let size = packet_size(row);
                if size > self.max_packet {
                    return Err(MysqlError::BadValue {
                        table: table.name.clone(),
                        column: "(all)".into(),
                        problem: format!("the row has {size} bytes, more than MySQL's max_allowed_packet"),
                    });
                }
                if bytes + size > self.max_packet {
                    break;
                }
                bytes += size;
                fitting.extend(rest.next());
            }
            let mut fitting = fitting.into_iter();
            for size in sql::sizes(fitting.len(), columns.len(), PARAMETERS) {
                let params = fitting.by_ref().take(size).flatten().collect();
                self.run_of(table, &statement(table, columns, size), params).await?;
            }
        }
        Ok(())
    }

    /// The columns of the definition that MySQL does not compute.
    async fn written(&mut self, table: &TableDef) -> Result<Written, MysqlError> {
        if !self.known.contains_key(&table.name) {
            let select = "SELECT COLUMN_NAME, GENERATION_EXPRESSION <> '' FROM information_schema.COLUMNS \
                          WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
            let params = vec![Raw::from(table.name.database.as_str()), Raw::from(table.name.table.as_str())];
            let found: Vec<(String, bool)> =
                self.ask("reading the columns of a table", select, params).await?;
            let lowercase = found.into_iter().map(|(name, generated)| (name.to_lowercase(), generated));
            self.known.insert(table.name.clone(), lowercase.collect());
        }
        let known = &self.known[&table.name];
        let is_generated =
            |&i: &usize| known.get(&table.columns[i].name.to_lowercase()).copied().unwrap_or(false);
        let columns: Vec<usize> = (0..table.columns.len()).filter(|i| !is_generated(i)).collect();
        let stored = known.values().filter(|generated| !**generated).count();
        Ok(Written { all: columns.len() == stored, columns })
    }

    /// Which of these keys are there, as [`hashed`]. Locks their rows.
    async fn lock(&mut self, table: &TableDef, keys: &[Vec<Value>]) -> Result<HashSet<String>, MysqlError> {
        let columns: Vec<_> = table.primary_key.iter().map(|&i| &table.columns[i]).collect();
        let (mut there, mut from) = (HashSet::new(), 0);
        for size in sql::sizes(keys.len(), columns.len(), PARAMETERS) {
            let mut params = Vec::with_capacity(size * columns.len());
            for key in &keys[from..from + size] {
                params.extend(key_parameters(table, key)?);
            }
            from += size;
            let select = sql::lock(table, size);
            let found = select_rows(
                &mut self.conn,
                &self.server,
                STATEMENT_TIMEOUT,
                &table.name,
                &columns,
                &select,
                params,
            );
            there.extend(found.await?.iter().map(hashed));
        }
        Ok(there)
    }

    /// Deletes the rows of these keys. A row whose key MySQL only takes for the same, by its collation, stays. Returns how many
    /// rows there were.
    ///
    /// # Errors
    /// As for [`Self::put`].
    pub async fn delete(&mut self, table: &TableDef, keys: &[Vec<Value>]) -> Result<Deleted, MysqlError> {
        let there = self.lock(table, keys).await?;
        let keys: Vec<&Vec<Value>> = keys.iter().filter(|key| there.contains(&hashed(key))).collect();
        let mut from = 0;
        for size in sql::sizes(keys.len(), table.primary_key.len(), PARAMETERS) {
            let mut params = Vec::with_capacity(size * table.primary_key.len());
            for &key in &keys[from..from + size] {
                params.extend(key_parameters(table, key)?);
            }
            from += size;
            self.run(&format!("deleting rows of {}", table.name), &sql::delete(table, size), params).await?;
        }
        Ok(Deleted { rows: keys.len(), others: there.len() - keys.len() })
    }

    /// Keeps the versions of rows, and up to where the log is applied.
    ///
    /// # Errors
    /// As for [`Self::kept`].
    pub async fn keep(
        &mut self,
        versions: &[KeptVersion],
        offsets: &[PartitionOffset],
    ) -> Result<(), MysqlError> {
        let mut from = 0;
        for size in sql::sizes(versions.len(), 3, PARAMETERS) {
            let replace =
                format!("REPLACE INTO {} VALUES {}", self.versions, vec!["(?, ?, ?)"; size].join(", "));
            let some = versions[from..from + size].iter();
            from += size;
            let params = some
                .flat_map(|kept| {
                    [Raw::from(&kept.row[..]), Raw::from(kept.epoch.0), Raw::from(kept.version.0)]
                })
                .collect();
            self.run("keeping reverse's versions", &replace, params).await?;
        }
        for offset in offsets {
            // A process that has lost a partition may write later than the one that has it now.
            let replace = format!(
                "INSERT INTO {} VALUES (?, ?, ?) AS new ON DUPLICATE KEY UPDATE next_offset = GREATEST({0}.next_offset, \
                 new.next_offset)",
                self.offsets
            );
            let params =
                vec![Raw::from(offset.topic.as_str()), Raw::from(offset.partition), Raw::from(offset.next)];
            self.run("keeping reverse's offsets", &replace, params).await?;
        }
        Ok(())
    }

    /// Asks the server for nothing. A session that only waits would not notice that its server is gone.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn ping(&mut self) -> Result<(), MysqlError> {
        self.run("asking whether it is there", "DO 1", Vec::new()).await
    }

    /// Commits the transaction. After an error its outcome is unknown: the versions and the offsets tell.
    ///
    /// # Errors
    /// The connection is lost, or MySQL refuses the transaction.
    pub async fn commit(&mut self) -> Result<(), MysqlError> {
        self.run("committing", "COMMIT", Vec::new()).await
    }

    /// Rolls the transaction back.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn roll_back(&mut self) -> Result<(), MysqlError> {
        self.run("rolling back", "ROLLBACK", Vec::new()).await
    }

    async fn run(&mut self, doing: &str, sql: &str, params: Vec<Raw>) -> Result<(), MysqlError> {
        if params.is_empty() {
            let question = self.conn.query_drop(sql);
            return self.server.answer(STATEMENT_TIMEOUT, doing, question).await;
        }
        let question = self.conn.exec_drop(sql, params);
        let answer = self.server.answer(STATEMENT_TIMEOUT, doing, question).await;
        if let Err(MysqlError::Server { .. }) = answer {
            self.forget(doing, sql).await;
        }
        answer
    }

    /// Has the statement prepared anew at its next use. A prepared statement keeps the collations that its
    /// parameters had when MySQL prepared it, through an `ALTER TABLE … CONVERT TO CHARACTER SET`, and MySQL
    /// would refuse the same value for as long as the session lasts (error 3988).
    async fn forget(&mut self, doing: &str, sql: &str) {
        let closed = async {
            // The driver finds the statement in its cache: only the close goes to the server.
            let statement = self.conn.prep(sql).await?;
            self.conn.close(statement).await
        };
        // A lost connection is told by the next statement. It has nothing to forget.
        let _ = self.server.answer(STATEMENT_TIMEOUT, doing, closed).await;
    }

    async fn ask<T: FromRow + Send + 'static>(
        &mut self,
        doing: &str,
        sql: &str,
        params: Vec<Raw>,
    ) -> Result<Vec<T>, MysqlError> {
        let params = if params.is_empty() { mysql_async::Params::Empty } else { params.into() };
        let question = self.conn.exec(sql, params);
        self.server.answer(STATEMENT_TIMEOUT, doing, question).await
    }
}

/// The bytes of parameters in a packet, at most.
fn packet_size(params: &[Raw]) -> usize {
    params.iter().map(|param| 16 + if let Raw::Bytes(bytes) = param { bytes.len() } else { 0 }).sum()
}

/// A key as the element of a set. Values have no hash of their own.
fn hashed(key: &Vec<Value>) -> String {
    format!("{key:?}")
}
