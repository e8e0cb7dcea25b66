//! Converts between the values of the binary protocol and [`Value`]: result cells and parameters.

use mysql_async::consts::{ColumnFlags, ColumnType as Wire};
use mysql_async::{Column, Value as Raw};
use tandem_model::{ColumnType, Decimal, Value};

use tandem_binlog::{DateTimeFields, Malformed};

/// Converts a result cell of a column of this type.
pub(crate) fn from_result(raw: Raw, ty: &ColumnType) -> Result<Value, Malformed> {
    let text =
        |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| Malformed::from("the text is not valid UTF-8"));
    Ok(match (ty, raw) {
        (_, Raw::NULL) => Value::Null,
        (ColumnType::Int { unsigned: false, .. } | ColumnType::Year, Raw::Int(n)) => Value::Int(n),
        (ColumnType::Int { unsigned: true, .. }, Raw::Int(n)) if n >= 0 => Value::UInt(n as u64),
        (ColumnType::Int { unsigned: true, .. }, Raw::UInt(n)) => Value::UInt(n),
        (ColumnType::Float, Raw::Float(x)) => Value::Float(x),
        (ColumnType::Double, Raw::Double(x)) => Value::Double(x),
        (ColumnType::Decimal { scale, .. }, Raw::Bytes(digits)) => Value::Decimal(
            Decimal::parse(&text(digits)?, (*scale).into()).map_err(|e| format!("the DECIMAL is {e}"))?,
        ),
        (ColumnType::Date, Raw::Date(year, month, day, ..)) => {
            DateTimeFields { year, month, day, ..DateTimeFields::default() }.date()
        }
        (ColumnType::DateTime { fsp }, Raw::Date(year, month, day, hour, minute, second, micros)) => {
            DateTimeFields { year, month, day, hour, minute, second, micros }.date_time(*fsp)
        }
        (ColumnType::Timestamp { fsp }, Raw::Date(year, month, day, hour, minute, second, micros)) => {
            DateTimeFields { year, month, day, hour, minute, second, micros }.timestamp(*fsp)
        }
        (ColumnType::Time { .. }, Raw::Time(negative, days, hours, minutes, seconds, micros)) => {
            let hours = i64::from(days) * 24 + i64::from(hours);
            let seconds = (hours * 60 + i64::from(minutes)) * 60 + i64::from(seconds);
            let micros = seconds * 1_000_000 + i64::from(micros);
            Value::Time(if negative { -micros } else { micros })
        }
        (ColumnType::Bit { .. }, Raw::Bytes(bytes)) if bytes.len() <= 8 => {
            Value::UInt(bytes.iter().fold(0, |bits, &b| bits << 8 | u64::from(b)))
        }
        (
            ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) | ColumnType::Json,
            Raw::Bytes(bytes),
        ) => Value::Text(text(bytes)?),
        (ColumnType::Bytes { .. } | ColumnType::Geometry | ColumnType::Vector, Raw::Bytes(bytes)) => {
            Value::Bytes(bytes)
        }
        (ty, _) => return Err(format!("it does not come as {ty}")),
    })
}

/// Converts a value to a parameter. Returns `None` for a value that MySQL cannot hold.
pub(crate) fn parameter(value: &Value) -> Option<Raw> {
    Some(match value {
        Value::Null => Raw::NULL,
        Value::Int(n) => Raw::Int(*n),
        Value::UInt(n) => Raw::UInt(*n),
        Value::Float(x) => Raw::Float(*x),
        Value::Double(x) => Raw::Double(*x),
        Value::Decimal(decimal) => Raw::Bytes(decimal.to_string().into_bytes()),
        Value::Date(_) | Value::DateTime(_) | Value::Timestamp(_) | Value::InvalidDate(_) => {
            let DateTimeFields { year, month, day, hour, minute, second, micros } =
                DateTimeFields::of(value)?;
            Raw::Date(year, month, day, hour, minute, second, micros)
        }
        Value::Time(micros) => {
            let magnitude = micros.unsigned_abs();
            let seconds = magnitude / 1_000_000;
            Raw::Time(
                *micros < 0,
                u32::try_from(seconds / 86_400).ok()?,
                (seconds / 3600 % 24) as u8,
                (seconds / 60 % 60) as u8,
                (seconds % 60) as u8,
                (magnitude % 1_000_000) as u32,
            )
        }
        Value::Text(text) => Raw::Bytes(text.clone().into_bytes()),
        Value::Bytes(bytes) => Raw::Bytes(bytes.clone()),
    })
}

