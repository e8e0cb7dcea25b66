//! Damaged real events. Each yields rows that can be decoded, or an error with its position, and never a
//! panic.
//!
//! The events are the seeds of `fuzz/`, recorded by `cargo xtask seeds`.

#![allow(clippy::unwrap_used)] // helpers of tests may panic as tests do

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tandem_binlog::{BinlogEvent, DecodeError, EventDecoder};

const FILE: &str = "binlog.000042";

/// The events of each seed.
fn seeds() -> Vec<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/seeds/events");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| split(&fs::read(path).unwrap())).collect()
}

fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let size = u32::from_le_bytes(*bytes[9..].first_chunk().unwrap()) as usize;
        let (event, rest) = bytes.split_at(size);
        out.push(event.to_vec());
        bytes = rest;
    }
    out
}

/// A decoder that knows its binlog file.
fn decoder() -> EventDecoder {
    let collations = [
        (8, "latin1"),
        (11, "ascii"),
        (12, "ujis"),
        (13, "sjis"),
        (54, "utf16"),
        (63, "binary"),
        (248, "gb18030"),
        (255, "utf8mb4"),
    ];
    let mut decoder = EventDecoder::new(collations.map(|(id, name)| (id, name.to_owned())), |_| true);
    let rotate = [&[0, 0, 0, 0, 4][..], &[0; 14], &4u64.to_le_bytes(), FILE.as_bytes()].concat();
    assert!(matches!(decoder.feed(&rotate), Ok(Some(BinlogEvent::Idle { .. }))));
    decoder
}

/// Feeds events up to the first error, and returns the rows in them.
fn feed<'a>(events: impl IntoIterator<Item = &'a [u8]>) -> (usize, Result<(), DecodeError>) {
    let (mut decoder, mut rows) = (decoder(), 0);
    for event in events {
        match decoder.feed(event) {
            Ok(Some(BinlogEvent::Rows(event))) => {
                for image in event.rows().flat_map(|(before, after)| [before, after]).flatten() {
                    let row = image.decode(&event.table).expect("what is written can be read");
                    assert_eq!(row.len(), event.table.columns.len());
                }
                rows += event.rows().count();
            }
            Ok(_) => {}
            Err(error) => return (rows, Err(error)),
        }
    }
    (rows, Ok(()))
}

fn judge(outcome: Result<(), DecodeError>) -> bool {
    match outcome {
        Ok(()) => false,
        Err(error) => {
            assert!(error.to_string().contains("binlog"), "{error}");
            assert!(error.to_string().contains(':'), "{error}");
            true
        }
    }
}

#[test]
fn intact_events_are_decoded() {
    let seeds = seeds();
    assert!(seeds.len() >= 10, "only {} seeds", seeds.len());
    for (number, events) in seeds.iter().enumerate() {
        let (rows, outcome) = feed(events.iter().map(Vec::as_slice));
        outcome.unwrap();
        assert!(rows > 0, "seed {number}");
    }
}

/// Every event of every seed, truncated at every offset.
#[test]
fn truncated_events_are_errors_with_a_position() {
    let (mut cuts, mut errors) = (0, 0);
    for events in seeds() {
        for (number, event) in events.iter().enumerate() {
            for end in 0..event.len() {
                let before = events[..number].iter().map(Vec::as_slice);
                let (_, outcome) = feed(before.chain([&event[..end]]));
                // A rows event may end between rows, and a statement's text may end anywhere.
                let rows_or_map = matches!(event[4], 19 | 30..=32);
                if let Err(error) = &outcome {
                    assert!(error.to_string().contains(FILE), "{error}");
                }
                if rows_or_map {
                    cuts += 1;
                    errors += usize::from(judge(outcome));
                }
            }
        }
    }
    assert!(errors * 100 > cuts * 98, "only {errors} of {cuts} cuts were noticed");
}

/// Random bytes at random offsets of the events that hold tables and rows.
#[test]
fn damaged_events_are_decoded_or_errors() {
    let seconds = if std::env::var_os("TANDEM_TEST_FULL").is_some() { 120 } else { 3 };
    let (seeds, began) = (seeds(), Instant::now());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut tried, mut errors) = (0u64, 0u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        for events in &seeds {
            let mut events = events.clone();
            for _ in 0..=random.below(3) {
                let number = random.below(events.len());
                let event = &mut events[number];
                if !matches!(event[4], 19 | 30..=32) {
                    continue;
                }
                // The header stays intact: the checksum and the stream's framing protect it.
                let at = 19 + random.below(event.len() - 19);
                match random.below(4) {
                    0 => event.truncate(at),
                    1 => event.insert(at, random.next() as u8),
                    2 => drop(event.remove(at)),
                    _ => event[at] = [0, 1, 0x7f, 0x80, 0xff, random.next() as u8][random.below(6)],
                }
                if event.len() < 20 {
                    break;
                }
            }
            tried += 1;
            errors += u64::from(judge(feed(events.iter().map(Vec::as_slice)).1));
        }
    }
    assert!(errors > tried / 10, "of {tried} damaged transactions only {errors} were noticed");
}

/// xorshift64*. Every run makes the same damage, up to its time limit.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
