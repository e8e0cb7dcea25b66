//! The events that the decoder yields.

use std::sync::Arc;

use tandem_model::{BinlogPosition, Gtid, TableDef, TableName};
use tandem_wire::{Image, Images};

pub(crate) mod header;
pub(crate) mod parser;
mod payload;
mod statement;
mod transaction;

/// The locale that gateways set in their sessions. This is the number of `en_ZW` (`sql_locale.cc`).
///
/// It marks a gateway's transactions: the BEGIN of each transaction holds the locale of its session, even if
/// a trigger changes the first row. Setting it needs no privilege and costs three bytes in the binlog. Its
/// names of days and months are those of every English locale. An application that sets the same locale
/// counts as a gateway.
pub const GATEWAY_LOCALE: u64 = 80;

/// The locale that reverse sets in its sessions, in the same way. This is the number of `en_ZA`.
pub const REVERSE_LOCALE: u64 = 79;

/// Whose session ran a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An application's, or anybody else's.
    Other,
    /// A gateway's.
    Gateway,
    /// Reverse's: the rows are those of native writes.
    Reverse,
}

impl Origin {
    /// By the locale of the session.
    pub(crate) fn of_locale(locale: u64) -> Self {
        match locale {
            GATEWAY_LOCALE => Self::Gateway,
            REVERSE_LOCALE => Self::Reverse,
            _ => Self::Other,
        }
    }
}

/// A decoded event of the binlog.
#[derive(Debug, Clone, PartialEq)]
pub enum BinlogEvent {
    /// A transaction begins.
    Begin {
        /// The transaction's GTID.
        gtid: Gtid,
        /// When it committed on the server that first executed it, in microseconds since the epoch.
        commit_us: i64,
        /// The id of that server.
        server_id: u32,
        /// The xid of an XA transaction as MySQL writes it, such as `X'67',X'62',1`.
        ///
        /// Its rows may be published only once its outcome is known. `Commit` follows if it commits in one
        /// phase. Otherwise `Prepared` follows, and later `Decided` as a transaction of its own.
        xa: Option<String>,
        /// Whose session ran the transaction.
        origin: Origin,
    },
    /// Rows of a wanted table changed.
    Rows(RowsEvent),
    /// The transaction is complete.
    Commit {
        /// The end of the transaction.
        position: BinlogPosition,
    },
    /// The XA transaction is prepared: it is complete, but neither committed nor rolled back.
    Prepared {
        /// The end of the transaction.
        position: BinlogPosition,
    },
    /// An `XA COMMIT` or `XA ROLLBACK` of a prepared transaction. It is a transaction of its own, without
    /// `Begin` and `Commit`.
    Decided {
        /// The transaction's GTID.
        gtid: Gtid,
        /// When it committed on the server that first executed it, in microseconds since the epoch.
        commit_us: i64,
        /// The id of that server.
        server_id: u32,
        /// The xid of the prepared transaction, as in its `Begin`.
        xid: String,
        /// Whether the prepared transaction was committed.
        committed: bool,
        /// The end of this transaction.
        position: BinlogPosition,
    },
    /// A statement that is a whole transaction: DDL and administration. It has no `Begin` and no `Commit`.
    Statement {
        /// The transaction's GTID.
        gtid: Gtid,
        /// When it committed on the server that first executed it, in microseconds since the epoch.
        commit_us: i64,
        /// The default database of the statement, which may be empty. For `DropDatabase`: the dropped
        /// database.
        database: String,
        /// The statement as the server logged it.
        sql: String,
        /// What it does.
        kind: StatementKind,
        /// The tables that the statement names, for `Truncate`, `Drop`, `Rename` (old and new names), `Alter`
        /// and `Create`. Empty for other kinds.
        tables: Vec<TableName>,
        /// The end of the transaction.
        position: BinlogPosition,
    },
    /// The position moved outside a transaction, by a heartbeat or a new file.
    Idle {
        /// The current position of the stream.
        position: BinlogPosition,
    },
}

/// The rows of one binlog event.
#[derive(Debug, Clone, PartialEq)]
pub struct RowsEvent {
    /// The table definition at that time. Identical definitions are the same `Arc`.
    pub table: Arc<TableDef>,
    /// What happened to the rows.
    pub kind: RowsKind,
    /// The row images as Avro: one for each row, or for updates two, the image before and the image after.
    pub images: Images,
    /// The end of the event, in bytes.
    pub end: u64,
    /// The binlog file of the event.
    pub file: Arc<str>,
}

impl RowsEvent {
    /// The image before and the image after of each row, as far as they exist.
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
    /// Inserted: only the image after.
    Write,
    /// Updated: both images.
    Update,
    /// Deleted: only the image before.
    Delete,
}

/// The kind of a statement, determined by its first words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// `TRUNCATE`.
    Truncate,
    /// `DROP TABLE`, except of temporary tables.
    Drop,
    /// `DROP DATABASE`.
    DropDatabase,
    /// `RENAME TABLE`, and `ALTER TABLE … RENAME`.
    Rename,
    /// `ALTER TABLE` that changes no stored value, as far as the statement shows: new columns, indexes, options.
    Alter,
    /// `ALTER TABLE` that may change stored values, or which column holds them, without row changes: `MODIFY`, `CHANGE`,
    /// `CONVERT TO CHARACTER SET`, `RENAME COLUMN`, `DROP COLUMN`. A column that is added again has other values.
    Rewrite,
    /// `CREATE TABLE`, except of temporary tables.
    Create,
    /// A statement that changes rows without row images. The decoder refuses it with an error, so no event
    /// has this kind.
    DataChange,
    /// Any other statement, such as one on views, indexes or accounts.
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
            Self::Alter | Self::Rewrite => "ALTER TABLE",
            Self::Create => "CREATE TABLE",
            Self::DataChange => "a change of rows",
            Self::Other => "other",
        }
    }
}
