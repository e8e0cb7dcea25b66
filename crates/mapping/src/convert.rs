//! The default conversions: every MySQL value in a CQL type that holds it without loss.

use tandem_model::{ColumnType, CqlType, Decimal, Value};

/// The CQL type that holds every value of a MySQL type:
///
/// | MySQL | CQL |
/// |---|---|
/// | TINYINT, SMALLINT, INT, BIGINT | tinyint, smallint, int, bigint |
/// | the same UNSIGNED | the next wider one; BIGINT UNSIGNED: varint |
/// | MEDIUMINT, MEDIUMINT UNSIGNED, YEAR | int |
/// | FLOAT, DOUBLE, DECIMAL | float, double, decimal |
/// | DATE | date |
/// | TIME (−838 to +838 hours, so not CQL's time) | bigint, in microseconds |
/// | DATETIME, TIMESTAMP with up to 3 fraction digits | timestamp |
/// | the same with more | bigint, in microseconds since the epoch |
/// | texts, ENUM, SET | text |
/// | binaries | blob |
pub fn cql_type(ty: &ColumnType) -> CqlType {
    match ty {
        ColumnType::Int { bits: 8, unsigned: false } => CqlType::Tinyint,
        ColumnType::Int { bits: 8, unsigned: true } | ColumnType::Int { bits: 16, unsigned: false } => {
            CqlType::Smallint
        }
        ColumnType::Int { bits: 16 | 24, .. }
        | ColumnType::Int { bits: 32, unsigned: false }
        | ColumnType::Year => CqlType::Int,
        ColumnType::Int { bits: 32, unsigned: true } | ColumnType::Int { unsigned: false, .. } => {
            CqlType::Bigint
        }
        ColumnType::Int { unsigned: true, .. } => CqlType::Varint,
        ColumnType::Float => CqlType::Float,
        ColumnType::Double => CqlType::Double,
        ColumnType::Decimal { .. } => CqlType::Decimal,
        ColumnType::Date => CqlType::Date,
        ColumnType::Time { .. } => CqlType::Bigint,
        ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => {
            if *fsp <= 3 {
                CqlType::Timestamp
            } else {
                CqlType::Bigint
            }
        }
        ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) => CqlType::Text,
        ColumnType::Bytes { .. } => CqlType::Blob,
    }
}

/// Whether the same stored value gives the same bytes under both types. A DECIMAL's scale and a
/// BINARY's padding are part of the bytes though not of the CQL type.
pub(crate) fn stored_alike(a: &ColumnType, b: &ColumnType) -> bool {
    let padding = |ty: &ColumnType| match ty {
        ColumnType::Decimal { scale, .. } => Some(u16::from(*scale)),
        ColumnType::Bytes { fixed } => *fixed,
        _ => None,
    };
    let microseconds = |ty: &ColumnType| {
        matches!(ty, ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } | ColumnType::Time { .. })
    };
    cql_type(a) == cql_type(b) && padding(a) == padding(b) && microseconds(a) == microseconds(b)
}

/// Why a value has no CQL form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// A zero or partial date.
    InvalidDate,
    /// Not a value of that type.
    Kind,
    /// Outside the type.
    Range,
}

/// A value of a MySQL type in the serialised form of its [`cql_type`] (CQL binary protocol v5,
/// section 6). NULL has no such form.
pub(crate) fn to_cql(ty: &ColumnType, value: &Value) -> Result<Vec<u8>, Unfit> {
    Ok(match (ty, value) {
        (_, Value::InvalidDate(_)) => return Err(Unfit::InvalidDate),
        (ColumnType::Int { unsigned: false, .. } | ColumnType::Year, Value::Int(v)) => {
            integer(cql_type(ty), *v)?
        }
        (ColumnType::Int { unsigned: true, bits: 64 }, Value::UInt(v)) => varint(*v),
        (ColumnType::Int { unsigned: true, .. }, Value::UInt(v)) => {
            integer(cql_type(ty), i64::try_from(*v).map_err(|_| Unfit::Range)?)?
        }
        (ColumnType::Float, Value::Float(v)) => v.to_be_bytes().to_vec(),
        (ColumnType::Double, Value::Double(v)) => v.to_be_bytes().to_vec(),
        (ColumnType::Decimal { scale, .. }, Value::Decimal(v)) => {
            if v.scale() != u32::from(*scale) {
                return Err(Unfit::Range);
            }
            let mut out = v.scale().to_be_bytes().to_vec();
            out.extend(v.unscaled_be_bytes());
            out
        }
        (ColumnType::Date, Value::Date(days)) => (i64::from(*days) + (1 << 31)).to_be_bytes()[4..].to_vec(),
        (ColumnType::Time { .. }, Value::Time(us)) => us.to_be_bytes().to_vec(),
        (ColumnType::DateTime { fsp }, Value::DateTime(us))
        | (ColumnType::Timestamp { fsp }, Value::Timestamp(us)) => match (*fsp <= 3, us.rem_euclid(1000)) {
            (true, 0) => us.div_euclid(1000).to_be_bytes().to_vec(),
            (true, _) => return Err(Unfit::Range),
            (false, _) => us.to_be_bytes().to_vec(),
        },
        (ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_), Value::Text(v)) => {
            v.as_bytes().to_vec()
        }
        (ColumnType::Bytes { .. }, Value::Bytes(v)) => v.clone(),
        _ => return Err(Unfit::Kind),
    })
}

