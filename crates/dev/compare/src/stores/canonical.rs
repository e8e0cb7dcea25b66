//! One spelling for a value, whichever store it came from.
//!
//! The comparison must not trust the mapping, so it uses nothing of Tandem. A MySQL value and a Cassandra
//! value are each turned into text by separate rules, and the texts are compared. The limits of the CQL type
//! decide the spelling. Example: a `timestamp` has milliseconds, so a MySQL fraction is cut to three digits.
//! A `decimal` has no display width, so trailing zeros are removed.

use anyhow::{Context, Result, bail};
use mysql_async::Value;
use num_bigint::BigInt;
use scylla::cluster::metadata::{ColumnType, NativeType};
use scylla::value::CqlValue;
use time::Date;

/// How values of a CQL type are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In decimal digits.
    Integer,
    /// In decimal digits, without trailing zeros.
    Decimal,
    /// The shortest text of a binary32 that reads back as the same number.
    Float,
    /// The same of a binary64.
    Double,
    /// `true` or `false`.
    Boolean,
    /// As it is.
    Text,
    /// In hexadecimal.
    Bytes,
    /// `YYYY-MM-DD`.
    Date,
    /// `YYYY-MM-DD hh:mm:ss.mmm`.
    Timestamp,
}

impl Form {
    /// The form for a CQL type.
    ///
    /// # Errors
    /// If the comparison does not support the type.
    pub fn of(ty: &ColumnType<'_>) -> Result<Self> {
        let ColumnType::Native(native) = ty else { bail!("no plain column type: {ty:?}") };
        Ok(match native {
            NativeType::TinyInt
            | NativeType::SmallInt
            | NativeType::Int
            | NativeType::BigInt
            | NativeType::Varint => Self::Integer,
            NativeType::Decimal => Self::Decimal,
            NativeType::Float => Self::Float,
            NativeType::Double => Self::Double,
            NativeType::Boolean => Self::Boolean,
            NativeType::Text | NativeType::Ascii => Self::Text,
            NativeType::Blob => Self::Bytes,
            NativeType::Date => Self::Date,
            NativeType::Timestamp => Self::Timestamp,
            other => bail!("the comparison does not know the CQL type {other:?}"),
        })
    }
}

/// Spells a cell that Cassandra returned; `None` is null.
///
/// # Errors
/// If the comparison does not support the value.
pub fn of_cassandra(value: Option<&CqlValue>) -> Result<Option<String>> {
    let Some(value) = value else { return Ok(None) };
    Ok(Some(match value {
        CqlValue::TinyInt(v) => v.to_string(),
        CqlValue::SmallInt(v) => v.to_string(),
        CqlValue::Int(v) => v.to_string(),
        CqlValue::BigInt(v) => v.to_string(),
        CqlValue::Varint(v) => BigInt::from_signed_bytes_be(v.as_signed_bytes_be_slice()).to_string(),
        CqlValue::Decimal(v) => {
            let (unscaled, scale) = v.as_signed_be_bytes_slice_and_exponent();
            let unscaled = BigInt::from_signed_bytes_be(unscaled);
            normal_decimal(&point(&unscaled.to_string(), scale)?)
        }
        CqlValue::Float(v) => format!("{v:?}"),
        CqlValue::Double(v) => format!("{v:?}"),
        CqlValue::Boolean(v) => v.to_string(),
        CqlValue::Text(v) | CqlValue::Ascii(v) => v.clone(),
        CqlValue::Blob(v) => hex(v),
        CqlValue::Date(v) => day_text(i64::from(v.0) - (1 << 31))?,
        CqlValue::Timestamp(v) => millis_text(v.0)?,
        CqlValue::Empty => "<empty>".to_owned(),
        other => bail!("the comparison does not know this CQL value: {other:?}"),
    }))
}

