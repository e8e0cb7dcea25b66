//! What the binlog stream yields.

use std::sync::Arc;

use tandem_model::{BinlogPosition, Gtid, TableDef, TableName};
use tandem_wire::{Image, Images};

pub(crate) mod header;
pub(crate) mod parser;
mod payload;
mod statement;
mod transaction;

/// The locale that gateways set in their sessions, `en_ZW` by its number (`sql_locale.cc`).
///
/// The number stands in the BEGIN of each of a session's transactions, also where a trigger changes the
/// first row. It takes no privilege and three bytes; its names of days and months are those of every
/// English locale. An application that sets the same locale is taken for a gateway.
pub const GATEWAY_LOCALE: u64 = 80;

/// One thing that happened in the binlog.
#[derive(Debug, Clone, PartialEq)]
pub enum BinlogEvent {
    /// A transaction begins.
    Begin {
        /// Its GTID.
        gtid: Gtid,
        /// When it committed on the server that executed it first, microseconds since the epoch.
        commit_us: i64,
        /// That server.
        server_id: u32,
        /// The xid of an XA transaction, as MySQL writes it: `X'67',X'62',1`. Its rows may not be told before
        /// it is known what becomes of it: by `Commit` where it was committed in one phase, else by
        /// `Prepared` and then, as a transaction of its own, by `Decided`.
        xa: Option<String>,
        /// Whether a gateway's session ran it: they set [`GATEWAY_LOCALE`].
        by_gateway: bool,
    },
    /// Rows of a wanted table changed.
    Rows(RowsEvent),
    /// The transaction is complete.
    Commit {
        /// Where it ends.
        position: BinlogPosition,
    },
    /// The XA transaction is prepared: complete, and neither committed nor rolled back.
    Prepared {
        /// Where it ends.
        position: BinlogPosition,
    },
    /// `XA COMMIT` or `XA ROLLBACK` of a prepared transaction: a transaction of its own, without
    /// `Begin` and `Commit`.
    Decided {
        /// Its GTID.
        gtid: Gtid,
        /// When it committed on the server that executed it first, microseconds since the epoch.
        commit_us: i64,
        /// That server.
        server_id: u32,
        /// The prepared transaction, by the xid of its `Begin`.
        xid: String,
        /// Whether it was committed.
        committed: bool,
        /// Where this transaction ends.
        position: BinlogPosition,
    },
    /// A statement that is a whole transaction of its own: DDL and administration. No `Begin` and
    /// no `Commit` surround it.
    Statement {
        /// Its GTID.
        gtid: Gtid,
        /// When it committed on the server that executed it first, microseconds since the epoch.
        commit_us: i64,
        /// The default database when it ran; may be empty. For `DropDatabase`, the one dropped.
        database: String,
        /// The statement as the server logged it.
        sql: String,
        /// What it does.
        kind: StatementKind,
        /// The tables that it names, for `Truncate`, `Drop`, `Rename` (old and new names), `Alter`
        /// and `Create`; empty for the others.
        tables: Vec<TableName>,
        /// Where it ends.
        position: BinlogPosition,
    },
    /// The position moved outside a transaction: a heartbeat, a new file.
    Idle {
        /// Where the stream is.
        position: BinlogPosition,
    },
}

/// The rows of one binlog event.
#[derive(Debug, Clone, PartialEq)]
pub struct RowsEvent {
    /// The table as it was. Identical definitions come as the same `Arc`.
    pub table: Arc<TableDef>,
    /// What happened to the rows.
    pub kind: RowsKind,
    /// The row images as Avro: one for each row, or, of updates, the image before and the image
    /// after.
    pub images: Images,
    /// Where the event ends, in bytes.
    pub end: u64,
    /// The file it is in.
    pub file: Arc<str>,
}

impl RowsEvent {
    /// For each row the image before and the image after, each where there is one.
    pub fn rows(&self) -> impl Iterator<Item = (Option<Image<'_>>, Option<Image<'_>>)> {
        let mut images = self.images.iter();
        std::iter::from_fn(move || {
            let first = images.next()?;
            Some(match self.kind {
                RowsKind::Write => (None, Some(first)),
                RowsKind::Update => (Some(first), images.next()),
                RowsKind::Delete => (Some(first), None),
            })
        })
    }
}

/// What happened to the rows of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsKind {
    /// Inserted: only images after.
    Write,
    /// Updated: both images.
    Update,
    /// Deleted: only images before.
    Delete,
}

/// What a statement does, told by its first words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// `TRUNCATE`.
    Truncate,
    /// `DROP TABLE` (never of temporary tables).
    Drop,
    /// `DROP DATABASE`.
    DropDatabase,
    /// `RENAME TABLE`, and `ALTER TABLE … RENAME`.
    Rename,
    /// `ALTER TABLE`.
    Alter,
    /// `CREATE TABLE` (never of temporary tables).
    Create,
    /// Changes rows without row images. The stream stops at such a statement with an error, so it
    /// is never part of an event.
    DataChange,
    /// Anything else: views, indexes, accounts, …
    Other,
}

impl StatementKind {
    /// The statement's first words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncate => "TRUNCATE",
            Self::Drop => "DROP TABLE",
            Self::DropDatabase => "DROP DATABASE",
            Self::Rename => "RENAME TABLE",
            Self::Alter => "ALTER TABLE",
            Self::Create => "CREATE TABLE",
            Self::DataChange => "a change of rows",
            Self::Other => "other",
        }
    }
}
