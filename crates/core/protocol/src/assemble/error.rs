//! Why binlog events cannot be turned into records.

use tandem_model::{BinlogPosition, Disposition, FollowUp, Gtid, Remedy, TableName};
use tandem_wire::WireError;

/// Why capture cannot continue at a binlog position.
///
/// A restart reads the same event again. Where the event concerns some tables only, capture goes on without them
/// ([`AssembleError::tables`]).
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// An envelope cannot be encoded.
    #[error("{table} at {position}: {source}")]
    Encode {
        /// The table.
        table: TableName,
        /// The binlog position.
        position: BinlogPosition,
        /// The reason.
        source: WireError,
    },
    /// A statement removed rows of mapped tables, or the tables themselves, without row changes.
    #[error(
        "`{kind}` on {} in transaction {gtid} at {position} cannot be carried to Cassandra: \
         the rows there are left as they were",
        names(.tables)
    )]
    TablesGone {
        /// TRUNCATE, DROP or RENAME.
        kind: &'static str,
        /// The mapped tables.
        tables: Vec<TableName>,
        /// The transaction.
        gtid: Gtid,
        /// The end of the statement's event.
        position: BinlogPosition,
    },
    /// The binlog holds rows of a table without a primary key.
    #[error("{table} at {position} has no primary key (any more)")]
    NoPrimaryKey {
        /// The table.
        table: TableName,
        /// The binlog position.
        position: BinlogPosition,
    },
    /// MySQL's clock is too far ahead of this machine's.
    #[error(
        "transaction {gtid} was committed {ahead_s} s ahead of this machine's clock. Its time would raise every \
         later version. Set the clocks right (or raise capture.max_clock_ahead_seconds) and start again"
    )]
    ClockAhead {
        /// The transaction.
        gtid: Gtid,
        /// How far ahead, in seconds.
        ahead_s: i64,
    },
    /// The next transaction is not the one that the last watermark published in part.
    #[error(
        "the last watermark lies inside transaction {partial}, but the server's next one is {found}: this server has \
         lost transactions that were already published. Point mysql.url at the server that has them"
    )]
    PartialMissing {
        /// The partially published transaction.
        partial: Gtid,
        /// The transaction that came instead.
        found: Gtid,
    },
    /// An XA COMMIT of a transaction that was prepared before the log began.
    #[error(
        "XA COMMIT {xid} in transaction {gtid} at {position} commits rows that were prepared before this log \
         began, so they are not on it"
    )]
    NotPrepared {
        /// The transaction's xid.
        xid: String,
        /// The GTID of the XA COMMIT.
        gtid: Gtid,
        /// The end of the XA COMMIT.
        position: BinlogPosition,
    },
    /// The events came in an order that no binlog has.
    #[error(
        "unexpected event at {0}: a row or an end of a transaction outside of one, or a transaction inside one"
    )]
    OutOfOrder(BinlogPosition),
}

fn names(tables: &[TableName]) -> String {
    tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl AssembleError {
    /// The tables that the error concerns, with a short name of the reason, if it concerns no others: without these tables
    /// capture can continue. Nothing of the event is on the log.
    pub fn tables(&self) -> Option<(&[TableName], &'static str)> {
        match self {
            Self::TablesGone { kind, tables, .. } => Some((tables, kind)),
            Self::NoPrimaryKey { table, .. } => Some((std::slice::from_ref(table), "no-primary-key")),
            Self::Encode { table, .. } => Some((std::slice::from_ref(table), "cannot-be-encoded")),
            Self::ClockAhead { .. }
            | Self::PartialMissing { .. }
            | Self::NotPrepared { .. }
            | Self::OutOfOrder(_) => None,
        }
    }

    /// What the caller does next. None of these is retried.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Encode { source, .. } => source.retry(),
            Self::TablesGone { .. }
            | Self::NoPrimaryKey { .. }
            | Self::ClockAhead { .. }
            | Self::PartialMissing { .. }
            | Self::NotPrepared { .. }
            | Self::OutOfOrder(_) => Disposition::Stop,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::TablesGone { .. } => {
                Some(Remedy::from(FollowUp::RebuildTable).or("take the table out of tandem.toml"))
            }
            Self::NoPrimaryKey { .. } => {
                Some(Remedy::new("ALTER TABLE … ADD PRIMARY KEY").then(FollowUp::RebuildTable))
            }
            Self::NotPrepared { .. } => Some(
                Remedy::new(
                    "wait until XA RECOVER shows no transaction (GRANT XA_RECOVER_ADMIN lets capture wait for that)",
                )
                .then(FollowUp::Resnapshot),
            ),
            Self::Encode { .. }
            | Self::ClockAhead { .. }
            | Self::PartialMissing { .. }
            | Self::OutOfOrder(_) => None,
        }
    }
}