/// Spells a value that MySQL's binary protocol returned, in the form of the CQL type that it is compared
/// with. `data_type` is `information_schema.COLUMNS.DATA_TYPE`. `None` is NULL.
///
/// # Errors
/// If the value is no valid date, or text that is not UTF-8.
pub fn of_mysql(value: &Value, data_type: &str, form: Form) -> Result<Option<String>> {
    Ok(Some(match value {
        Value::NULL => return Ok(None),
        Value::Int(v) if form == Form::Boolean => (*v != 0).to_string(),
        Value::Int(v) => v.to_string(),
        Value::UInt(v) => v.to_string(),
        Value::Float(v) if form == Form::Double => format!("{:?}", f64::from(*v)),
        Value::Float(v) => format!("{v:?}"),
        Value::Double(v) => format!("{v:?}"),
        Value::Bytes(bytes) => of_bytes(bytes, data_type, form)?,
        Value::Date(year, month, day, hour, minute, second, micros) => {
            let date = format!("{year:04}-{month:02}-{day:02}");
            let clock = format!("{hour:02}:{minute:02}:{second:02}");
            match form {
                Form::Date => date,
                Form::Text if data_type == "date" => date,
                Form::Timestamp => format!("{date} {clock}.{:03}", micros / 1000),
                Form::Integer => {
                    let month = time::Month::try_from(*month).context("a date without a month")?;
                    let day = Date::from_calendar_date(i32::from(*year), month, *day).context("no date")?;
                    let seconds = i64::from(day.to_julian_day() - EPOCH_JULIAN_DAY) * 86_400
                        + i64::from(*hour) * 3600
                        + i64::from(*minute) * 60
                        + i64::from(*second);
                    (seconds * 1_000_000 + i64::from(*micros)).to_string()
                }
                _ => with_fraction(&format!("{date} {clock}"), *micros),
            }
        }
        Value::Time(negative, days, hours, minutes, seconds, micros) => {
            let hours = u64::from(*days) * 24 + u64::from(*hours);
            let sign = if *negative { "-" } else { "" };
            if form == Form::Integer {
                let whole = hours * 3600 + u64::from(*minutes) * 60 + u64::from(*seconds);
                match whole * 1_000_000 + u64::from(*micros) {
                    0 => "0".to_owned(),
                    all => format!("{sign}{all}"),
                }
            } else {
                with_fraction(&format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"), *micros)
            }
        }
    }))
}

fn of_bytes(bytes: &[u8], data_type: &str, form: Form) -> Result<String> {
    match data_type {
        _ if form == Form::Bytes => Ok(hex(bytes)),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Ok(hex(bytes)),
        "bit" => Ok(bytes.iter().fold(0_u64, |n, b| n << 8 | u64::from(*b)).to_string()),
        _ => {
            let text = std::str::from_utf8(bytes).context("MySQL returned text that is not UTF-8")?;
            let number = matches!(form, Form::Decimal | Form::Integer);
            Ok(if number && data_type == "decimal" { normal_decimal(text) } else { text.to_owned() })
        }
    }
}

/// Puts the decimal point `scale` digits from the right (or adds zeros, for a negative scale).
fn point(digits: &str, scale: i32) -> Result<String> {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |d| ("-", d));
    if scale.unsigned_abs() > 10_000 {
        bail!("a decimal with a scale of {scale}");
    }
    let shift = scale.unsigned_abs() as usize;
    if scale <= 0 {
        return Ok(format!("{sign}{digits}{}", "0".repeat(shift)));
    }
    let padded = format!("{digits:0>width$}", width = shift + 1);
    let (whole, fraction) = padded.split_at(padded.len() - shift);
    Ok(format!("{sign}{whole}.{fraction}"))
}

/// The canonical spelling of a decimal number.
fn normal_decimal(text: &str) -> String {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |r| ("-", r));
    let (whole, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    match (whole, fraction) {
        ("", "") => "0".to_owned(),
        (whole, fraction) => {
            let whole = if whole.is_empty() { "0" } else { whole };
            let point = if fraction.is_empty() { "" } else { "." };
            format!("{sign}{whole}{point}{fraction}")
        }
    }
}

const EPOCH_JULIAN_DAY: i32 = 2_440_588;

fn day_text(days_since_1970: i64) -> Result<String> {
    let julian =
        i32::try_from(days_since_1970 + i64::from(EPOCH_JULIAN_DAY)).context("a date out of range")?;
    let date = Date::from_julian_day(julian).context("a date out of range")?;
    Ok(format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()))
}

fn millis_text(millis: i64) -> Result<String> {
    let day = day_text(millis.div_euclid(86_400_000))?;
    let rest = millis.rem_euclid(86_400_000);
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    Ok(format!("{day} {hour:02}:{minute:02}:{:02}.{:03}", rest / 1000 % 60, rest % 1000))
}

