//! Reads TRANSACTION_PAYLOAD events: the compressed events of a transaction (`Transaction_payload_event` in
//! MySQL's source). MySQL writes them with `binlog_transaction_compression=ON`.

use std::fmt;
use std::io::{BufReader, Cursor as IoCursor, Read};

use bytes::Bytes;
use tandem_model::Remedy;
use zstd::stream::read::Decoder;

use crate::cursor::{Cursor, Fault, Malformed};
use crate::event::header::EventHeader;

/// The size of an event's header in bytes.
const HEADER: usize = 19;

/// The events of a compressed transaction, decompressed one by one.
///
/// Memory holds only the compressed bytes, zstd's window and one event.
pub(crate) struct Payload {
    inflated: Inflated,
    /// The number of decompressed bytes that must still come.
    left: u64,
    event: Vec<u8>,
}

enum Inflated {
    Zstd(Box<Decoder<'static, BufReader<IoCursor<Bytes>>>>),
    Stored(IoCursor<Bytes>),
}

impl Read for Inflated {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Zstd(decoder) => decoder.read(out),
            Self::Stored(bytes) => bytes.read(out),
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Payload {
    /// Reads the fields before the compressed bytes. Each is a type, a length and a value; type 0 ends them.
    pub(crate) fn open(body: &Bytes) -> Result<Self, Fault> {
        let mut cursor = Cursor::new(body);
        let (mut compression, mut size, mut inflated_size) = (None, None, None);
        loop {
            let kind = cursor.lenenc()?;
            if kind == 0 {
                break;
            }
            let value = Cursor::new(cursor.lenenc_bytes()?).lenenc()?;
            match kind {
                1 => size = Some(value),
                2 => compression = Some(value),
                3 => inflated_size = Some(value),
                other => return Err(Fault::Malformed(format!("it has a field of the unknown type {other}"))),
            }
        }
        let begin = body.len() - cursor.len();
        if size != Some(cursor.len() as u64) {
            return Err(Fault::Malformed("its payload does not have the size that its header says".into()));
        }
        let bytes = IoCursor::new(body.slice(begin..));
        let left = inflated_size.unwrap_or_else(|| cursor.len() as u64);
        let inflated = match compression {
            Some(0) => Inflated::Zstd(Box::new(Decoder::new(bytes).map_err(|e| damaged(&e))?)),
            Some(255) => Inflated::Stored(bytes),
            _ => {
                return Err(Fault::unsupported(
                    "its compression algorithm is not known",
                    Remedy::new("use a version of Tandem that knows this version of MySQL"),
                ));
            }
        };
        Ok(Self { inflated, left, event: Vec::new() })
    }

    /// The next event, without a checksum. `None` at the end.
    ///
    /// The end must come after exactly the decompressed size that the header names.
    pub(crate) fn next(&mut self) -> Result<Option<(EventHeader, &[u8])>, Malformed> {
        if self.left == 0 {
            let more = self.inflated.read(&mut [0]).map_err(|e| damaged(&e))?;
            return if more == 0 { Ok(None) } else { Err("its payload holds more than it says".into()) };
        }
        self.read(HEADER)?;
        let (header, size) = EventHeader::read(&mut Cursor::new(&self.event))?;
        let body =
            (size as usize).checked_sub(HEADER).ok_or("an event in its payload has an impossible size")?;
        self.read(body)?;
        Ok(Some((header, &self.event)))
    }

    /// Reads `n` bytes into `event`. Memory grows only with the bytes that actually come, whatever size an
    /// event claims.
    fn read(&mut self, n: usize) -> Result<(), Malformed> {
        self.event.clear();
        let read =
            (&mut self.inflated).take(n as u64).read_to_end(&mut self.event).map_err(|e| damaged(&e))?;
        self.left = self.left.checked_sub(read as u64).ok_or("its payload holds more than it says")?;
        if read < n { Err("its payload ends too early".into()) } else { Ok(()) }
    }
}

fn damaged(error: &std::io::Error) -> Malformed {
    format!("its payload cannot be inflated: {error}")
}
