//! The Avro bytes of single cells, for whoever has a cell's value in another form than
//! [`Value`](tandem_model::Value): the binlog's decoder writes them straight from the row image. The
//! encoder of values uses the same functions, so both give the same bytes.
//!
//! A cell is a branch of its column's union, where the column is one ([`Union::of`]), and then one
//! of the forms below, by the column's type.

use tandem_model::{ColumnDef, ColumnType};

use crate::primitive::put_long;

pub use crate::primitive::{put_bytes as bytes, put_long as long};

/// Whether the column may hold zero and partial dates, which are no dates: those go as text.
pub(crate) fn may_be_invalid(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. })
}

/// The branches of a column's union, as the one byte that each of them is in Avro. `None`: there is
/// no such branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Union {
    /// NULL. Nothing follows it.
    pub null: Option<u8>,
    /// The column's own type. `None`: the column is no union, and the value stands alone.
    pub value: Option<u8>,
    /// The text of a zero or partial date.
    pub invalid: Option<u8>,
}

impl Union {
    /// The union of a column.
    pub fn of(column: &ColumnDef) -> Self {
        let invalid = may_be_invalid(&column.ty);
        // Zig-zag: branch n is the byte 2n.
        let first = 2 * u8::from(column.nullable);
        Self {
            null: column.nullable.then_some(0),
            value: (column.nullable || invalid).then_some(first),
            invalid: invalid.then_some(first + 2),
        }
    }
}

/// FLOAT.
pub fn float(out: &mut Vec<u8>, value: f32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// DOUBLE.
pub fn double(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// BIGINT UNSIGNED, a `decimal(20,0)`.
pub fn unsigned_bigint(out: &mut Vec<u8>, value: u64) {
    decimal(out, &i128::from(value).to_be_bytes());
}

/// DECIMAL, from its unscaled value as big-endian two's complement of any length but 0. Avro's form
/// is the shortest: leading bytes that only repeat the sign go.
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
    fn branches() {
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
    fn decimals_are_as_short_as_can_be() {
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
