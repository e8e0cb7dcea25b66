//! The stream's decoder by itself: over events that lie in memory.

use std::fmt;

use tandem_model::TableName;

use crate::bytes::{Cursor, Fault, Problem};
use crate::charset::Collations;
use crate::machine::{Header, Machine};
use crate::{BinlogError, BinlogEvent, ExcludedColumns};

/// What [`BinlogStream`](crate::BinlogStream) does with each event, without a server: for
/// measurements, and for tests with damaged events.
pub struct EventDecoder {
    machine: Machine,
}

impl fmt::Debug for EventDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventDecoder").field("at", self.machine.position()).finish_non_exhaustive()
    }
}

impl EventDecoder {
    /// `collations` are pairs of a collation's id and the name of its character set, as
    /// `information_schema.COLLATIONS` has them. Rows come only of tables that are `wanted`.
    pub fn new(
        collations: impl IntoIterator<Item = (u64, String)>,
        wanted: impl Fn(&TableName) -> bool + Send + 'static,
    ) -> Self {
        let (collations, excluded) = (Collations::new(collations), ExcludedColumns::default());
        Self { machine: Machine::new(Box::new(wanted), excluded, collations) }
    }

    /// Takes the next event: its header of 19 bytes (`Log_event_header`) and its body, without a
    /// checksum.
    pub fn feed(&mut self, event: &[u8]) -> Result<Option<BinlogEvent>, BinlogError> {
        match split(event) {
            Ok((header, body)) => self.machine.feed(&header, body),
            Err(problem) => Err(self.machine.error(0, Fault::Malformed(problem))),
        }
    }

    /// What else the event fed last holds, where it is a compressed transaction: to be asked until there is
    /// nothing more.
    pub fn more(&mut self) -> Result<Option<BinlogEvent>, BinlogError> {
        self.machine.more()
    }
}

fn split(event: &[u8]) -> Result<(Header, &[u8]), Problem> {
    let mut cursor = Cursor::new(event);
    // The event's size is that of the slice.
    let (header, _) = Header::read(&mut cursor)?;
    Ok((header, cursor.rest()))
}
