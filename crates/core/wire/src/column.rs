//! Cells in Avro: their types and bytes.

use serde_json::{Value as Json, json};
use tandem_model::{ColumnDef, ColumnType, Decimal, Value};

use crate::WireError;
use crate::cell::{self, Union, may_be_invalid};
use crate::primitive::{Reader, put_bytes, put_long};

/// The Avro type of a column's values, without a union.
fn plain_type(ty: &ColumnType) -> Json {
    let decimal = |precision: u8, scale: u8| json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale});
    match ty {
        ColumnType::Int { bits: 64, unsigned: true } | ColumnType::Bit { bits: 64 } => decimal(20, 0),
        ColumnType::Int { bits: 64, .. }
        | ColumnType::Bit { .. }
        | ColumnType::Int { bits: 32, unsigned: true }
        | ColumnType::Time { .. } => json!("long"),
        ColumnType::Int { .. } | ColumnType::Year => json!("int"),
        ColumnType::Float => json!("float"),
        ColumnType::Double => json!("double"),
        ColumnType::Decimal { precision, scale } => decimal(*precision, *scale),
        ColumnType::Date => json!({"type": "int", "logicalType": "date"}),
        ColumnType::DateTime { .. } => json!({"type": "long", "logicalType": "local-timestamp-micros"}),
        ColumnType::Timestamp { .. } => json!({"type": "long", "logicalType": "timestamp-micros"}),
        ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) | ColumnType::Json => json!("string"),
        ColumnType::Bytes { .. } | ColumnType::Geometry | ColumnType::Vector => json!("bytes"),
    }
}

/// The Avro type of a column.
pub(crate) fn avro_type(column: &ColumnDef) -> Json {
    let plain = plain_type(&column.ty);
    match (column.nullable, may_be_invalid(&column.ty)) {
        (false, false) => plain,
        (true, false) => json!(["null", plain]),
        (false, true) => json!([plain, "string"]),
        (true, true) => json!(["null", plain, "string"]),
    }
}

/// The inclusive range of an integer type with up to 63 unsigned bits or 64 signed bits.
fn int_range(bits: u8, unsigned: bool) -> (i64, i64) {
    if unsigned {
        (0, i64::MAX >> (63 - bits.min(63)))
    } else if bits >= 64 {
        (i64::MIN, i64::MAX)
    } else {
        (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1)
    }
}

/// The maximum size in bytes of the unscaled value of a decimal with this many digits.
///
/// `10^digits` has `floor(digits × log2(10)) + 1` bits, and two's complement needs one more.
fn decimal_bytes(precision: u8) -> usize {
    (usize::from(precision) * 33220 / 10000 + 2).div_ceil(8)
}

/// Writes a cell.
pub(crate) fn put(out: &mut Vec<u8>, column: &ColumnDef, value: &Value) -> Result<(), WireError> {
    let does_not_fit = || WireError::DoesNotFit {
        column: column.name.clone(),
        ty: column.ty.to_string(),
        kind: value.kind(),
    };
    let union = Union::of(column);
    match (value, union) {
        (Value::Null, Union { null: Some(branch), .. }) => {
            out.push(branch);
            return Ok(());
        }
        (Value::InvalidDate(text), Union { invalid: Some(branch), .. }) => {
            out.push(branch);
            put_bytes(out, text.as_bytes());
            return Ok(());
        }
        (_, Union { value: Some(branch), .. }) => out.push(branch),
        _ => {}
    }
    match (&column.ty, value) {
        (&ColumnType::Int { bits, unsigned: false }, &Value::Int(v)) => {
            let (low, high) = int_range(bits, false);
            if v < low || v > high {
                return Err(does_not_fit());
            }
            put_long(out, v);
        }
        (ColumnType::Int { bits: 64, unsigned: true } | ColumnType::Bit { bits: 64 }, &Value::UInt(v)) => {
            cell::unsigned_bigint(out, v);
        }
        (&(ColumnType::Int { bits, unsigned: true } | ColumnType::Bit { bits }), &Value::UInt(v)) => {
            if v >> bits != 0 {
                return Err(does_not_fit());
            }
            put_long(out, v as i64);
        }
        (ColumnType::Year, &Value::Int(v)) => {
            if !(0..=9999).contains(&v) {
                return Err(does_not_fit());
            }
            put_long(out, v);
        }
        (ColumnType::Float, Value::Float(v)) => cell::float(out, *v),
        (ColumnType::Double, Value::Double(v)) => cell::double(out, *v),
        (&ColumnType::Decimal { precision, scale }, Value::Decimal(v)) => {
            let bytes = v.unscaled_be_bytes();
            if v.scale() != u32::from(scale) || bytes.len() > decimal_bytes(precision) {
                return Err(does_not_fit());
            }
            cell::decimal(out, &bytes);
        }
        (ColumnType::Date, &Value::Date(v)) => put_long(out, i64::from(v)),
        (ColumnType::Time { .. }, &Value::Time(v))
        | (ColumnType::DateTime { .. }, &Value::DateTime(v))
        | (ColumnType::Timestamp { .. }, &Value::Timestamp(v)) => put_long(out, v),
        (ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) | ColumnType::Json, Value::Text(v)) => {
            put_bytes(out, v.as_bytes());
        }
        (ColumnType::Bytes { fixed }, Value::Bytes(v)) => {
            if fixed.is_some_and(|n| usize::from(n) != v.len()) {
                return Err(does_not_fit());
            }
            put_bytes(out, v);
        }
        (ColumnType::Geometry | ColumnType::Vector, Value::Bytes(v)) => put_bytes(out, v),
        _ => return Err(does_not_fit()),
    }
    Ok(())
}

