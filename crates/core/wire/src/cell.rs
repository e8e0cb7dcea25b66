//! Writes the Avro bytes of single cells.
//!
//! The binlog decoder uses these functions to write cells directly from the row image, without a
//! [`Value`](tandem_model::Value). The encoder of values uses the same functions, so both produce the same
//! bytes.
//!
//! If the column's type is a union ([`Union::of`]), a cell starts with the branch. Then comes one of the
//! forms below, depending on the column's type.

use tandem_model::{ColumnDef, ColumnType};

use crate::primitive::put_long;

pub use crate::primitive::{put_bytes as bytes, put_long as long};

/// Whether the column may hold zero and partial dates. They are not valid dates and are written as text.
pub(crate) fn may_be_invalid(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. })
}

/// The branches of a column's union, each as its one byte in Avro. `None` means that there is no such branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Union {
    /// The branch of NULL. Nothing follows it.
    pub null: Option<u8>,
    /// The branch of the column's own type. `None` means that the column is not a union: the value has no
    /// branch.
    pub value: Option<u8>,
    /// The branch of a zero or partial date. Its text follows.
    pub invalid: Option<u8>,
}

impl Union {
    /// The union of a column.
    pub fn of(column: &ColumnDef) -> Self {
        let invalid = may_be_invalid(&column.ty);
        // In zig-zag encoding, branch n is the byte 2n.
        let first = 2 * u8::from(column.nullable);
        Self {
            null: column.nullable.then_some(0),
            value: (column.nullable || invalid).then_some(first),
            invalid: invalid.then_some(first + 2),
        }
    }
}

/// Writes a FLOAT.
pub fn float(out: &mut Vec<u8>, value: f32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes a DOUBLE.
pub fn double(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Writes a BIGINT UNSIGNED as a `decimal(20,0)`.
pub fn unsigned_bigint(out: &mut Vec<u8>, value: u64) {
    decimal(out, &i128::from(value).to_be_bytes());
}

/// Writes a DECIMAL. `unscaled` is its unscaled value as big-endian two's complement, of any length but 0.
///
/// The written form is the shortest: leading bytes that only repeat the sign are dropped.
pub fn decimal(out: &mut Vec<u8>, unscaled: &[u8]) {
    let mut rest = unscaled;
    while let [first, second, ..] = rest
        && (*first == 0 && second & 0x80 == 0 || *first == 0xff && second & 0x80 != 0)
    {
        rest = &rest[1..];
    }
    put_long(out, rest.len() as i64);
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unions_have_the_right_branches() {
        let of = |ty: &str, nullable| {
            let Union { null, value, invalid } =
                Union::of(&ColumnDef { name: "c".into(), ty: ty.parse().unwrap(), nullable });
            (null, value, invalid)
        };
        assert_eq!(of("int", false), (None, None, None));
        assert_eq!(of("int", true), (Some(0), Some(2), None));
        assert_eq!(of("date", false), (None, Some(0), Some(2)));
        assert_eq!(of("date", true), (Some(0), Some(2), Some(4)));
    }

    #[test]
    fn decimals_are_written_in_their_shortest_form() {
        for (unscaled, short) in [
            (&[0][..], &[2, 0][..]),
            (&[0, 0, 0], &[2, 0]),
            (&[0xff, 0xff], &[2, 0xff]),
            (&[0, 0x80], &[4, 0, 0x80]),
            (&[0, 0, 0x7f], &[2, 0x7f]),
            (&[0xff, 0x7f], &[4, 0xff, 0x7f]),
            (&[0xff, 0xff, 0x80], &[2, 0x80]),
        ] {
            let mut out = Vec::new();
            decimal(&mut out, unscaled);
            assert_eq!(out, short);
        }
    }
}
