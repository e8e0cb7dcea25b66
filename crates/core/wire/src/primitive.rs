//! Avro's primitive types (Avro specification, "Primitive Types").

use crate::WireError;

/// Writes an `int` or `long`: a zig-zag variable-length integer.
pub fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Writes `bytes` or a `string`.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

/// Reads primitive values from a slice. Every read is checked against the bytes left.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn long(&mut self) -> Result<i64, WireError> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        if self.rest.len() < 10 {
            Err(WireError::Truncated)
        } else {
            Err(WireError::Corrupt("an integer is longer than 64 bits"))
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = self.long()?;
        let len = usize::try_from(len).map_err(|_| WireError::Corrupt("a length is negative"))?;
        self.take(len)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Corrupt("a string is not UTF-8"))
    }

    /// Reads the branch of a union of `null` and another type. Returns whether a value follows.
    pub(crate) fn present(&mut self) -> Result<bool, WireError> {
        match self.long()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Corrupt("a union has no such branch")),
        }
    }

    pub(crate) fn end(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Corrupt("bytes follow its last field")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn longs_match_the_specification() {
        for (value, bytes) in
            [(0, &[0][..]), (-1, &[1]), (1, &[2]), (-2, &[3]), (-64, &[0x7f]), (64, &[0x80, 1])]
        {
            let mut out = Vec::new();
            put_long(&mut out, value);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn invalid_bytes_are_errors() {
        assert!(matches!(Reader::new(&[0x80; 9]).long(), Err(WireError::Truncated)));
        for longer in
            [&[0xff; 12][..], &[0xff; 10], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]]
        {
            assert!(matches!(Reader::new(longer).long(), Err(WireError::Corrupt(_))), "{longer:?}");
        }
        // A length of 2^62 allocates nothing.
        let mut huge = Vec::new();
        put_long(&mut huge, 1 << 62);
        assert!(matches!(Reader::new(&huge).bytes(), Err(WireError::Truncated)));
        assert!(matches!(Reader::new(&[1]).bytes(), Err(WireError::Corrupt(_))));
    }

    proptest! {
        #[test]
        fn longs_round_trip(value: i64) {
            let mut out = Vec::new();
            put_long(&mut out, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.long().unwrap(), value);
            reader.end().unwrap();
        }
    }
}
