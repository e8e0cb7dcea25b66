//! MySQL values.

use crate::Decimal;

/// The cells of a row, in the order of its table's columns.
pub type Row = Vec<Value>;

/// A MySQL value without loss.
///
/// The binlog decoder and the snapshot reader return the same `Value` for the same stored value, bit for bit.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A signed integer of any width, or a YEAR.
    Int(i64),
    /// An unsigned integer of any width, or a BIT.
    UInt(u64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// DECIMAL, with its column's scale.
    Decimal(Decimal),
    /// DATE: days since 1970-01-01.
    Date(i32),
    /// TIME: microseconds, from −838:59:59.999999 to +838:59:59.999999.
    Time(i64),
    /// DATETIME: microseconds since 1970-01-01T00:00:00, without a time zone.
    DateTime(i64),
    /// TIMESTAMP: microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// CHAR, VARCHAR, TEXT (decoded to UTF-8), ENUM and SET (by name), JSON (as MySQL prints it).
    Text(String),
    /// BINARY (padded to its length), VARBINARY, BLOB, GEOMETRY (the SRID as four bytes
    /// little-endian, then well-known binary), VECTOR (FLOATs of four bytes little-endian).
    Bytes(Vec<u8>),
    /// A zero or partial date in a DATE, DATETIME or TIMESTAMP column, such as `0000-00-00`, as MySQL prints
    /// it. It is not a valid date. The mapping decides how to handle it.
    InvalidDate(String),
}

impl Value {
    /// Whether the value is SQL NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The kind of the value, for error messages. Messages never contain the value itself, which may be
    /// customer data.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Int(_) => "signed integer",
            Self::UInt(_) => "unsigned integer",
            Self::Float(_) => "FLOAT",
            Self::Double(_) => "DOUBLE",
            Self::Decimal(_) => "DECIMAL",
            Self::Date(_) => "DATE",
            Self::Time(_) => "TIME",
            Self::DateTime(_) => "DATETIME",
            Self::Timestamp(_) => "TIMESTAMP",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::InvalidDate(_) => "zero or partial date",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_does_not_reveal_the_value() {
        assert!(Value::Null.is_null() && !Value::Int(0).is_null());
        assert_eq!((Value::Null.kind(), Value::Text("hush".into()).kind()), ("NULL", "text"));
    }
}
