//! The event decoder: raw events in, binlog events out.

use std::fmt;

use bytes::Bytes;
use tandem_model::{BinlogPosition, NameCase, TableName};

use crate::cursor::{Cursor, Fault, Malformed};
use crate::event::header::{Checksums, EventHeader, PAYLOAD};
use crate::event::parser::EventParser;
use crate::types::charset::Collations;
use crate::{BinlogEvent, DecodeError, ExcludedColumns};

/// Decodes a binlog, event by event, in the binlog's order.
///
/// A compressed transaction is one raw event that holds many events. So after each raw event, call
/// [`more`](Self::more) until it returns `None`.
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
    /// Creates a decoder for the tables that `wanted` selects. Rows of other tables are skipped.
    ///
    /// `collations` are pairs of a collation's id and the name of its character set, from
    /// `information_schema.COLLATIONS`.
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

    /// Excludes these columns from every row and every definition.
    #[must_use]
    pub fn excluding(mut self, columns: ExcludedColumns) -> Self {
        self.parser.exclude(columns);
        self
    }

    /// Sets how the server compares names. The names of statements are folded accordingly. By default they stay as
    /// they were typed.
    #[must_use]
    pub fn comparing_names(mut self, names: NameCase) -> Self {
        self.parser.compare_names(names);
        self
    }

    /// Sets whether the server's events end in a CRC32 (`@@binlog_checksum`). A format description event
    /// overrides this.
    #[must_use]
    pub fn with_checksums(mut self, expected: bool) -> Self {
        self.checksums.expected = expected;
        self
    }

    /// The end of the last event.
    pub fn position(&self) -> &BinlogPosition {
        self.parser.position()
    }

    /// Decodes the next event as the server sent it: with its header, and with a checksum if the server
    /// writes one.
    ///
    /// # Errors
    ///
    /// The event is damaged, unknown, or not supported.
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

    /// Decodes the next event without a checksum: its header of 19 bytes (`Log_event_header`) and its body.
    ///
    /// The length of the slice decides where the event ends. The size in the header is ignored.
    ///
    /// # Errors
    ///
    /// The event is damaged, unknown, or not supported.
    pub fn feed(&mut self, event: &[u8]) -> Result<Option<BinlogEvent>, DecodeError> {
        match split(event) {
            Ok((header, body)) => self.parser.feed(&header, body),
            Err(malformed) => Err(self.parser.error(0, Fault::Malformed(malformed))),
        }
    }

    /// The next event inside the last raw event, if that is a compressed transaction. `None` at its end.
    ///
    /// # Errors
    ///
    /// The compressed transaction is damaged, or it holds an event that is not supported.
    pub fn more(&mut self) -> Result<Option<BinlogEvent>, DecodeError> {
        self.parser.more()
    }
}

fn split(event: &[u8]) -> Result<(EventHeader, &[u8]), Malformed> {
    let mut cursor = Cursor::new(event);
    let (header, _) = EventHeader::read(&mut cursor)?;
    Ok((header, cursor.rest()))
}
