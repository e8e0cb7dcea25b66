//! The supported character sets, decoded to UTF-8.

use std::collections::HashMap;

use tandem_wire::cell;

use crate::cursor::Malformed;
use table::Tabled;

mod table;

/// A character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charset {
    /// utf8mb4 and utf8mb3. Both are UTF-8.
    Utf8,
    /// ascii.
    Ascii,
    /// latin1, which in MySQL is Windows-1252.
    Latin1,
    /// utf16 and ucs2, big-endian; utf16le.
    Utf16 {
        /// Whether it is little-endian.
        little: bool,
    },
    /// utf32, big-endian.
    Utf32,
    /// A character set that is decoded by a table.
    Tabled(Tabled),
    /// No character set: the column holds bytes.
    Binary,
}

/// The characters of Windows-1252 from 0x80 to 0x9f. MySQL maps its five undefined bytes to the C1 controls
/// of the same number.
const LATIN1_80_9F: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2c6}',
    '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}', '\u{90}', '\u{2018}',
    '\u{2019}', '\u{201c}', '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2dc}', '\u{2122}', '\u{161}',
    '\u{203a}', '\u{153}', '\u{9d}', '\u{17e}', '\u{178}',
];

/// Whether Tandem supports columns of this character set. `name` is MySQL's name for it.
pub fn is_supported_charset(name: &str) -> bool {
    Charset::from_name(name).is_some()
}

impl Charset {
    /// Looks a character set up by MySQL's name for it.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "utf8mb4" | "utf8mb3" | "utf8" => Self::Utf8,
            "ascii" => Self::Ascii,
            "latin1" => Self::Latin1,
            "binary" => Self::Binary,
            "utf16" | "ucs2" => Self::Utf16 { little: false },
            "utf16le" => Self::Utf16 { little: true },
            "utf32" => Self::Utf32,
            tabled => Self::Tabled(Tabled::from_name(tabled)?),
        })
    }

    /// Writes bytes of this character set as a text cell.
    pub(crate) fn put(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        match self {
            Self::Utf8 if std::str::from_utf8(bytes).is_ok() => cell::bytes(out, bytes),
            Self::Ascii | Self::Latin1 if bytes.is_ascii() => cell::bytes(out, bytes),
            _ => cell::bytes(out, self.decode(bytes)?.as_bytes()),
        }
        Ok(())
    }

    /// Decodes bytes of this character set.
    pub(crate) fn decode(self, bytes: &[u8]) -> Result<String, Malformed> {
        match self {
            Self::Utf8 | Self::Binary => std::str::from_utf8(bytes)
                .map(ToOwned::to_owned)
                .map_err(|_| "the bytes are not valid UTF-8".into()),
            Self::Ascii | Self::Latin1 if bytes.is_ascii() => Self::Utf8.decode(bytes),
            Self::Ascii => Err("the bytes are not valid ASCII".into()),
            Self::Utf16 { little } => utf16(bytes, little),
            Self::Utf32 => utf32(bytes),
            Self::Tabled(tabled) => tabled.decode(bytes),
            Self::Latin1 => Ok(bytes
                .iter()
                .map(|&b| match b {
                    0x80..=0x9f => LATIN1_80_9F[usize::from(b - 0x80)],
                    b => char::from(b),
                })
                .collect()),
        }
    }
}

fn utf16(bytes: &[u8], little: bool) -> Result<String, Malformed> {
    let (units, rest) = bytes.as_chunks();
    let units =
        units.iter().map(|unit| if little { u16::from_le_bytes(*unit) } else { u16::from_be_bytes(*unit) });
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.ok().filter(|_| rest.is_empty()).ok_or_else(|| "the bytes are not valid UTF-16".into())
}

fn utf32(bytes: &[u8]) -> Result<String, Malformed> {
    let (units, rest) = bytes.as_chunks();
    let text: Option<String> = units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit))).collect();
    text.filter(|_| rest.is_empty()).ok_or_else(|| "the bytes are not valid UTF-32".into())
}

/// The character set of each collation id, as the server lists them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collations {
    names: HashMap<u64, String>,
}

impl Collations {
    pub(crate) fn new(rows: impl IntoIterator<Item = (u64, String)>) -> Self {
        Self { names: rows.into_iter().collect() }
    }

    /// The character set of a collation id, or the name of one that is not supported.
    pub(crate) fn charset(&self, collation: u64) -> Result<Charset, String> {
        match self.names.get(&collation) {
            Some(name) => Charset::from_name(name).ok_or_else(|| name.clone()),
            None => Err(format!("of the unknown collation {collation}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf16_and_utf32_are_decoded() {
        let (big, little) = (Charset::Utf16 { little: false }, Charset::Utf16 { little: true });
        assert_eq!(big.decode(b"\0a\xd8\x3d\xde\0").unwrap(), "a😀");
        assert_eq!(little.decode(b"a\0\x3d\xd8\0\xde").unwrap(), "a😀");
        assert_eq!(Charset::Utf32.decode(b"\0\x01\xf6\0").unwrap(), "😀");
        for (charset, bytes) in [(big, &b"\0"[..]), (little, b"\0\xd8"), (Charset::Utf32, b"\0\0\xd8\0")] {
            assert!(charset.decode(bytes).is_err());
        }
        assert_eq!(Charset::from_name("martian"), None);
    }

    #[test]
    fn latin1_is_windows_1252() {
        assert_eq!(Charset::Latin1.decode(&[b'a', 0x80, 0x81, 0xe9]).unwrap(), "a\u{20ac}\u{81}é");
        assert!(Charset::Ascii.decode(&[0x80]).is_err());
        assert!(Charset::Utf8.decode(&[0xff]).is_err());
        assert_eq!(Charset::Utf8.decode("😀".as_bytes()).unwrap(), "😀");
    }
}
