//! What the targets share: a decoder at the beginning of a file, and what must hold of what it gives.

use tandem_binlog::DecodeError;
use tandem_binlog::{BinlogEvent, EventDecoder};

const FILE: &[u8] = b"binlog.000042";

/// A decoder that knows in which file it is.
pub fn decoder() -> EventDecoder {
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
    let _ = decoder.feed(&event(4, &[&4u64.to_le_bytes()[..], FILE].concat()));
    decoder
}

/// An event with this body.
pub fn event(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut event = vec![0; 19];
    event[4] = kind;
    event[9..13].copy_from_slice(&(body.len() as u32 + 19).to_le_bytes());
    event.extend_from_slice(body);
    event
}

/// Rows that were given can be read; an error says where. Whether to go on.
pub fn judge(outcome: Result<Option<BinlogEvent>, DecodeError>) -> bool {
    match outcome {
        Ok(Some(BinlogEvent::Rows(rows))) => {
            for image in rows.rows().flat_map(|(before, after)| [before, after]).flatten() {
                let row = image.decode(&rows.table).expect("what is written can be read");
                assert_eq!(row.len(), rows.table.columns.len());
            }
            true
        }
        Ok(_) => true,
        Err(error) => {
            assert!(error.to_string().contains(':'), "the error does not say where: {error}");
            false
        }
    }
}