fn with_fraction(text: &str, micros: u32) -> String {
    if micros == 0 {
        return text.to_owned();
    }
    format!("{text}.{micros:06}").trim_end_matches('0').to_owned()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::from("0x"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use scylla::value::{CqlDate, CqlDecimal, CqlTimestamp, CqlVarint};

    fn cql(value: &CqlValue) -> String {
        of_cassandra(Some(value)).unwrap().unwrap()
    }

    fn mysql(value: &Value, data_type: &str, form: Form) -> String {
        of_mysql(value, data_type, form).unwrap().unwrap()
    }

    fn decimal(unscaled: i64, scale: i32) -> CqlValue {
        let bytes = BigInt::from(unscaled).to_signed_bytes_be();
        CqlValue::Decimal(CqlDecimal::from_signed_be_bytes_and_exponent(bytes, scale))
    }

    #[test]
    fn null_is_not_a_text() {
        assert_eq!(of_cassandra(None).unwrap(), None);
        assert_eq!(of_mysql(&Value::NULL, "varchar", Form::Text).unwrap(), None);
        assert_eq!(mysql(&Value::Bytes(b"NULL".to_vec()), "varchar", Form::Text), "NULL");
        assert_eq!(mysql(&Value::Bytes(vec![]), "varchar", Form::Text), "");
    }

    #[test]
    fn decimals_compare_by_value() {
        for (unscaled, scale, text) in [
            (150, 2, "1.50"),
            (-5, 2, "-0.05"),
            (0, 2, "0.00"),
            (0, 2, "-0.00"),
            (12, -2, "1200"),
            (-12_345, 4, "-1.2345"),
            (100_000, 3, "100.000"),
        ] {
            let bytes = Value::Bytes(text.as_bytes().to_vec());
            assert_eq!(cql(&decimal(unscaled, scale)), mysql(&bytes, "decimal", Form::Decimal), "{text}");
        }
        assert_ne!(cql(&decimal(10, 0)), cql(&decimal(1, 0)));
    }

    #[test]
    fn times() {
        let instant = Value::Date(2024, 2, 29, 23, 59, 58, 987_654);
        let millis = CqlValue::Timestamp(CqlTimestamp(1_709_251_198_987));
        assert_eq!(mysql(&instant, "datetime", Form::Timestamp), cql(&millis));
        assert_eq!(mysql(&instant, "datetime", Form::Integer), "1709251198987654");
        assert_eq!(mysql(&instant, "datetime", Form::Text), "2024-02-29 23:59:58.987654");
        assert_eq!(cql(&CqlValue::Timestamp(CqlTimestamp(-1))), "1969-12-31 23:59:59.999");
        let day = Value::Date(1969, 12, 31, 0, 0, 0, 0);
        assert_eq!(mysql(&day, "date", Form::Date), cql(&CqlValue::Date(CqlDate((1 << 31) - 1))));
        let time = Value::Time(true, 1, 2, 3, 4, 500_000);
        assert_eq!(mysql(&time, "time", Form::Integer), "-93784500000");
        assert_eq!(mysql(&time, "time", Form::Text), "-26:03:04.5");
    }

    #[test]
    fn numbers_and_bytes() {
        let big = CqlVarint::from_signed_bytes_be(BigInt::from(u64::MAX).to_signed_bytes_be());
        assert_eq!(cql(&CqlValue::Varint(big)), mysql(&Value::UInt(u64::MAX), "bigint", Form::Integer));
        assert_eq!(cql(&CqlValue::TinyInt(-1)), mysql(&Value::Int(-1), "tinyint", Form::Integer));
        assert_eq!(mysql(&Value::Int(1), "tinyint", Form::Boolean), cql(&CqlValue::Boolean(true)));
        let bytes = Value::Bytes(vec![0, 255]);
        assert_eq!(mysql(&bytes, "binary", Form::Bytes), cql(&CqlValue::Blob(vec![0, 255])));
        assert_eq!(mysql(&Value::Float(0.1), "float", Form::Float), cql(&CqlValue::Float(0.1)));
        assert_eq!(mysql(&Value::Float(0.5), "float", Form::Double), cql(&CqlValue::Double(0.5)));
    }
}
