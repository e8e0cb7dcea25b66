//! Character sets that are decoded by tables. `cargo xtask charsets` extracts the tables from MySQL itself
//! and documents the format of their lines.

use std::sync::OnceLock;

use crate::cursor::Malformed;

/// Marks undefined sequences. No character set contains this noncharacter.
const NONE: u16 = 0xffff;

/// The first byte of a three-byte sequence, in the character sets that have such sequences.
const THREE: u8 = 0x8f;

macro_rules! tables {
    ($($name:literal),*) => { [$(($name, include_str!(concat!("tables/", $name, ".txt")))),*] };
}

const TEXTS: [(&str, &str); 32] = tables![
    "armscii8", "big5", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852", "cp866", "cp932", "dec8",
    "eucjpms", "euckr", "gb18030", "gb2312", "gbk", "geostd8", "greek", "hebrew", "hp8", "keybcs2", "koi8r",
    "koi8u", "latin2", "latin5", "latin7", "macce", "macroman", "sjis", "swe7", "tis620", "ujis"
];

static TABLES: [OnceLock<Table>; TEXTS.len()] = [const { OnceLock::new() }; TEXTS.len()];

/// A character set that has a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tabled(usize);

impl Tabled {
    /// Looks a character set up by MySQL's name for it.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        TEXTS.iter().position(|(known, _)| *known == name).map(Self)
    }

    /// Decodes bytes of this character set.
    pub(crate) fn decode(self, bytes: &[u8]) -> Result<String, Malformed> {
        let (name, text) = TEXTS[self.0];
        let table = TABLES[self.0].get_or_init(|| Table::read(text));
        table.decode(bytes).ok_or_else(|| format!("the bytes are not valid {name}"))
    }
}

/// The characters of sequences of one to four bytes.
struct Table {
    one: Vec<u16>,
    /// Sequences of two bytes. Empty if the character set has none.
    two: Vec<u16>,
    /// Sequences of three bytes, indexed by the last two. Empty if the character set has none.
    three: Vec<u16>,
    /// Runs of four-byte sequences: the number of the first sequence, its character, and the length of the
    /// run.
    runs: Vec<(u32, u32, u32)>,
}

impl Table {
    /// Parses a table.
    ///
    /// # Panics
    ///
    /// The text is not a valid table. The tests parse every table.
    fn read(text: &str) -> Self {
        let mut table = Self { one: vec![NONE; 0x100], two: Vec::new(), three: Vec::new(), runs: Vec::new() };
        let number = |hex: &str| u32::from_str_radix(hex, 16).expect("a table holds hexadecimal numbers");
        for line in text.lines() {
            let (bytes, rest) = line.split_once(' ').expect("a line has two parts");
            if let Some(first) = bytes.strip_prefix('+') {
                let (start, count) = rest.split_once(' ').expect("a run has three parts");
                let count = count.parse().expect("a run has a length");
                table.runs.push((number(first), number(start), count));
                continue;
            }
            let of_length = match bytes.len() {
                2 => &mut table.one,
                4 => &mut table.two,
                _ => &mut table.three,
            };
            if of_length.is_empty() {
                of_length.resize(0x1_0000, NONE);
            }
            let mut at = number(bytes) as usize & 0xffff;
            let mut rest = rest.chars();
            while let Some(c) = rest.next() {
                let c = if c == '\\' { number(&rest.by_ref().take(4).collect::<String>()) } else { c.into() };
                of_length[at] = u16::try_from(c).expect("a character within 16 bits");
                at += 1;
            }
        }
        table
    }

    fn decode(&self, bytes: &[u8]) -> Option<String> {
        let mut out = String::with_capacity(bytes.len() * 2);
        let mut rest = bytes;
        while let [first, tail @ ..] = rest {
            let found = self.one[usize::from(*first)];
            let two = |table: &[u16], a: u8, b: u8| table.get(usize::from(a) << 8 | usize::from(b)).copied();
            let (code, length) = match *tail {
                _ if found != NONE => (found.into(), 1),
                [b, c, d, ..] if !self.runs.is_empty() && b.is_ascii_digit() => {
                    (self.four([*first, b, c, d])?, 4)
                }
                [b, c, ..] if *first == THREE && !self.three.is_empty() => {
                    (two(&self.three, b, c)?.into(), 3)
                }
                [b, ..] => (two(&self.two, *first, b)?.into(), 2),
                [] => return None,
            };
            if code == u32::from(NONE) && length < 4 {
                return None;
            }
            out.push(char::from_u32(code)?);
            rest = &rest[length..];
        }
        Some(out)
    }

    /// The character of a four-byte sequence. The bytes count up within 0x81–0xfe, 0x30–0x39, 0x81–0xfe and
    /// 0x30–0x39.
    fn four(&self, bytes: [u8; 4]) -> Option<u32> {
        let digit = |i: usize, first: u8| bytes[i].checked_sub(first).map(u32::from);
        let (c, d) = (digit(2, 0x81).filter(|n| *n < 126)?, digit(3, 0x30).filter(|n| *n < 10)?);
        let number = digit(0, 0x81)? * 12_600 + digit(1, 0x30)? * 1260 + c * 10 + d;
        let (first, start, count) = self.runs[..self.runs.partition_point(|run| run.0 <= number)].last()?;
        (number - first < *count).then(|| start + (number - first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(name: &str, bytes: &[u8]) -> Result<String, Malformed> {
        Tabled::from_name(name).unwrap().decode(bytes)
    }

    #[test]
    fn every_table_is_parsed() {
        for (name, _) in TEXTS {
            assert_eq!(decode(name, b"Az09 \n").unwrap(), "Az09 \n", "{name}");
        }
    }

    #[test]
    fn sequences_of_every_length_are_decoded() {
        assert_eq!(decode("koi8r", b"\xc1a\xff").unwrap(), "аaЪ");
        assert_eq!(decode("swe7", b"[\\]").unwrap(), "ÄÖÅ");
        assert_eq!(decode("sjis", b"a\x8a\xbf\xb1").unwrap(), "a漢ｱ");
        assert_eq!(decode("ujis", b"\x8f\xb0\xa1\xb4\xc1").unwrap(), "丂漢");
        assert_eq!(decode("gb18030", b"\xba\xba\x81\x30\x84\x36\x90\x30\x81\x30").unwrap(), "汉¥\u{10000}");
        for (name, bytes) in [
            ("koi8u", &b""[..]),
            ("sjis", b"\x8a"),
            ("sjis", b"\xff"),
            ("ujis", b"\x8f\xb0"),
            ("gb18030", b"\x81\x30\x84"),
            ("gb18030", b"\xff\x39\xff\x39"),
            ("cp1257", b"\x81"),
        ] {
            assert_eq!(decode(name, bytes).is_err(), !bytes.is_empty(), "{name} {bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            table in 0..TEXTS.len(),
        ) {
            let _ = Tabled(table).decode(&bytes);
        }
    }
}
