//! Converts every MySQL value to a CQL type that holds it without loss.

use tandem_model::{ColumnType, CqlType, Decimal, Value};

/// The CQL type that holds every value of a MySQL type:
///
/// | MySQL | CQL |
/// |---|---|
/// | TINYINT, SMALLINT, INT, BIGINT | tinyint, smallint, int, bigint |
/// | the same UNSIGNED | the next wider type; BIGINT UNSIGNED: varint |
/// | MEDIUMINT, MEDIUMINT UNSIGNED, YEAR | int |
/// | FLOAT, DOUBLE, DECIMAL | float, double, decimal |
/// | DATE | date |
/// | TIME (−838 to +838 hours, which CQL's time cannot hold) | bigint, in microseconds |
/// | DATETIME, TIMESTAMP with up to 3 fraction digits | timestamp |
/// | DATETIME, TIMESTAMP with more fraction digits | bigint, in microseconds since the epoch |
/// | texts, ENUM, SET | text |
/// | BIT(1) to BIT(63) | bigint |
/// | BIT(64) | varint |
/// | JSON (as MySQL prints it) | text |
/// | binaries, GEOMETRY (SRID and WKB), VECTOR (whose values may be shorter than declared) | blob |
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
        ColumnType::Int { unsigned: true, .. } | ColumnType::Bit { bits: 64 } => CqlType::Varint,
        ColumnType::Float => CqlType::Float,
        ColumnType::Double => CqlType::Double,
        ColumnType::Decimal { .. } => CqlType::Decimal,
        ColumnType::Date => CqlType::Date,
        ColumnType::Time { .. } | ColumnType::Bit { .. } => CqlType::Bigint,
        ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => {
            if *fsp <= 3 {
                CqlType::Timestamp
            } else {
                CqlType::Bigint
            }
        }
        ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) | ColumnType::Json => CqlType::Text,
        ColumnType::Bytes { .. } | ColumnType::Geometry | ColumnType::Vector => CqlType::Blob,
    }
}

/// Whether a value has the same meaning and bytes in Cassandra under both types.
///
/// Equal CQL types are not enough. The scale of a DECIMAL, the padding of a BINARY and the origin of a number
/// of microseconds are not part of the CQL type.
pub(crate) fn stored_alike(a: &ColumnType, b: &ColumnType) -> bool {
    #[derive(PartialEq)]
    enum Form {
        Plain,
        Scale(u8),
        Padded(u16),
        Time,
        DateTime,
        Timestamp,
        Json,
        Geometry,
        Vector,
    }
    let form = |ty: &ColumnType| match ty {
        ColumnType::Decimal { scale, .. } => Form::Scale(*scale),
        ColumnType::Bytes { fixed: Some(length) } => Form::Padded(*length),
        ColumnType::Time { .. } => Form::Time,
        ColumnType::DateTime { .. } => Form::DateTime,
        ColumnType::Timestamp { .. } => Form::Timestamp,
        ColumnType::Json => Form::Json,
        ColumnType::Geometry => Form::Geometry,
        ColumnType::Vector => Form::Vector,
        _ => Form::Plain,
    };
    cql_type(a) == cql_type(b) && form(a) == form(b)
}

/// Why a value cannot be converted to CQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// A zero or partial date.
    InvalidDate,
    /// The kind of the value does not match the type.
    Kind,
    /// The value is outside the range of the type.
    Range,
}