fn integer(ty: CqlType, v: i64) -> Result<Vec<u8>, Unfit> {
    let range = |_| Unfit::Range;
    Ok(match ty {
        CqlType::Tinyint => i8::try_from(v).map_err(range)?.to_be_bytes().to_vec(),
        CqlType::Smallint => i16::try_from(v).map_err(range)?.to_be_bytes().to_vec(),
        CqlType::Int => i32::try_from(v).map_err(range)?.to_be_bytes().to_vec(),
        _ => v.to_be_bytes().to_vec(),
    })
}

/// Minimal big-endian two's complement of a number that is not negative.
fn varint(v: u64) -> Vec<u8> {
    let bytes = u128::from(v).to_be_bytes();
    let unused = (v.leading_zeros() as usize + 64) / 8;
    // One leading bit must be 0 for the sign.
    let start = if unused == 16 || bytes[unused] >= 0x80 { unused - 1 } else { unused };
    bytes[start..].to_vec()
}

/// The inverse of [`to_cql`]; nothing if the bytes are not of that type.
pub(crate) fn from_cql(ty: &ColumnType, bytes: &[u8]) -> Option<Value> {
    Some(match ty {
        ColumnType::Int { unsigned: true, bits: 64 } => {
            // Sign bit, then at most 64 bits.
            let (&first, _) = bytes.split_first()?;
            if first >= 0x80 || bytes.len() > 9 || bytes.len() == 9 && first != 0 {
                return None;
            }
            Value::UInt(bytes.iter().fold(0, |v, &b| v << 8 | u64::from(b)))
        }
        ColumnType::Int { unsigned: true, .. } => {
            Value::UInt(u64::try_from(signed(cql_type(ty), bytes)?).ok()?)
        }
        ColumnType::Int { unsigned: false, .. } | ColumnType::Year => {
            Value::Int(signed(cql_type(ty), bytes)?)
        }
        ColumnType::Float => Value::Float(f32::from_be_bytes(bytes.try_into().ok()?)),
        ColumnType::Double => Value::Double(f64::from_be_bytes(bytes.try_into().ok()?)),
        ColumnType::Decimal { .. } => {
            let (scale, unscaled) = bytes.split_first_chunk()?;
            if unscaled.is_empty() {
                return None;
            }
            Value::Decimal(Decimal::from_be_bytes(unscaled, u32::from_be_bytes(*scale)))
        }
        ColumnType::Date => {
            Value::Date((i64::from(u32::from_be_bytes(bytes.try_into().ok()?)) - (1 << 31)) as i32)
        }
        ColumnType::Time { .. } => Value::Time(signed(CqlType::Bigint, bytes)?),
        ColumnType::DateTime { fsp } => Value::DateTime(microseconds(*fsp, bytes)?),
        ColumnType::Timestamp { fsp } => Value::Timestamp(microseconds(*fsp, bytes)?),
        ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) => {
            Value::Text(String::from_utf8(bytes.to_vec()).ok()?)
        }
        ColumnType::Bytes { .. } => Value::Bytes(bytes.to_vec()),
    })
}

fn signed(ty: CqlType, bytes: &[u8]) -> Option<i64> {
    Some(match ty {
        CqlType::Tinyint => i8::from_be_bytes(bytes.try_into().ok()?).into(),
        CqlType::Smallint => i16::from_be_bytes(bytes.try_into().ok()?).into(),
        CqlType::Int => i32::from_be_bytes(bytes.try_into().ok()?).into(),
        _ => i64::from_be_bytes(bytes.try_into().ok()?),
    })
}

fn microseconds(fsp: u8, bytes: &[u8]) -> Option<i64> {
    signed(CqlType::Bigint, bytes)?.checked_mul(if fsp <= 3 { 1000 } else { 1 })
}
