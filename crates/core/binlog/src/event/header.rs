//! The header before every event, and the checksum after it.

use bytes::Bytes;

use crate::cursor::{Cursor, Malformed};

/// The type code of a format description event.
const FORMAT_DESCRIPTION: u8 = 15;
/// The type code of a compressed transaction.
pub(crate) const PAYLOAD: u8 = 40;

/// The fields of an event header that the parser needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventHeader {
    pub(crate) kind: u8,
    /// Seconds since the epoch.
    pub(crate) timestamp: u32,
    pub(crate) server_id: u32,
    /// The lower 32 bits of the event's end in its file. 0 for events that exist only in the stream.
    pub(crate) log_pos: u32,
}

impl EventHeader {
    /// Reads the 19 bytes before an event (`Log_event_header`). Also returns the event's size including these
    /// bytes.
    pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<(Self, u32), Malformed> {
        let timestamp = cursor.uint(4)? as u32;
        let kind = cursor.u8()?;
        let server_id = cursor.uint(4)? as u32;
        let size = cursor.uint(4)? as u32;
        let log_pos = cursor.uint(4)? as u32;
        cursor.uint(2)?;
        Ok((Self { kind, timestamp, server_id, log_pos }, size))
    }
}

/// Splits events as a server sends them: a header, a body, and a checksum if the server writes one.
#[derive(Debug)]
pub(crate) struct Checksums {
    /// Whether events end in a checksum.
    pub(crate) expected: bool,
}

impl Checksums {
    /// Checks the checksum of an event and returns its header and body.
    pub(crate) fn open(&mut self, event: &Bytes) -> Result<(EventHeader, Bytes), Malformed> {
        let mut cursor = Cursor::new(event);
        let (header, size) = EventHeader::read(&mut cursor)?;
        if size as usize != event.len() {
            return Err(format!("it has {} bytes, but its header says {size}", event.len()));
        }
        let begin = event.len() - cursor.len();
        if header.kind == FORMAT_DESCRIPTION {
            // It tells whether the events after it have checksums. Its own checksum field is always present.
            let algorithm = event.len().checked_sub(5).and_then(|at| event.get(at));
            self.expected = *algorithm.ok_or("it is too short")? != 0;
        }
        if !self.expected {
            return Ok((header, event.slice(begin..)));
        }
        let (body, checksum) = event.split_last_chunk::<4>().ok_or("it has no checksum")?;
        if body.len() < begin || crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err("its checksum is wrong; the binlog or the connection is damaged".into());
        }
        Ok((header, event.slice(begin..body.len())))
    }
}
