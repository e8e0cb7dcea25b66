//! The decoder: raw events in, binlog events out.

use std::fmt;

use bytes::Bytes;
use tandem_model::{BinlogPosition, TableName};

use crate::cursor::{Cursor, Fault, Malformed};
use crate::event::header::{Checksums, EventHeader, PAYLOAD};
use crate::event::parser::EventParser;
use crate::types::charset::Collations;
use crate::{BinlogEvent, DecodeError, ExcludedColumns};

/// Decodes a binlog, event by event, in the binlog's order.
///
/// A compressed transaction is one raw event that holds many: after each event ask [`more`](Self::more)
/// until it gives nothing.
pub struct EventDecoder {
    parser: EventParser,
    checksums: Checksums,
}

impl fmt::Debug for EventDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventDecoder").field("at", self.position()).finish_non_exhaustive()
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
        Self {
            parser: EventParser::new(Box::new(wanted), excluded, collations),
            checksums: Checksums { expected: false },
        }
    }

    /// Leaves these columns out of every row and every definition.
    #[must_use]
    pub fn excluding(mut self, columns: ExcludedColumns) -> Self {
        self.parser.exclude(columns);
        self
    }

    /// Whether the server's events end in a CRC32 (`@@binlog_checksum`), until a format description event
    /// says otherwise.
    #[must_use]
    pub fn with_checksums(mut self, expected: bool) -> Self {
        self.checksums.expected = expected;
        self
    }

    /// Where the last event ended.
    pub fn position(&self) -> &BinlogPosition {
        self.parser.position()
    }

    /// Takes the next event as the server sent it, with its header and, where the server writes them, its
    /// checksum.
    ///
    /// # Errors
    /// The event is damaged, not understood, or cannot be carried.
    pub fn receive(&mut self, event: &Bytes) -> Result<Option<BinlogEvent>, DecodeError> {
        match self.checksums.open(event) {
            Ok((header, body)) if header.kind == PAYLOAD => self.parser.feed_payload(&header, &body),
            Ok((header, body)) => self.parser.feed(&header, &body),
            // The kind is the fifth byte of the header.
            Err(malformed) => {
                let kind = event.get(4).copied().unwrap_or_default();
                Err(self.parser.error(kind, Fault::Malformed(malformed)))
            }
        }
    }

    /// Takes the next event without a checksum: its header of 19 bytes (`Log_event_header`) and its body.
    /// The header's size does not count; the slice's does.
    ///
    /// # Errors
    /// The event is damaged, not understood, or cannot be carried.
    pub fn feed(&mut self, event: &[u8]) -> Result<Option<BinlogEvent>, DecodeError> {
        match split(event) {
            Ok((header, body)) => self.parser.feed(&header, body),
            Err(malformed) => Err(self.parser.error(0, Fault::Malformed(malformed))),
        }
    }

    /// What else the last event holds, where it is a compressed transaction.
    ///
    /// # Errors
    /// The compressed transaction is damaged, or holds an event that cannot be carried.
    pub fn more(&mut self) -> Result<Option<BinlogEvent>, DecodeError> {
        self.parser.more()
    }
}

fn split(event: &[u8]) -> Result<(EventHeader, &[u8]), Malformed> {
    let mut cursor = Cursor::new(event);
    let (header, _) = EventHeader::read(&mut cursor)?;
    Ok((header, cursor.rest()))
}
