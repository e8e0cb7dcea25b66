//! The representation of MySQL values in CEL.

use cel::common::types::{CelBytes, CelDouble, CelInt, CelNull, CelString, CelTimestamp, CelUInt};
use cel::common::value::CowVal;
use chrono::DateTime;
use tandem_model::{ColumnType, Value};

/// The CEL type of a column's values. Types without an exact form in CEL, such as DECIMAL and TIME, are not
/// supported.
///
/// | MySQL | CEL |
/// |---|---|
/// | TINYINT … BIGINT, YEAR | int |
/// | the same UNSIGNED | uint |
/// | FLOAT, DOUBLE | double, the exact binary value |
/// | texts, ENUM and SET by name | string |
/// | binaries | bytes |
/// | TIMESTAMP | timestamp |
/// | DATETIME, DATE | timestamp, read as UTC |
/// | NULL | null |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Timestamp,
    DateTime,
    Date,
}

impl Form {
    /// The form of a column's values. `None` if CEL has no exact form for them.
    pub(super) fn of(ty: &ColumnType) -> Option<Self> {
        Some(match ty {
            ColumnType::Int { unsigned: false, .. } | ColumnType::Year => Self::Int,
            ColumnType::Int { unsigned: true, .. } | ColumnType::Bit { .. } => Self::Uint,
            ColumnType::Float | ColumnType::Double => Self::Double,
            ColumnType::Text | ColumnType::Enum(_) | ColumnType::Set(_) => Self::Text,
            ColumnType::Bytes { .. } => Self::Bytes,
            ColumnType::Timestamp { .. } => Self::Timestamp,
            ColumnType::DateTime { .. } => Self::DateTime,
            ColumnType::Date => Self::Date,
            ColumnType::Decimal { .. }
            | ColumnType::Time { .. }
            | ColumnType::Json
            | ColumnType::Geometry
            | ColumnType::Vector => return None,
        })
    }

    /// Checks that `value` has this form or is NULL.
    ///
    /// # Errors
    ///
    /// The kind of the value, if it has another form or is NaN.
    pub(super) fn check(self, value: &Value) -> Result<(), &'static str> {
        let fits = match value {
            Value::Null => true,
            Value::Int(_) => self == Self::Int,
            Value::UInt(_) => self == Self::Uint,
            Value::Float(v) => self == Self::Double && !v.is_nan(),
            Value::Double(v) => self == Self::Double && !v.is_nan(),
            Value::Text(_) => self == Self::Text,
            Value::Bytes(_) => self == Self::Bytes,
            Value::Timestamp(_) => self == Self::Timestamp,
            Value::DateTime(_) => self == Self::DateTime,
            Value::Date(_) => self == Self::Date,
            Value::Decimal(_) | Value::Time(_) | Value::InvalidDate(_) => false,
        };
        if fits { Ok(()) } else { Err(value.kind()) }
    }
}

/// A value in CEL, borrowed if possible. `None` if it has no form in CEL.
pub(super) fn cel_value(value: &Value) -> Option<CowVal<'_, '_>> {
    let timestamp = |microseconds: i64| {
        let time = DateTime::from_timestamp_micros(microseconds)?;
        Some(CowVal::owned(CelTimestamp::from(time.fixed_offset())))
    };
    Some(match value {
        Value::Null => CowVal::owned(CelNull),
        Value::Int(v) => CowVal::owned(CelInt::from(*v)),
        Value::UInt(v) => CowVal::owned(CelUInt::from(*v)),
        Value::Float(v) => CowVal::owned(CelDouble::from(f64::from(*v))),
        Value::Double(v) => CowVal::owned(CelDouble::from(*v)),
        Value::Text(v) => CowVal::owned(CelString::from(v.as_str())),
        Value::Bytes(v) => CowVal::owned(CelBytes::from(v.as_slice())),
        Value::Timestamp(us) | Value::DateTime(us) => timestamp(*us)?,
        Value::Date(days) => timestamp(i64::from(*days) * 86_400_000_000)?,
        Value::Decimal(_) | Value::Time(_) | Value::InvalidDate(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_forms_and_nan_are_refused() {
        for (value, form) in [
            (Value::Int(1), Form::Int),
            (Value::UInt(1), Form::Uint),
            (Value::Float(1.0), Form::Double),
            (Value::Double(1.0), Form::Double),
            (Value::Text("a".into()), Form::Text),
        ] {
            assert_eq!(form.check(&value), Ok(()));
            let other = if form == Form::Int { Form::Double } else { Form::Int };
            assert_eq!(other.check(&value), Err(value.kind()));
        }
        assert!(Form::Double.check(&Value::Float(f32::NAN)).is_err());
        assert!(Form::Double.check(&Value::Double(f64::NAN)).is_err());
        assert!(Form::Date.check(&Value::InvalidDate("0000-00-00".into())).is_err());
    }
}
