//! Reading ahead: events are read and decoded on a task of their own, and handed over in chunks, so
//! that decoding and encoding use two cores and a hand-over is paid for many events.

use std::sync::Arc;

use tandem_binlog::BinlogEvent;
use tandem_mysql::{BinlogError, BinlogStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::CaptureError;

/// Events in a chunk, at most. It ends earlier when no further event has arrived.
const CHUNK_EVENTS: usize = 512;

/// A chunk ends with the event that brings it to so many bytes.
const CHUNK_BYTES: usize = 128 << 10;

/// What may wait to be taken, in KiB. An event that is larger by itself waits until it is alone.
const AHEAD_KIB: usize = 4 << 10;

/// About what an event takes besides its row images, in bytes.
const EVENT: usize = 256;

/// Decoded events, and the room that they take from [`AHEAD_KIB`] until the last is taken.
struct Chunk {
    events: std::vec::IntoIter<BinlogEvent>,
    _room: OwnedSemaphorePermit,
}

/// A binlog stream that is read ahead.
pub(crate) struct Prefetch {
    chunks: mpsc::UnboundedReceiver<Result<Chunk, BinlogError>>,
    chunk: Option<Chunk>,
}

impl Prefetch {
    /// Begins to read. The task ends with this, or after the first error, which it hands over.
    pub(crate) fn of(stream: BinlogStream) -> Self {
        let (sender, chunks) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            tokio::select! {
                // Nobody hears of an error if nobody reads any more.
                error = read(stream, &sender) => { let _ = sender.send(Err(error)); }
                () = sender.closed() => {}
            }
        });
        Self { chunks, chunk: None }
    }

    /// The next event, if it is in the chunk at hand.
    pub(crate) fn take(&mut self) -> Option<BinlogEvent> {
        let event = self.chunk.as_mut()?.events.next();
        if event.is_none() {
            self.chunk = None;
        }
        event
    }

    /// Waits for the next chunk; returns at once while one is at hand. Cancelling it loses nothing.
    pub(crate) async fn ready(&mut self) -> Result<(), CaptureError> {
        if self.chunk.is_none() {
            self.chunk = Some(self.chunks.recv().await.ok_or(CaptureError::StreamEnded)??);
        }
        Ok(())
    }

    /// Whether all that was read has been taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunk.is_none() && self.chunks.is_empty()
    }
}

/// Reads until something fails.
async fn read(
    mut stream: BinlogStream,
    chunks: &mpsc::UnboundedSender<Result<Chunk, BinlogError>>,
) -> BinlogError {
    let space = Arc::new(Semaphore::new(AHEAD_KIB));
    loop {
        let (events, error) = gather(&mut stream).await;
        let bytes: usize = events.iter().map(size).sum();
        let kib = bytes.div_ceil(1024).min(AHEAD_KIB) as u32;
        let room = Arc::clone(&space).acquire_many_owned(kib).await.expect("nobody closes this semaphore");
        let _ = chunks.send(Ok(Chunk { events: events.into_iter(), _room: room }));
        if let Some(error) = error {
            return error;
        }
    }
}

/// Waits for an event, and takes those that have arrived already.
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
    EVENT + if let BinlogEvent::Rows(rows) = event { rows.images.bytes() } else { 0 }
}