/// Whether a result column can have this type.
pub(crate) fn is_of_type(column: &Column, ty: &ColumnType) -> bool {
    const BINARY: u16 = 63;
    let (wire, flags) = (column.column_type(), column.flags());
    let digits = |n: u8| column.decimals() == n;
    let enum_or_set = flags.intersects(ColumnFlags::ENUM_FLAG | ColumnFlags::SET_FLAG);
    let string = matches!(
        wire,
        Wire::MYSQL_TYPE_STRING
            | Wire::MYSQL_TYPE_VAR_STRING
            | Wire::MYSQL_TYPE_VARCHAR
            | Wire::MYSQL_TYPE_TINY_BLOB
            | Wire::MYSQL_TYPE_BLOB
            | Wire::MYSQL_TYPE_MEDIUM_BLOB
            | Wire::MYSQL_TYPE_LONG_BLOB
    );
    match ty {
        ColumnType::Int { bits, unsigned } => {
            let expected = match bits {
                8 => Wire::MYSQL_TYPE_TINY,
                16 => Wire::MYSQL_TYPE_SHORT,
                24 => Wire::MYSQL_TYPE_INT24,
                32 => Wire::MYSQL_TYPE_LONG,
                _ => Wire::MYSQL_TYPE_LONGLONG,
            };
            wire == expected && flags.contains(ColumnFlags::UNSIGNED_FLAG) == *unsigned
        }
        ColumnType::Float => wire == Wire::MYSQL_TYPE_FLOAT,
        ColumnType::Double => wire == Wire::MYSQL_TYPE_DOUBLE,
        ColumnType::Decimal { scale, .. } => wire == Wire::MYSQL_TYPE_NEWDECIMAL && digits(*scale),
        ColumnType::Year => wire == Wire::MYSQL_TYPE_YEAR,
        ColumnType::Date => matches!(wire, Wire::MYSQL_TYPE_DATE | Wire::MYSQL_TYPE_NEWDATE),
        ColumnType::Time { fsp } => wire == Wire::MYSQL_TYPE_TIME && digits(*fsp),
        ColumnType::DateTime { fsp } => wire == Wire::MYSQL_TYPE_DATETIME && digits(*fsp),
        ColumnType::Timestamp { fsp } => wire == Wire::MYSQL_TYPE_TIMESTAMP && digits(*fsp),
        ColumnType::Text => string && !enum_or_set && column.character_set() != BINARY,
        ColumnType::Bytes { .. } => string && !enum_or_set && column.character_set() == BINARY,
        ColumnType::Bit { .. } => wire == Wire::MYSQL_TYPE_BIT,
        ColumnType::Json => wire == Wire::MYSQL_TYPE_JSON,
        ColumnType::Geometry => wire == Wire::MYSQL_TYPE_GEOMETRY,
        ColumnType::Vector => wire == Wire::MYSQL_TYPE_VECTOR,
        ColumnType::Enum(_) => flags.contains(ColumnFlags::ENUM_FLAG),
        ColumnType::Set(_) => flags.contains(ColumnFlags::SET_FLAG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip_through_parameters() {
        let decimal = |text: &str| Value::Decimal(Decimal::parse(text, 2).unwrap());
        for (value, ty) in [
            (Value::Null, ColumnType::Date),
            (Value::Int(-7), ColumnType::Int { bits: 24, unsigned: false }),
            (Value::UInt(u64::MAX), ColumnType::Int { bits: 64, unsigned: true }),
            (decimal("-12.50"), ColumnType::Decimal { precision: 4, scale: 2 }),
            (Value::Date(-719_162), ColumnType::Date),
            (Value::DateTime(253_402_300_799_999_999), ColumnType::DateTime { fsp: 6 }),
            (Value::Timestamp(1_000_001), ColumnType::Timestamp { fsp: 6 }),
            (Value::Time(-3_020_399_000_001), ColumnType::Time { fsp: 6 }),
            (Value::InvalidDate("0000-00-00".into()), ColumnType::Date),
            (Value::InvalidDate("2024-00-07 01:02:03.45".into()), ColumnType::DateTime { fsp: 2 }),
            (Value::Text("é".into()), ColumnType::Text),
            (Value::Bytes(vec![0, 255]), ColumnType::Bytes { fixed: None }),
        ] {
            let raw = parameter(&value).unwrap();
            assert_eq!(from_result(raw, &ty).unwrap(), value);
        }
        assert!(from_result(Raw::Int(-1), &ColumnType::Int { bits: 8, unsigned: true }).is_err());
        assert!(from_result(Raw::Int(1), &ColumnType::Text).is_err());
        assert_eq!(parameter(&Value::InvalidDate("x".into())), None);
        assert_eq!(parameter(&Value::DateTime(i64::MAX)), None);
    }
}
