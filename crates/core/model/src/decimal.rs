//! DECIMAL values of any size that MySQL allows. Its limit of 65 digits does not fit 128 bits.

use std::fmt;

use crate::Disposition;

use num_bigint::BigInt;

/// An exact decimal: `unscaled × 10^-scale`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decimal {
    unscaled: BigInt,
    scale: u32,
}

/// The text is not a decimal number of the wanted scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a decimal number")]
pub struct ParseDecimalError;

impl ParseDecimalError {
    /// The text is bad.
    pub fn retry(&self) -> Disposition {
        Disposition::Refuse
    }
}

impl Decimal {
    /// Creates a decimal from its unscaled value as big-endian two's complement bytes. Avro's `decimal` and
    /// CQL's `varint` use this form.
    pub fn from_be_bytes(unscaled: &[u8], scale: u32) -> Self {
        Self { unscaled: BigInt::from_signed_bytes_be(unscaled), scale }
    }

    /// Parses MySQL's text form, such as `-12.50`, with the column's `scale`. Missing fraction digits are
    /// zeros.
    ///
    /// # Errors
    ///
    /// The text is not a decimal number, or it has more fraction digits than `scale`.
    pub fn parse(text: &str, scale: u32) -> Result<Self, ParseDecimalError> {
        let (negative, digits) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] | rest => (false, rest),
        };
        let (whole, fraction) = match digits.iter().position(|&b| b == b'.') {
            Some(dot) => (&digits[..dot], &digits[dot + 1..]),
            None => (digits, &[][..]),
        };
        if whole.is_empty() && fraction.is_empty() || fraction.len() > scale as usize {
            return Err(ParseDecimalError);
        }
        let mut all = Vec::with_capacity(whole.len() + scale as usize + 1);
        all.push(b'0');
        all.extend_from_slice(whole);
        all.extend_from_slice(fraction);
        all.resize(all.len() + scale as usize - fraction.len(), b'0');
        if !all.iter().all(u8::is_ascii_digit) {
            return Err(ParseDecimalError);
        }
        let magnitude = BigInt::parse_bytes(&all, 10).ok_or(ParseDecimalError)?;
        Ok(Self { unscaled: if negative { -magnitude } else { magnitude }, scale })
    }

    /// The number of digits after the decimal point.
    pub fn scale(&self) -> u32 {
        self.scale
    }

    /// The unscaled value as minimal big-endian two's complement bytes.
    pub fn unscaled_be_bytes(&self) -> Vec<u8> {
        self.unscaled.to_signed_bytes_be()
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = self.scale as usize;
        let digits = self.unscaled.magnitude().to_string();
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        if self.unscaled.sign() == num_bigint::Sign::Minus {
            f.write_str("-")?;
        }
        f.write_str(whole)?;
        if scale > 0 { write!(f, ".{fraction}") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_round_trips() {
        for (text, scale) in [("0.00", 2), ("-12.50", 2), ("99999999.99", 2), ("7", 0), ("-0.000001", 6)] {
            assert_eq!(Decimal::parse(text, scale).unwrap().to_string(), text);
        }
        assert_eq!(Decimal::parse("1.5", 3).unwrap().to_string(), "1.500");
        assert_eq!(Decimal::parse("1.5", 3).unwrap().scale(), 3);
        assert_eq!(Decimal::parse("-0.00", 2).unwrap(), Decimal::parse("0", 2).unwrap());
        for bad in ["", ".", "1.234", "1a", "--1"] {
            assert_eq!(Decimal::parse(bad, 2), Err(ParseDecimalError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn bytes_round_trip(digits in "-?[1-9][0-9]{0,64}", scale in 0u32..30) {
            let unscaled: BigInt = digits.parse().unwrap();
            let decimal = Decimal::from_be_bytes(&unscaled.to_signed_bytes_be(), scale);
            prop_assert_eq!(Decimal::parse(&decimal.to_string(), scale).unwrap(), decimal.clone());
            prop_assert_eq!(Decimal::from_be_bytes(&decimal.unscaled_be_bytes(), scale), decimal);
        }
    }
}