/// Reads a cell.
pub(crate) fn get(reader: &mut Reader<'_>, column: &ColumnDef) -> Result<Value, WireError> {
    let corrupt = || WireError::CorruptColumn { column: column.name.clone(), ty: column.ty.to_string() };
    let invalid = may_be_invalid(&column.ty);
    if column.nullable || invalid {
        let branch = reader.long()?;
        let branch = if column.nullable { branch } else { branch.saturating_add(1) };
        match branch {
            0 if column.nullable => return Ok(Value::Null),
            1 => {}
            2 if invalid => return Ok(Value::InvalidDate(reader.text()?.to_owned())),
            _ => return Err(corrupt()),
        }
    }
    Ok(match &column.ty {
        ColumnType::Int { bits: 64, unsigned: true } | ColumnType::Bit { bits: 64 } => {
            let bytes = reader.bytes()?;
            match bytes {
                [first, ..] if bytes.len() <= 9 && first & 0x80 == 0 => {
                    let wide = bytes.iter().fold(0u128, |acc, &b| acc << 8 | u128::from(b));
                    Value::UInt(u64::try_from(wide).map_err(|_| corrupt())?)
                }
                _ => return Err(corrupt()),
            }
        }
        &ColumnType::Int { bits, unsigned } => {
            let v = reader.long()?;
            let (low, high) = int_range(bits, unsigned);
            if v < low || v > high {
                return Err(corrupt());
            }
            if unsigned { Value::UInt(v as u64) } else { Value::Int(v) }
        }
        &ColumnType::Bit { bits } => {
            let v = reader.long()?;
            let (low, high) = int_range(bits, true);
            if v < low || v > high {
                return Err(corrupt());
            }
            Value::UInt(v as u64)
        }
        ColumnType::Year => {
            let v = reader.long()?;
            if !(0..=9999).contains(&v) {
                return Err(corrupt());
            }
            Value::Int(v)
        }
        ColumnType::Float => Value::Float(f32::from_le_bytes(reader.array()?)),
        ColumnType::Double => Value::Double(f64::from_le_bytes(reader.array()?)),
        &ColumnType::Decimal { precision, scale } => {
            let bytes = reader.bytes()?;
            if bytes.is_empty() || bytes.len() > decimal_bytes(precision) {
                return Err(corrupt());
            }
            Value::Decimal(Decimal::from_be_bytes(bytes, u32::from(scale)))
        }
        ColumnType::Date => Value::Date(i32::try_from(reader.long()?).map_err(|_| corrupt())?),
        ColumnType::Time { .. } => Value::Time(reader.long()?),
        ColumnType::DateTime { .. } => Value::DateTime(reader.long()?),
        ColumnType::Timestamp { .. } => Value::Timestamp(reader.long()?),
        ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) | ColumnType::Json => {
            Value::Text(reader.text()?.to_owned())
        }
        ColumnType::Geometry | ColumnType::Vector => Value::Bytes(reader.bytes()?.to_vec()),
        ColumnType::Bytes { fixed } => {
            let bytes = reader.bytes()?;
            if fixed.is_some_and(|n| usize::from(n) != bytes.len()) {
                return Err(corrupt());
            }
            Value::Bytes(bytes.to_vec())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(ty: &str, nullable: bool) -> ColumnDef {
        ColumnDef { name: "c".into(), ty: ty.parse().unwrap(), nullable }
    }

    #[test]
    fn values_that_do_not_fit_are_errors() {
        for (ty, value) in [
            ("tinyint", Value::Int(128)),
            ("mediumint", Value::Int(-8_388_609)),
            ("mediumint unsigned", Value::UInt(1 << 24)),
            ("int unsigned", Value::UInt(1 << 32)),
            ("int", Value::UInt(1)),
            ("int", Value::Null),
            ("int", Value::InvalidDate("0000-00-00".into())),
            ("decimal(4,2)", Value::Decimal(Decimal::parse("1", 0).unwrap())),
            ("decimal(4,2)", Value::Decimal(Decimal::parse("12345678.00", 2).unwrap())),
            ("binary(2)", Value::Bytes(vec![1])),
            ("year", Value::Int(-1)),
            ("bit(1)", Value::UInt(2)),
            ("bit(63)", Value::UInt(1 << 63)),
            ("vector", Value::Text("[1]".into())),
        ] {
            let error = put(&mut Vec::new(), &column(ty, false), &value).unwrap_err();
            assert!(matches!(error, WireError::DoesNotFit { .. }), "{ty}");
        }
    }

    /// Reads `bytes` as a cell of a column.
    fn read(ty: &str, nullable: bool, bytes: &[u8]) -> Result<Value, WireError> {
        get(&mut Reader::new(bytes), &column(ty, nullable))
    }

    #[test]
    fn the_minimum_and_maximum_round_trip() {
        for (ty, low, high) in [
            ("tinyint", Value::Int(-128), Value::Int(127)),
            ("int", Value::Int(i64::from(i32::MIN)), Value::Int(i64::from(i32::MAX))),
            ("tinyint unsigned", Value::UInt(0), Value::UInt(255)),
            ("bigint unsigned", Value::UInt(0), Value::UInt(u64::MAX)),
            ("bit(3)", Value::UInt(0), Value::UInt(7)),
            ("bit(64)", Value::UInt(0), Value::UInt(0x0102_0304_0506_0708)),
            ("year", Value::Int(0), Value::Int(9999)),
        ] {
            for value in [low, high] {
                let mut bytes = Vec::new();
                put(&mut bytes, &column(ty, false), &value).unwrap();
                assert_eq!(read(ty, false, &bytes).unwrap(), value, "{ty}");
            }
        }
    }

    #[test]
    fn bytes_that_are_not_a_cell_are_errors() {
        let long = |n: i64| {
            let mut out = Vec::new();
            put_long(&mut out, n);
            out
        };
        let framed = |bytes: &[u8]| {
            let mut out = Vec::new();
            put_bytes(&mut out, bytes);
            out
        };
        for (ty, nullable, bytes) in [
            // Branches that the column's union does not have.
            ("date", false, long(-1)),
            ("date", false, long(2)),
            ("int", true, [long(2), framed(b"0000-00-00")].concat()),
            ("int", true, long(-1)),
            // Numbers below and above the range of the type.
            ("tinyint", false, long(128)),
            ("tinyint", false, long(-129)),
            ("int unsigned", false, long(-1)),
            ("int unsigned", false, long(1 << 32)),
            ("bit(1)", false, long(2)),
            ("bit(1)", false, long(-1)),
            ("year", false, long(-1)),
            ("year", false, long(10_000)),
            ("date", false, [long(0), long(1 << 31)].concat()),
            // 64 unsigned bits: no bytes, a negative number, more than 64 bits, and too many bytes.
            ("bigint unsigned", false, framed(&[])),
            ("bigint unsigned", false, framed(&[0xff])),
            ("bigint unsigned", false, framed(&[1, 0, 0, 0, 0, 0, 0, 0, 0])),
            ("bit(64)", false, framed(&[0; 10])),
            ("decimal(2,0)", false, framed(&[])),
            ("decimal(2,0)", false, framed(&[0, 1])),
            ("binary(2)", false, framed(&[1])),
        ] {
            let error = read(ty, nullable, &bytes).unwrap_err();
            assert!(matches!(error, WireError::CorruptColumn { .. }), "{ty}: {error}");
        }
    }

    #[test]
    fn unsigned_bigint_bytes_are_minimal() {
        for (value, bytes) in [
            (0, &[2u8, 0][..]),
            (127, &[2, 127]),
            (128, &[4, 0, 128]),
            (u64::MAX, &[18, 0, 255, 255, 255, 255, 255, 255, 255, 255]),
        ] {
            let mut out = Vec::new();
            put(&mut out, &column("bigint unsigned", false), &Value::UInt(value)).unwrap();
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn decimal_byte_bounds() {
        for (digits, bytes) in [(1, 1), (2, 1), (3, 2), (4, 2), (7, 4), (9, 4), (18, 8), (20, 9), (65, 28)] {
            assert_eq!(decimal_bytes(digits), bytes, "{digits}");
        }
    }
}
