//! Any events, one after the other, each as long as its header says. Seeds: `cargo xtask seeds`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tandem_fuzz::{decoder, judge};

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = decoder();
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = rest.get(9..13).and_then(|s| s.first_chunk()).map_or(0, |s| u32::from_le_bytes(*s));
        let (event, left) = rest.split_at((size as usize).clamp(1, rest.len()));
        let mut outcome = decoder.feed(event);
        // A compressed transaction gives more than one.
        loop {
            if !judge(outcome) {
                return;
            }
            outcome = match decoder.more() {
                Ok(None) => break,
                more => more,
            };
        }
        rest = left;
    }
});