/// Serialises a value of a MySQL type as its [`cql_type`] (CQL binary protocol v5, section 6). NULL has no
/// serialised form.
pub(crate) fn to_cql(ty: &ColumnType, value: &Value) -> Result<Vec<u8>, Unfit> {
    Ok(match (ty, value) {
        (_, Value::InvalidDate(_)) => return Err(Unfit::InvalidDate),
        (ColumnType::Int { unsigned: false, .. } | ColumnType::Year, Value::Int(v)) => {
            integer(cql_type(ty), *v)?
        }
        (ColumnType::Int { unsigned: true, bits: 64 } | ColumnType::Bit { bits: 64 }, Value::UInt(v)) => {
            varint(*v)
        }
        (ColumnType::Int { unsigned: true, .. } | ColumnType::Bit { .. }, Value::UInt(v)) => {
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
        (ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) | ColumnType::Json, Value::Text(v)) => {
            v.as_bytes().to_vec()
        }
        (ColumnType::Bytes { .. } | ColumnType::Geometry | ColumnType::Vector, Value::Bytes(v)) => v.clone(),
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

/// The minimal big-endian two's complement of a non-negative number.
fn varint(v: u64) -> Vec<u8> {
    let bytes = u128::from(v).to_be_bytes();
    let unused = (v.leading_zeros() as usize + 64) / 8;
    // The leading bit is the sign and must be 0.
    let start = if unused == 16 || bytes[unused] >= 0x80 { unused - 1 } else { unused };
    bytes[start..].to_vec()
}

/// The inverse of [`to_cql`]. `None` if the bytes are not a value of that type.
pub(crate) fn from_cql(ty: &ColumnType, bytes: &[u8]) -> Option<Value> {
    Some(match ty {
        ColumnType::Int { unsigned: true, bits: 64 } | ColumnType::Bit { bits: 64 } => {
            // The sign bit, then at most 64 bits.
            let (&first, _) = bytes.split_first()?;
            if first >= 0x80 || bytes.len() > 9 || bytes.len() == 9 && first != 0 {
                return None;
            }
            Value::UInt(bytes.iter().fold(0, |v, &b| v << 8 | u64::from(b)))
        }
        ColumnType::Int { unsigned: true, .. } | ColumnType::Bit { .. } => {
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
        ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) | ColumnType::Json => {
            Value::Text(String::from_utf8(bytes.to_vec()).ok()?)
        }
        ColumnType::Bytes { .. } | ColumnType::Geometry | ColumnType::Vector => Value::Bytes(bytes.to_vec()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str, scale: u32) -> Value {
        Value::Decimal(Decimal::parse(text, scale).unwrap())
    }

    /// MySQL type, value, CQL type, serialised bytes.
    fn table() -> Vec<(&'static str, Value, CqlType, Vec<u8>)> {
        let mut rows = vec![
            ("tinyint", Value::Int(-128), CqlType::Tinyint, vec![0x80]),
            ("tinyint unsigned", Value::UInt(255), CqlType::Smallint, vec![0, 0xff]),
            ("smallint", Value::Int(-2), CqlType::Smallint, vec![0xff, 0xfe]),
            ("smallint unsigned", Value::UInt(65_535), CqlType::Int, vec![0, 0, 0xff, 0xff]),
            ("mediumint", Value::Int(-8_388_608), CqlType::Int, vec![0xff, 0x80, 0, 0]),
            ("mediumint unsigned", Value::UInt(16_777_215), CqlType::Int, vec![0, 0xff, 0xff, 0xff]),
            ("int", Value::Int(i32::MIN.into()), CqlType::Int, vec![0x80, 0, 0, 0]),
            (
                "int unsigned",
                Value::UInt(u32::MAX.into()),
                CqlType::Bigint,
                vec![0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            ),
            ("bigint", Value::Int(i64::MIN), CqlType::Bigint, vec![0x80, 0, 0, 0, 0, 0, 0, 0]),
            ("year", Value::Int(2155), CqlType::Int, vec![0, 0, 0x08, 0x6b]),
            ("float", Value::Float(-1.5), CqlType::Float, vec![0xbf, 0xc0, 0, 0]),
            ("double", Value::Double(-0.0), CqlType::Double, vec![0x80, 0, 0, 0, 0, 0, 0, 0]),
            ("decimal(10,2)", decimal("0", 2), CqlType::Decimal, vec![0, 0, 0, 2, 0]),
            ("decimal(10,2)", decimal("-1.28", 2), CqlType::Decimal, vec![0, 0, 0, 2, 0x80]),
            ("decimal(10,2)", decimal("1.28", 2), CqlType::Decimal, vec![0, 0, 0, 2, 0, 0x80]),
            ("decimal(5,0)", decimal("-1", 0), CqlType::Decimal, vec![0, 0, 0, 0, 0xff]),
            ("date", Value::Date(0), CqlType::Date, vec![0x80, 0, 0, 0]),
            ("date", Value::Date(-1), CqlType::Date, vec![0x7f, 0xff, 0xff, 0xff]),
            ("time(6)", Value::Time(-1), CqlType::Bigint, vec![0xff; 8]),
            ("datetime", Value::DateTime(1_000_000), CqlType::Timestamp, vec![0, 0, 0, 0, 0, 0, 0x03, 0xe8]),
            ("datetime(3)", Value::DateTime(-1_000), CqlType::Timestamp, vec![0xff; 8]),
            ("datetime(4)", Value::DateTime(-100), CqlType::Bigint, [&[0xff; 7][..], &[0x9c]].concat()),
            ("timestamp(3)", Value::Timestamp(2_000), CqlType::Timestamp, vec![0, 0, 0, 0, 0, 0, 0, 2]),
            ("timestamp(6)", Value::Timestamp(1), CqlType::Bigint, vec![0, 0, 0, 0, 0, 0, 0, 1]),
            ("text", Value::Text("\u{e9}".into()), CqlType::Text, vec![0xc3, 0xa9]),
            ("enum('a','b')", Value::Text("b".into()), CqlType::Text, vec![b'b']),
            ("set('a','b')", Value::Text("a,b".into()), CqlType::Text, b"a,b".to_vec()),
            ("blob", Value::Bytes(vec![]), CqlType::Blob, vec![]),
            ("binary(2)", Value::Bytes(vec![1, 0]), CqlType::Blob, vec![1, 0]),
            ("bit(1)", Value::UInt(1), CqlType::Bigint, vec![0, 0, 0, 0, 0, 0, 0, 1]),
            ("bit(63)", Value::UInt(u64::MAX >> 1), CqlType::Bigint, [&[0x7f][..], &[0xff; 7]].concat()),
            ("bit(64)", Value::UInt(u64::MAX), CqlType::Varint, [&[0][..], &[0xff; 8]].concat()),
            ("json", Value::Text("[1, 2]".into()), CqlType::Text, b"[1, 2]".to_vec()),
            ("point", Value::Bytes(vec![0; 4]), CqlType::Blob, vec![0; 4]),
            ("vector(1)", Value::Bytes(vec![0; 4]), CqlType::Blob, vec![0; 4]),
        ];
        for (value, bytes) in [
            (0, vec![0]),
            (1, vec![1]),
            (127, vec![0x7f]),
            (128, vec![0, 0x80]),
            (255, vec![0, 0xff]),
            (256, vec![1, 0]),
            (u64::MAX >> 1, [&[0x7f][..], &[0xff; 7]].concat()),
            (u64::MAX, [&[0][..], &[0xff; 8]].concat()),
        ] {
            rows.push(("bigint unsigned", Value::UInt(value), CqlType::Varint, bytes));
        }
        rows
    }

    #[test]
    fn types_are_stored_alike_only_with_the_same_meaning() {
        let alike = |a: &str, b: &str| stored_alike(&a.parse().unwrap(), &b.parse().unwrap());
        for (a, b) in [
            ("int", "int"),
            ("decimal(10,2)", "decimal(12,2)"),
            ("text", "enum('a')"),
            ("datetime(1)", "datetime(2)"),
            ("binary(2)", "binary(2)"),
        ] {
            assert!(alike(a, b) && alike(b, a), "{a} {b}");
        }
        // These pairs have the same CQL type.
        for (a, b) in [
            ("decimal(10,2)", "decimal(10,3)"),
            ("binary(2)", "binary(3)"),
            ("binary(2)", "varbinary"),
            ("time(6)", "bigint"),
            ("datetime(6)", "bigint"),
            ("timestamp(6)", "bigint"),
            ("datetime(6)", "timestamp(6)"),
            ("time(6)", "datetime(6)"),
            ("json", "text"),
            ("geometry", "varbinary"),
            ("vector", "varbinary"),
            ("geometry", "vector"),
        ] {
            assert_eq!(cql_type(&a.parse().unwrap()), cql_type(&b.parse().unwrap()), "{a} {b}");
            assert!(!alike(a, b) && !alike(b, a), "{a} {b}");
        }
    }

    #[test]
    fn conversions_have_inverses() {
        for (ty, value, cql, bytes) in table() {
            let ty: ColumnType = ty.parse().unwrap();
            assert_eq!(cql_type(&ty), cql, "{ty}");
            assert_eq!(to_cql(&ty, &value), Ok(bytes.clone()), "{ty} {value:?}");
            assert_eq!(from_cql(&ty, &bytes), Some(value), "{ty}");
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        for (ty, value, unfit) in [
            ("date", Value::InvalidDate("0000-00-00".into()), Unfit::InvalidDate),
            ("tinyint", Value::Int(128), Unfit::Range),
            ("smallint unsigned", Value::UInt(u64::MAX), Unfit::Range),
            ("datetime(3)", Value::DateTime(1), Unfit::Range),
            ("decimal(10,2)", decimal("1.0", 1), Unfit::Range),
            ("int", Value::UInt(1), Unfit::Kind),
            ("datetime", Value::Timestamp(0), Unfit::Kind),
            ("text", Value::Null, Unfit::Kind),
        ] {
            assert_eq!(to_cql(&ty.parse().unwrap(), &value), Err(unfit), "{ty}");
        }
    }

    #[test]
    fn bytes_of_another_type_are_refused() {
        for (ty, bytes) in [
            ("int", &[0, 0, 0][..]),
            ("int unsigned", &[0xff; 8]),
            ("bigint unsigned", &[]),
            ("bigint unsigned", &[0x80]),
            ("bigint unsigned", &[1, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("decimal(10,2)", &[0, 0, 0, 2]),
            ("datetime", &[0x7f, 0, 0, 0, 0, 0, 0, 0]),
            ("date", &[0]),
            ("text", &[0xff]),
        ] {
            assert_eq!(from_cql(&ty.parse().unwrap(), bytes), None, "{ty} {bytes:?}");
        }
    }
}
