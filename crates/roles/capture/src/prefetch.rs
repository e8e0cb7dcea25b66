//! Prefetch: a separate task reads and decodes events and hands them over in chunks. Decoding and encoding can then
//! use two cores, and one hand-over serves many events.

use std::sync::Arc;

use tandem_binlog::BinlogEvent;
use tandem_mysql::{BinlogError, BinlogStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::CaptureError;

/// Events in a chunk at most. A chunk ends earlier when no further event has arrived.
const CHUNK_EVENTS: usize = 512;

/// A chunk ends with the event that brings it to this many bytes.
const CHUNK_BYTES: usize = 128 << 10;

/// The prefetched events at most, in KiB. A single event that is larger waits until no other is prefetched.
const PREFETCH_KIB: usize = 4 << 10;

/// The approximate size of an event without its row images, in bytes.
const EVENT_OVERHEAD: usize = 256;

/// Decoded events. They hold a permit on [`PREFETCH_KIB`] until the last one is taken.
struct Chunk {
    events: std::vec::IntoIter<BinlogEvent>,
    _room: OwnedSemaphorePermit,
}

/// A binlog stream with prefetch.
pub(crate) struct Prefetch {
    chunks: mpsc::UnboundedReceiver<Result<Chunk, BinlogError>>,
    chunk: Option<Chunk>,
}

impl Prefetch {
    /// Starts to read. The task ends when this is dropped, or after the first error, which it hands over.
    pub(crate) fn of(stream: BinlogStream) -> Self {
        let (sender, chunks) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            tokio::select! {
                // The receiver may be gone; the error is then dropped.
                error = read(stream, &sender) => { let _ = sender.send(Err(error)); }
                () = sender.closed() => {}
            }
        });
        Self { chunks, chunk: None }
    }

    /// The next event, if the current chunk has one.
    pub(crate) fn take(&mut self) -> Option<BinlogEvent> {
        let event = self.chunk.as_mut()?.events.next();
        if event.is_none() {
            self.chunk = None;
        }
        event
    }

    /// Waits for the next chunk. Returns at once while the current chunk has events. It is safe to cancel.
    pub(crate) async fn ready(&mut self) -> Result<(), CaptureError> {
        if self.chunk.is_none() {
            self.chunk = Some(self.chunks.recv().await.ok_or(CaptureError::StreamEnded)??);
        }
        Ok(())
    }

    /// Whether every event read so far has been taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunk.is_none() && self.chunks.is_empty()
    }
}

/// Reads until something fails.
async fn read(
    mut stream: BinlogStream,
    chunks: &mpsc::UnboundedSender<Result<Chunk, BinlogError>>,
) -> BinlogError {
    let space = Arc::new(Semaphore::new(PREFETCH_KIB));
    loop {
        let (events, error) = gather(&mut stream).await;
        let bytes: usize = events.iter().map(size).sum();
        let kib = bytes.div_ceil(1024).min(PREFETCH_KIB) as u32;
        let room = Arc::clone(&space).acquire_many_owned(kib).await.expect("the semaphore is never closed");
        let _ = chunks.send(Ok(Chunk { events: events.into_iter(), _room: room }));
        if let Some(error) = error {
            return error;
        }
    }
}

/// Waits for an event, and adds those that have arrived already.
async fn gather(stream: &mut BinlogStream) -> (Vec<BinlogEvent>, Option<BinlogError>) {
    let mut events = Vec::new();
    let mut bytes = 0;
    let mut next = stream.next().await.map(Some);
    loop {
        match next {
            Ok(Some(event)) => {
                bytes += size(&event);
                events.push(event);
            }
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error)),
        }
        if events.len() >= CHUNK_EVENTS || bytes >= CHUNK_BYTES {
            return (events, None);
        }
        next = stream.try_next();
    }
}

fn size(event: &BinlogEvent) -> usize {
    EVENT_OVERHEAD + if let BinlogEvent::Rows(rows) = event { rows.images.bytes() } else { 0 }
}
