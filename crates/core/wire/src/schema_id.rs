//! Schema ids that nobody has to hand out.

use crate::WireError;

/// The id of a schema: the 64-bit FNV-1a hash of its whole normalised JSON, logical types and
/// Tandem's own properties included (Avro's canonical form would drop them), its two halves folded
/// by XOR, the uppermost bit cleared (ids are signed 32-bit numbers to other tools). 0 becomes 1.
///
/// `json` must be normalised, see [`normalise`].
pub fn id_of(json: &str) -> u32 {
    let hash = json.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (((hash >> 32) ^ hash) as u32 & 0x7fff_ffff).max(1)
}

/// The same hash of any text, as progress records carry it.
pub fn fingerprint(text: &str) -> String {
    format!("{:08x}", id_of(text))
}

/// A schema's JSON without white space, its keys in the order in which they were written.
pub fn normalise(json: &str) -> Result<String, WireError> {
    let value: serde_json::Value =
        serde_json::from_str(json).map_err(|e| WireError::ForeignSchema(e.to_string()))?;
    Ok(value.to_string())
}

/// The schema id of a framed record.
pub fn schema_id(record: &[u8]) -> Result<u32, WireError> {
    match record {
        [0, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => Err(WireError::NotFramed),
    }
}

/// Starts a framed record.
pub(crate) fn put_frame(out: &mut Vec<u8>, id: u32) {
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
}

/// The Avro bytes of a record that must have been written with schema `expected`.
pub(crate) fn unframe(record: &[u8], expected: u32) -> Result<&[u8], WireError> {
    let found = schema_id(record)?;
    if found == expected { Ok(&record[5..]) } else { Err(WireError::OtherSchema { expected, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable() {
        // FNV-1a of the empty string and of "a": the published test vectors, folded.
        assert_eq!(id_of(""), (0xcbf2_9ce4 ^ 0x8422_2325) & 0x7fff_ffff);
        assert_eq!(id_of("a"), (0xaf63_dc4c ^ 0x8601_ec8c) & 0x7fff_ffff);
        assert_eq!(fingerprint("a"), "296230c0");
    }

    #[test]
    fn frames() {
        let mut record = Vec::new();
        put_frame(&mut record, 0x0102_0304);
        assert_eq!(record, [0, 1, 2, 3, 4]);
        assert_eq!(schema_id(&record).unwrap(), 0x0102_0304);
        assert!(matches!(schema_id(&record[..4]), Err(WireError::NotFramed)));
        assert!(matches!(schema_id(&[1, 0, 0, 0, 0]), Err(WireError::NotFramed)));
        assert!(matches!(unframe(&record, 7), Err(WireError::OtherSchema { .. })));
    }
}
