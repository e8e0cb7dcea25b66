//! XA transactions between their PREPARE and what becomes of them.
//!
//! MySQL logs the rows of an XA transaction when it is prepared, as a transaction with a GTID of its own, and
//! XA COMMIT or XA ROLLBACK later as another one without rows. The rows may be published only at the XA
//! COMMIT, in its place and at its time. Between the two:
//!
//! - **The checkpoint lacks the GTID of the PREPARE** until the decision is published whole: a set may have
//!   holes. So a capture that starts again is sent the prepared transaction again, before everything new,
//!   and needs no other memory. A PREPARE mints nothing and publishes nothing, so versions stay a
//!   function of the last watermark and the binlog; its rows are minted as rows of the XA COMMIT.
//! - `W.gtid ⊆ gtid_executed` is what it was: a set with a hole says less. A state that was read
//!   before the XA COMMIT has none of the rows, and one that has them was read after it, so a borrowed write
//!   stays below the rows or holds them.
//! - MySQL must not purge the file that holds the PREPARE. If it does, a restart is refused as for every
//!   purged transaction.
//! - **The rows are kept in memory** up to a limit for all prepared transactions. Of one that goes beyond it
//!   nothing is kept: its rows are read from the binlog again when it commits, by a second
//!   connection that asks for this one transaction, and flow through as those of any large transaction.
//! - An XA COMMIT of a transaction that is not known stops capture: it was prepared before the log began. A
//!   ROLLBACK of one needs nothing.

use std::collections::HashMap;

use tandem_binlog::RowsEvent;
use tandem_model::Gtid;

/// The rows of a transaction of which is not known whether it commits.
#[derive(Debug, Default)]
pub(crate) struct HeldRows {
    events: Vec<RowsEvent>,
    bytes: usize,
    /// Whether there were too many to be kept.
    spilled: bool,
}

impl HeldRows {
    /// The rows, in order; `None` where they must be read again.
    pub(crate) fn into_events(self) -> Option<Vec<RowsEvent>> {
        (!self.spilled).then_some(self.events)
    }
}

/// Everything that is prepared.
#[derive(Debug)]
pub(crate) struct PendingXa {
    by_xid: HashMap<String, (Gtid, HeldRows)>,
    bytes: usize,
    limit: usize,
}

impl PendingXa {
    /// Keeps `limit` bytes of rows at most.
    pub(crate) fn new(limit: usize) -> Self {
        Self { by_xid: HashMap::new(), bytes: 0, limit }
    }

    /// Adds rows to what is held of the transaction being read.
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

    /// Keeps a transaction that is prepared now.
    pub(crate) fn insert(&mut self, xid: String, gtid: Gtid, held: HeldRows) {
        self.bytes += held.bytes;
        // MySQL refuses an xid that is in use.
        self.by_xid.insert(xid, (gtid, held));
    }

    /// The transaction that is decided now.
    pub(crate) fn remove(&mut self, xid: &str) -> Option<(Gtid, HeldRows)> {
        let (gtid, held) = self.by_xid.remove(xid)?;
        self.bytes -= held.bytes;
        Some((gtid, held))
    }
}
