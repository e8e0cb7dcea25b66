//! DECIMAL in the binlog (`strings/decimal.cc`, `bin2decimal`): groups of 9 digits in 4 bytes
//! big-endian from the decimal point outwards, the remaining digits in as few bytes as they need,
//! the first bit inverted, and every bit inverted for a negative number.

use tandem_model::Decimal;

use crate::bytes::{Cursor, Problem};

/// Bytes of 0 to 9 digits.
const GROUP_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
const POWERS: [u64; 10] =
    [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Reads a DECIMAL(precision, scale).
pub(crate) fn binlog_decimal(cursor: &mut Cursor<'_>, precision: u8, scale: u8) -> Result<Decimal, Problem> {
    let (precision, scale) = (usize::from(precision), usize::from(scale));
    if precision > 65 || scale > precision {
        return Err("it has a DECIMAL of a precision that MySQL does not know".into());
    }
    let whole = precision - scale;
    let size = whole / 9 * 4 + GROUP_BYTES[whole % 9] + scale / 9 * 4 + GROUP_BYTES[scale % 9];
    let stored = cursor.take(size)?;
    let mut bytes = [0; 32];
    bytes[..size].copy_from_slice(stored);
    let negative = size > 0 && stored[0] & 0x80 == 0;
    bytes[0] ^= 0x80;
    if negative {
        bytes[..size].iter_mut().for_each(|b| *b = !*b);
    }

    // A value of at most 18 digits, which is nearly every one, needs no big arithmetic.
    let mut groups = Groups {
        cursor: Cursor::new(&bytes[..size]),
        first: whole % 9,
        full: whole / 9 + scale / 9,
        last: scale % 9,
    };
    if precision <= 18 {
        let mut sum: u64 = 0;
        while let Some((value, digits)) = groups.next()? {
            sum = sum * POWERS[digits] + value;
        }
        let sum = if negative { -(sum as i64) } else { sum as i64 };
        return Ok(Decimal::from_be_bytes(&sum.to_be_bytes(), scale as u32));
    }
    // 65 digits need 216 bits and a sign: eight 32-bit limbs, the least significant first.
    let mut limbs = [0u32; 8];
    while let Some((value, digits)) = groups.next()? {
        let mut carry = value;
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
    Ok(Decimal::from_be_bytes(&unscaled, scale as u32))
}

/// The groups of digits from the most significant on.
struct Groups<'a> {
    cursor: Cursor<'a>,
    first: usize,
    full: usize,
    last: usize,
}

impl Groups<'_> {
    /// The next group's value and how many digits it has.
    fn next(&mut self) -> Result<Option<(u64, usize)>, Problem> {
        let digits = if self.first > 0 {
            std::mem::take(&mut self.first)
        } else if self.full > 0 {
            self.full -= 1;
            9
        } else if self.last > 0 {
            std::mem::take(&mut self.last)
        } else {
            return Ok(None);
        };
        let value = self.cursor.uint_be(GROUP_BYTES[digits])?;
        if value >= POWERS[digits] {
            return Err("it has a DECIMAL with digits that are none".into());
        }
        Ok(Some((value, digits)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// MySQL's `decimal2bin`, from digits.
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
    fn the_example_of_mysqls_source() {
        // strings/decimal.cc: 1234567890.1234 as DECIMAL(14,4), and its negative.
        let positive = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        let negative = [0x7e, 0xf2, 0x04, 0xc7, 0x2d, 0xfb, 0x2d];
        let read = |bytes: &[u8]| binlog_decimal(&mut Cursor::new(bytes), 14, 4).unwrap().to_string();
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
            let mut cursor = Cursor::new(&bytes);
            let read = binlog_decimal(&mut cursor, precision as u8, scale as u8).unwrap();
            prop_assert!(cursor.is_empty());
            prop_assert_eq!(read, expected);
            for end in 0..bytes.len() {
                prop_assert!(binlog_decimal(&mut Cursor::new(&bytes[..end]), precision as u8, scale as u8).is_err());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40), p in any::<u8>(), s in any::<u8>()) {
            let _ = binlog_decimal(&mut Cursor::new(&bytes), p, s);
        }
    }
}
