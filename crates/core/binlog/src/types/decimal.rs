//! Reads a DECIMAL from the binlog (`bin2decimal` in `strings/decimal.cc`).
//!
//! From the decimal point outwards, each group of 9 digits takes 4 bytes big-endian. The remaining digits
//! take as few bytes as they need. The first bit is inverted. For a negative number, every bit is inverted as
//! well.

use tandem_model::Decimal;
use tandem_wire::cell;

use crate::cursor::{Cursor, Malformed};

/// The sizes of groups of 0 to 9 digits in bytes.
const GROUP_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
const POWERS: [u64; 10] =
    [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// The layout of a DECIMAL(precision, scale) in a row image: groups of digits, the most significant first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecimalForm {
    /// The number of digits after the point.
    scale: u8,
    /// The size in bytes.
    size: u8,
    /// The number of digits in the group before the full groups. May be 0.
    first: u8,
    /// The number of full groups, of nine digits each.
    full: u8,
    /// The number of digits in the group after the full groups. May be 0.
    last: u8,
    /// Whether every value of the type fits 64 bits. This is the common case.
    small: bool,
}

impl DecimalForm {
    pub(crate) fn new(precision: u8, scale: u8) -> Result<Self, Malformed> {
        let Some(whole) = precision.checked_sub(scale).filter(|_| (1..=65).contains(&precision)) else {
            return Err("it has a DECIMAL of a precision that MySQL does not allow".into());
        };
        let (first, full, last) = (whole % 9, whole / 9 + scale / 9, scale % 9);
        let bytes = |digits: u8| GROUP_BYTES[usize::from(digits)] as u8;
        Ok(Self {
            scale,
            size: bytes(first) + 4 * full + bytes(last),
            first,
            full,
            last,
            small: precision <= 18,
        })
    }

    /// The number of digits in each group.
    fn groups(self) -> impl Iterator<Item = usize> {
        let odd = |digits: u8| (digits > 0).then_some(usize::from(digits));
        odd(self.first).into_iter().chain((0..self.full).map(|_| 9)).chain(odd(self.last))
    }

    /// The size of a value in bytes.
    pub(crate) fn bytes(self) -> usize {
        self.size.into()
    }

    /// Reads a DECIMAL from a row image and writes it as a cell.
    pub(crate) fn put(self, cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.unscaled(cursor, |bytes| cell::decimal(out, bytes))
    }

    /// Reads a DECIMAL from JSON.
    pub(crate) fn read(self, cursor: &mut Cursor<'_>) -> Result<Decimal, Malformed> {
        let mut decimal = None;
        self.unscaled(cursor, |bytes| decimal = Some(Decimal::from_be_bytes(bytes, self.scale.into())))?;
        decimal.ok_or_else(|| "it has a DECIMAL without digits".into())
    }

    /// Passes the unscaled value to `give` as big-endian two's complement.
    #[inline]
    fn unscaled(self, cursor: &mut Cursor<'_>, give: impl FnOnce(&[u8])) -> Result<(), Malformed> {
        let mut rest = cursor.take(self.size.into())?;
        // The first bit of every number is inverted, and every bit of a negative number.
        let negative = rest[0] & 0x80 == 0;
        let inverted = if negative { 0xff } else { 0 };
        let mut sign = 0x80;
        let mut group = |digits: usize| {
            let (taken, left) = rest.split_at(GROUP_BYTES[digits]);
            rest = left;
            let value = taken
                .iter()
                .fold(0, |sum: u64, &b| sum << 8 | u64::from(b ^ inverted ^ std::mem::take(&mut sign)));
            if value >= POWERS[digits] {
                return Err(Malformed::from("it has a DECIMAL with digits that are none"));
            }
            Ok(value)
        };
        if self.small {
            let mut sum: u64 = 0;
            for digits in self.groups() {
                sum = sum * POWERS[digits] + group(digits)?;
            }
            let unscaled = if negative { -(sum as i64) } else { sum as i64 };
            give(&unscaled.to_be_bytes());
            return Ok(());
        }
        // 65 digits need 216 bits and a sign: eight 32-bit limbs, the least significant first.
        let mut limbs = [0u32; 8];
        for digits in self.groups() {
            let mut carry = group(digits)?;
            for limb in &mut limbs {
                carry += u64::from(*limb) * POWERS[digits];
                *limb = carry as u32;
                carry >>= 32;
            }
        }
        if negative {
            let mut carry = true;
            for limb in &mut limbs {
                (*limb, carry) = (!*limb).overflowing_add(u32::from(carry));
            }
        }
        let mut unscaled = [0; 32];
        for (chunk, limb) in unscaled.chunks_exact_mut(4).zip(limbs.iter().rev()) {
            chunk.copy_from_slice(&limb.to_be_bytes());
        }
        give(&unscaled);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a value. Returns it and the number of bytes left.
    fn read(bytes: &[u8], precision: u8, scale: u8) -> Result<(Decimal, usize), Malformed> {
        let mut cursor = Cursor::new(bytes);
        Ok((DecimalForm::new(precision, scale)?.read(&mut cursor)?, cursor.len()))
    }

    /// Encodes digits as MySQL's `decimal2bin` does.
    fn pack(negative: bool, whole: &str, fraction: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut group = |digits: &str| {
            let value: u64 = if digits.is_empty() { 0 } else { digits.parse().unwrap() };
            out.extend_from_slice(&value.to_be_bytes()[8 - GROUP_BYTES[digits.len()]..]);
        };
        let (head, tail) = whole.split_at(whole.len() % 9);
        group(head);
        tail.as_bytes().chunks(9).for_each(|c| group(std::str::from_utf8(c).unwrap()));
        fraction.as_bytes().chunks(9).for_each(|c| group(std::str::from_utf8(c).unwrap()));
        if negative {
            for b in &mut out {
                *b = !*b;
            }
        }
        out[0] ^= 0x80;
        out
    }

    #[test]
    fn the_example_in_mysqls_source_is_read() {
        // strings/decimal.cc: 1234567890.1234 as DECIMAL(14,4), and its negative.
        let positive = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        let negative = [0x7e, 0xf2, 0x04, 0xc7, 0x2d, 0xfb, 0x2d];
        let read = |bytes: &[u8]| read(bytes, 14, 4).unwrap().0.to_string();
        assert_eq!(read(&positive), "1234567890.1234");
        assert_eq!(read(&negative), "-1234567890.1234");
    }

    proptest! {
        #[test]
        fn reads_what_mysql_packs(
            negative in any::<bool>(),
            (whole, fraction) in (0usize..=65).prop_flat_map(|w| (
                "[0-9]{65}".prop_map(move |s| s[..w].to_owned()),
                "[0-9]{30}".prop_flat_map(move |s| (0..=30usize.min(65 - w)).prop_map(move |f| s[..f].to_owned())),
            )).prop_filter("digits", |(w, f)| !w.is_empty() || !f.is_empty()),
        ) {
            let (precision, scale) = (whole.len() + fraction.len(), fraction.len());
            let bytes = pack(negative, &whole, &fraction);
            let text = format!("{}{whole}.{fraction}", if negative { "-" } else { "" });
            let expected = Decimal::parse(&text, scale as u32).unwrap();
            let (precision, scale) = (precision as u8, scale as u8);
            prop_assert_eq!(read(&bytes, precision, scale).unwrap(), (expected, 0));
            for end in 0..bytes.len() {
                prop_assert!(read(&bytes[..end], precision, scale).is_err());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40), p in any::<u8>(), s in any::<u8>()) {
            let _ = read(&bytes, p, s);
        }
    }
}
