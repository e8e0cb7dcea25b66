//! A byte cursor that checks every bound.

use tandem_model::{Remedy, TableName};

/// The bytes end too early or are invalid. The text says how.
pub type Malformed = String;

/// Why an event cannot be decoded or is not supported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its bytes are invalid.
    Malformed(Malformed),
    /// It is not supported.
    Unsupported {
        /// The reason.
        problem: String,
        /// The remedy.
        remedy: Remedy,
    },
    /// The rows of one table are not supported.
    OfTable {
        /// The table.
        table: TableName,
        /// The reason.
        problem: String,
        /// The remedy.
        remedy: Remedy,
    },
}

impl Fault {
    pub(crate) fn unsupported(problem: impl Into<String>, remedy: Remedy) -> Self {
        Self::Unsupported { problem: problem.into(), remedy }
    }

    /// The same fault with the table's name.
    pub(crate) fn of_table(self, table: &TableName) -> Self {
        match self {
            Self::Malformed(problem) => Self::Malformed(format!("table {table}: {problem}")),
            Self::Unsupported { problem, remedy } => Self::OfTable { table: table.clone(), problem, remedy },
            named @ Self::OfTable { .. } => named,
        }
    }
}

impl From<Malformed> for Fault {
    fn from(problem: Malformed) -> Self {
        Self::Malformed(problem)
    }
}

/// A cursor over the bytes of an event.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Creates a cursor at the first of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The number of bytes left.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// All bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    ///
    /// There are fewer bytes left.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.rest.split_at_checked(n) else {
            return Err(format!("it ends {} bytes too early", n - self.rest.len()));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// The next byte.
    ///
    /// # Errors
    ///
    /// There are fewer bytes left.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    /// A server's UUID: 16 bytes.
    ///
    /// # Errors
    ///
    /// There are fewer bytes left.
    pub fn sid(&mut self) -> Result<[u8; 16], Malformed> {
        self.array()
    }

    /// A FLOAT, little-endian.
    ///
    /// # Errors
    ///
    /// There are fewer bytes left.
    pub fn f32(&mut self) -> Result<f32, Malformed> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    /// A DOUBLE, little-endian.
    ///
    /// # Errors
    ///
    /// There are fewer bytes left.
    pub fn f64(&mut self) -> Result<f64, Malformed> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// A little-endian unsigned integer of up to 8 bytes.
    ///
    /// # Errors
    ///
    /// There are fewer bytes left, or they are not such a number.
    pub fn uint(&mut self, bytes: usize) -> Result<u64, Malformed> {
        // Fast paths for the common widths: their lengths are known at compile time.
        Ok(match bytes {
            1 => self.u8()?.into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            4 => u32::from_le_bytes(self.array()?).into(),
            8 => u64::from_le_bytes(self.array()?),
            _ => self.take(bytes)?.iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b)),
        })
    }

    /// A little-endian two's complement integer of 1 to 8 bytes.
    ///
    /// # Errors
    ///
    /// There are fewer bytes left, or they are not such a number.
    pub fn int(&mut self, bytes: usize) -> Result<i64, Malformed> {
        let shift = 64 - 8 * bytes as u32;
        Ok((self.uint(bytes)? << shift) as i64 >> shift)
    }

    /// A big-endian unsigned integer of up to 8 bytes.
    ///
    /// # Errors
    ///
    /// There are fewer bytes left, or they are not such a number.
    pub fn uint_be(&mut self, bytes: usize) -> Result<u64, Malformed> {
        Ok(self.take(bytes)?.iter().fold(0, |sum, &b| sum << 8 | u64::from(b)))
    }

    /// The protocol's length-encoded integer.
    ///
    /// # Errors
    ///
    /// There are fewer bytes left, or they are not such a number.
    pub fn lenenc(&mut self) -> Result<u64, Malformed> {
        match self.u8()? {
            first @ 0..=250 => Ok(first.into()),
            252 => self.uint(2),
            253 => self.uint(3),
            254 => self.uint(8),
            _ => Err("it holds an invalid length".into()),
        }
    }

    /// A variable-length unsigned integer of MySQL's serialization library.
    ///
    /// The number of trailing ones in the first byte is the number of further bytes. The value is in the bits
    /// above these ones and the zero that ends them. For example, `0xb1 0x03` ends in one 1, so one byte
    /// follows, and the value is `0x03b1 >> 2` = 236.
    ///
    /// # Errors
    ///
    /// There are fewer bytes left, or they are not such a number.
    pub fn varlen(&mut self) -> Result<u64, Malformed> {
        let first = self.u8()?;
        let more = first.trailing_ones() as usize;
        if more == 8 {
            return self.uint(8);
        }
        let high = u128::from(self.uint(more)?) << 8;
        Ok(((high | u128::from(first)) >> (more + 1)) as u64)
    }

    /// A length-encoded integer that is the length of something within these bytes.
    ///
    /// # Errors
    ///
    /// There are fewer bytes left, or they are not such a number.
    pub fn length(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.lenenc()?).map_err(|_| "it holds a length beyond memory".into())
    }

    /// Bytes that follow their length-encoded length.
    ///
    /// # Errors
    ///
    /// There are fewer bytes left, or they are not such a number.
    pub fn lenenc_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let n = self.length()?;
        self.take(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_encoding() {
        assert_eq!(Cursor::new(&[0xff, 0xff, 0x7f]).int(3), Ok(0x7f_ffff));
        assert_eq!(Cursor::new(&[0x00, 0x00, 0x80]).int(3), Ok(-0x80_0000));
        assert_eq!(Cursor::new(&[0xff; 8]).int(8), Ok(-1));
        assert_eq!(Cursor::new(&[0xff; 8]).uint(8), Ok(u64::MAX));
        assert_eq!(Cursor::new(&[1, 2, 3]).uint_be(3), Ok(0x01_0203));
        assert_eq!(Cursor::new(&[253, 1, 0, 1]).lenenc(), Ok(65_537));
        assert!(Cursor::new(&[251]).lenenc().is_err());
        assert_eq!(Cursor::new(&[0x72]).varlen(), Ok(57));
        assert_eq!(Cursor::new(&[0xb1, 0x03]).varlen(), Ok(236));
        assert_eq!(Cursor::new(&[0x83, 0x12, 0x0b]).varlen(), Ok(90_704));
        assert_eq!(Cursor::new(&[0x7f, 1, 0, 0, 0, 0, 0, 0]).varlen(), Ok(1));
        assert_eq!(Cursor::new(&[0xff; 9]).varlen(), Ok(u64::MAX));
        assert!(Cursor::new(&[0xff; 8]).varlen().is_err());
        assert!(Cursor::new(&[1]).uint(2).is_err());
        assert!(Cursor::new(&[254, 255, 255, 255, 255, 255, 255, 255, 255]).lenenc_bytes().is_err());
    }
}
