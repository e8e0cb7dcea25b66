//! Pending XA transactions: prepared, and not yet committed or rolled back.
//!
//! MySQL logs an XA transaction as two transactions. The first is written at XA PREPARE: it has a GTID of its
//! own and holds the rows. The second is written at XA COMMIT or XA ROLLBACK and has no rows. The rows may be
//! published only at the XA COMMIT, at its position and its time. Between the two:
//!
//! - **The checkpoint lacks the GTID of the PREPARE** until the decision is completely published. A GTID set
//!   may have holes. So after a restart MySQL sends the prepared transaction again, before everything new,
//!   and capture needs no other memory. A PREPARE mints nothing and publishes nothing. So versions remain a
//!   function of the last watermark and the binlog. Its rows are minted as rows of the XA COMMIT.
//! - **The borrowing rule `W.gtid ⊆ gtid_executed` still holds.** A set with a hole requires less of the
//!   server. A state read before the XA COMMIT has none of the rows; a state that has them was read after it.
//!   So a borrowed write is below the rows, or it contains them.
//! - **MySQL must not purge the file that holds the PREPARE.** If it does, a restart is refused as for every
//!   purged transaction.
//! - **The rows are kept in memory** up to one limit for all prepared transactions. A transaction that
//!   exceeds the limit is dropped from memory completely. When it commits, a replay reads its rows from the
//!   binlog again: a second connection asks for this one transaction, and its rows are published like those
//!   of any large transaction.
//! - **An XA COMMIT of an unknown transaction stops capture.** The transaction was prepared before the log
//!   began. An XA ROLLBACK of an unknown transaction needs nothing.

use std::collections::HashMap;

use tandem_binlog::RowsEvent;
use tandem_model::Gtid;

/// The rows of a transaction that may still commit or roll back.
#[derive(Debug, Default)]
pub(crate) struct HeldRows {
    events: Vec<RowsEvent>,
    bytes: usize,
    /// Whether the rows exceeded the limit and were dropped.
    spilled: bool,
}

impl HeldRows {
    /// The rows, in order. `None` if a replay must read them again.
    pub(crate) fn into_events(self) -> Option<Vec<RowsEvent>> {
        (!self.spilled).then_some(self.events)
    }
}

/// All pending XA transactions, by xid.
#[derive(Debug)]
pub(crate) struct PendingXa {
    by_xid: HashMap<String, (Gtid, HeldRows)>,
    bytes: usize,
    limit: usize,
}

impl PendingXa {
    /// Keeps at most `limit` bytes of rows.
    pub(crate) fn new(limit: usize) -> Self {
        Self { by_xid: HashMap::new(), bytes: 0, limit }
    }

    /// Adds rows to those held for the transaction being read.
    pub(crate) fn hold(&self, held: &mut HeldRows, event: RowsEvent) {
        if held.spilled {
            return;
        }
        held.bytes += event.images.bytes();
        if self.bytes + held.bytes > self.limit {
            *held = HeldRows { spilled: true, ..HeldRows::default() };
        } else {
            held.events.push(event);
        }
    }

    /// Keeps a transaction at its XA PREPARE.
    pub(crate) fn insert(&mut self, xid: String, gtid: Gtid, held: HeldRows) {
        self.bytes += held.bytes;
        // MySQL refuses an xid that is in use.
        self.by_xid.insert(xid, (gtid, held));
    }

    /// Takes out a transaction at its XA COMMIT or XA ROLLBACK.
    pub(crate) fn remove(&mut self, xid: &str) -> Option<(Gtid, HeldRows)> {
        let (gtid, held) = self.by_xid.remove(xid)?;
        self.bytes -= held.bytes;
        Some((gtid, held))
    }
}
