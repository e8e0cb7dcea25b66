//! A TABLE_MAP and a rows event of any bytes, within a transaction: two bytes of the map's length, the
//! map's body, a byte for the kind of rows, the rows' body. Seeds: `cargo xtask seeds`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem_fuzz::{decoder, event, judge};

const GTID: u8 = 33;
const QUERY: u8 = 2;
const TABLE_MAP: u8 = 19;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first_chunk() else { return };
    let length = usize::from(u16::from_le_bytes(*length));
    let (map, rest) = rest.split_at(length.min(rest.len()));
    let Some((kind, rows)) = rest.split_first() else { return };
    let mut decoder = decoder();
    let gtid = [&[0][..], &[7; 16], &5u64.to_le_bytes(), &[2], &[0; 16], &[7; 7]].concat();
    let begin = [&[0; 8][..], &[1, 0, 0, 0, 0], b"d\0BEGIN"].concat();
    for prepared in [event(GTID, &gtid), event(QUERY, &begin)] {
        assert!(judge(decoder.feed(&prepared)));
    }
    if judge(decoder.feed(&event(TABLE_MAP, map))) {
        judge(decoder.feed(&event(30 + kind % 3, rows)));
    }
});
