//! Schema ids. They are hashes of the schemas, so no service has to assign them.

use crate::WireError;

/// The id of a schema: a hash of its normalised JSON. See [`normalise`].
///
/// It is the 64-bit FNV-1a hash of the whole JSON with its two halves combined by XOR. The highest bit is
/// cleared, because other tools treat ids as signed 32-bit numbers. 0 becomes 1.
///
/// The hash includes logical types and Tandem's own properties, which Avro's canonical form would drop.
pub fn id_of(json: &str) -> u32 {
    let hash = json.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (((hash >> 32) ^ hash) as u32 & 0x7fff_ffff).max(1)
}

/// The same hash of any text in hexadecimal, as in progress records.
pub fn fingerprint(text: &str) -> String {
    format!("{:08x}", id_of(text))
}

/// The JSON of a schema without white space, with its keys in their original order.
///
/// # Errors
///
/// The text is not JSON.
pub fn normalise(json: &str) -> Result<String, WireError> {
    let value: serde_json::Value =
        serde_json::from_str(json).map_err(|e| WireError::ForeignSchema(e.to_string()))?;
    Ok(value.to_string())
}

/// The schema id of a framed record.
///
/// # Errors
///
/// The record does not start with a frame.
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

/// The Avro bytes of a record. Its schema must be `expected`.
pub(crate) fn unframe(record: &[u8], expected: u32) -> Result<&[u8], WireError> {
    let found = schema_id(record)?;
    if found == expected { Ok(&record[5..]) } else { Err(WireError::OtherSchema { expected, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable() {
        // The published test vectors of FNV-1a for the empty string and "a", folded.
        assert_eq!(id_of(""), (0xcbf2_9ce4 ^ 0x8422_2325) & 0x7fff_ffff);
        assert_eq!(id_of("a"), (0xaf63_dc4c ^ 0x8601_ec8c) & 0x7fff_ffff);
        assert_eq!(fingerprint("a"), "296230c0");
    }

    #[test]
    fn frames_are_written_and_checked() {
        let mut record = Vec::new();
        put_frame(&mut record, 0x0102_0304);
        assert_eq!(record, [0, 1, 2, 3, 4]);
        assert_eq!(schema_id(&record).unwrap(), 0x0102_0304);
        assert!(matches!(schema_id(&record[..4]), Err(WireError::NotFramed)));
        assert!(matches!(schema_id(&[1, 0, 0, 0, 0]), Err(WireError::NotFramed)));
        assert!(matches!(unframe(&record, 7), Err(WireError::OtherSchema { .. })));
    }
}
