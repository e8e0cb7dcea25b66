//! Prints Cassandra's serialised values in readable form.

use std::fmt::Write as _;

use tandem_model::{CqlType, Decimal};

/// A serialised value as text, for events and reports. Blobs, and bytes that are not a value of the type, are
/// printed in hexadecimal.
pub fn printable(ty: CqlType, bytes: &[u8]) -> String {
    let integer = || -> Option<i64> {
        Some(match ty {
            CqlType::Tinyint => i64::from(i8::from_be_bytes(bytes.try_into().ok()?)),
            CqlType::Smallint => i64::from(i16::from_be_bytes(bytes.try_into().ok()?)),
            CqlType::Int => i64::from(i32::from_be_bytes(bytes.try_into().ok()?)),
            CqlType::Bigint | CqlType::Timestamp => i64::from_be_bytes(bytes.try_into().ok()?),
            CqlType::Date => i64::from(u32::from_be_bytes(bytes.try_into().ok()?)) - (1 << 31),
            _ => return None,
        })
    };
    let text = match ty {
        CqlType::Text => std::str::from_utf8(bytes).ok().map(ToOwned::to_owned),
        CqlType::Varint => Some(Decimal::from_be_bytes(bytes, 0).to_string()),
        CqlType::Decimal => bytes.split_first_chunk::<4>().and_then(|(scale, unscaled)| {
            let scale = u32::try_from(i32::from_be_bytes(*scale)).ok().filter(|s| *s <= 1000)?;
            Some(Decimal::from_be_bytes(unscaled, scale).to_string())
        }),
        CqlType::Float => bytes.try_into().ok().map(|b| f32::from_be_bytes(b).to_string()),
        CqlType::Double => bytes.try_into().ok().map(|b| f64::from_be_bytes(b).to_string()),
        _ => integer().map(|n| n.to_string()),
    };
    text.unwrap_or_else(|| {
        bytes.iter().fold("0x".to_owned(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    })
}

pub(crate) fn quoted_names(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_invalid_bytes_are_printed() {
        for (ty, bytes, text) in [
            (CqlType::Int, &[0xff, 0xff, 0xff, 0xfe][..], "-2"),
            (CqlType::Bigint, &[0, 0, 0, 0, 0, 0, 1, 0], "256"),
            (CqlType::Text, "é".as_bytes(), "é"),
            (CqlType::Decimal, &[0, 0, 0, 2, 0xfb, 0x2e], "-12.34"),
            (CqlType::Varint, &[], "0"),
            (CqlType::Tinyint, &[0xff], "-1"),
            (CqlType::Smallint, &[1, 0], "256"),
            (CqlType::Float, &[0x3f, 0xc0, 0, 0], "1.5"),
            (CqlType::Double, &[0xbf, 0xf8, 0, 0, 0, 0, 0, 0], "-1.5"),
            (CqlType::Date, &[0x80, 0, 0, 5], "5"),
            (CqlType::Date, &[0x7f, 0xff, 0xff, 0xff], "-1"),
            (CqlType::Blob, &[0xca, 0xfe], "0xcafe"),
            (CqlType::Int, &[1], "0x01"),
            (CqlType::Decimal, &[0xff, 0xff, 0xff, 0xff, 1], "0xffffffff01"),
        ] {
            assert_eq!(printable(ty, bytes), text);
        }
    }
}
