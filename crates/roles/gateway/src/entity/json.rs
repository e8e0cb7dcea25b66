//! Lossless conversion of values to and from JSON, by column type.
//!
//! | MySQL | JSON |
//! |---|---|
//! | integers | a number; beyond ±(2⁵³ − 1) a string. Both are accepted |
//! | DECIMAL | a string such as `"12.50"`; a number is accepted digit by digit |
//! | FLOAT, DOUBLE, YEAR, BIT | a number |
//! | DATE | `"2024-02-29"` |
//! | TIME | `"-12:30:00.5"`, from −838:59:59 to 838:59:59 |
//! | DATETIME | `"2024-02-29T12:30:00.5"`, without a zone |
//! | TIMESTAMP | `"2024-02-29T12:30:00.5Z"`; other offsets are accepted |
//! | texts, ENUM, SET | a string |
//! | JSON | a string that holds the document |
//! | binaries | a string, base64 |
//! | GEOMETRY, VECTOR | a string, base64 of MySQL's bytes; read only |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;
use tandem_http_api::Problem;
use tandem_model::{ColumnDef, ColumnType, Decimal, Value};

use crate::entity::datetime;
use crate::problem;

/// The largest integer that every JSON parser represents exactly.
const EXACT: u64 = (1 << 53) - 1;

/// The longest text of a DECIMAL, in bytes. MySQL's have 65 digits. Parsing takes the square of the length.
const MAX_DECIMAL: usize = 128;

/// The most members that MySQL allows in a SET.
const MAX_SET: usize = 64;

/// Converts a value to the JSON of the data API.
pub fn to_json(ty: &ColumnType, value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Int(n) if n.unsigned_abs() <= EXACT => (*n).into(),
        Value::UInt(n) if *n <= EXACT => (*n).into(),
        Value::Int(n) => n.to_string().into(),
        Value::UInt(n) => n.to_string().into(),
        // The shortest digits that parse to the same FLOAT, not those of the DOUBLE.
        Value::Float(x) => x.to_string().parse::<f64>().unwrap_or(f64::from(*x)).into(),
        Value::Double(x) => (*x).into(),
        _ => text_of(ty, value).into(),
    }
}

/// The canonical text of a value. JSON strings hold it, and cohorts are assigned by it.
pub(crate) fn text_of(ty: &ColumnType, value: &Value) -> String {
    let fsp = match ty {
        ColumnType::Time { fsp } | ColumnType::DateTime { fsp } | ColumnType::Timestamp { fsp } => *fsp,
        _ => 0,
    };
    match value {
        Value::Null => String::new(),
        Value::Int(n) => n.to_string(),
        Value::UInt(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Double(x) => x.to_string(),
        Value::Decimal(decimal) => decimal.to_string(),
        Value::Date(days) => datetime::date_text(*days),
        Value::Time(us) => datetime::time_text(*us, fsp),
        Value::DateTime(us) => datetime::date_time_text(*us, fsp),
        Value::Timestamp(us) => datetime::date_time_text(*us, fsp) + "Z",
        Value::Text(text) | Value::InvalidDate(text) => text.clone(),
        Value::Bytes(bytes) => BASE64.encode(bytes),
    }
}

/// Parses the value of a column from the text of one JSON value.
pub(crate) fn from_json(column: &ColumnDef, raw: &str) -> Result<Value, Problem> {
    let raw = raw.trim();
    match raw.as_bytes().first() {
        Some(b'n') if column.nullable => Ok(Value::Null),
        Some(b'n') => Err(problem::invalid(&column.name, "it may not be null")),
        Some(b'"') => {
            let text: String = serde_json::from_str(raw)
                .map_err(|_| problem::invalid(&column.name, "its string is not valid Unicode"))?;
            from_text(column, &text)
        }
        Some(b'-' | b'0'..=b'9') if is_number(&column.ty) => from_text(column, raw),
        _ => Err(problem::invalid(&column.name, format!("{} is expected", expected(&column.ty)))),
    }
}

/// Parses the value of a column from its text in a path, a query or a JSON string.
pub(crate) fn from_text(column: &ColumnDef, text: &str) -> Result<Value, Problem> {
    parse(&column.ty, text)
        .map_err(|why| problem::invalid(&column.name, format!("{}: {why}", expected_here(&column.ty))))
}

fn parse(ty: &ColumnType, text: &str) -> Result<Value, &'static str> {
    const NUMBER: &str = "it is not a number of this type, or it is out of range";
    Ok(match ty {
        ColumnType::Int { bits, unsigned: false } => {
            let n: i64 = text.parse().map_err(|_| NUMBER)?;
            let most = i64::MAX >> (64 - bits);
            if n > most || n < -most - 1 {
                return Err(NUMBER);
            }
            Value::Int(n)
        }
        ColumnType::Int { bits, unsigned: true } => {
            let n: u64 = text.parse().map_err(|_| NUMBER)?;
            if n > u64::MAX >> (64 - bits) {
                return Err(NUMBER);
            }
            Value::UInt(n)
        }
        ColumnType::Bit { bits } => {
            let n: u64 = text.parse().map_err(|_| NUMBER)?;
            if n > u64::MAX >> (64 - bits) {
                return Err(NUMBER);
            }
            Value::UInt(n)
        }
        ColumnType::Year => match text.parse() {
            Ok(year @ (0 | 1901..=2155)) => Value::Int(year),
            _ => return Err("it is not a year from 1901 to 2155, or 0"),
        },
        ColumnType::Float => Value::Float(text.parse().ok().filter(|x: &f32| x.is_finite()).ok_or(NUMBER)?),
        ColumnType::Double => Value::Double(text.parse().ok().filter(|x: &f64| x.is_finite()).ok_or(NUMBER)?),
        ColumnType::Decimal { .. } if text.len() > MAX_DECIMAL => return Err(NUMBER),
        ColumnType::Decimal { precision, scale } => {
            let decimal = Decimal::parse(text, (*scale).into()).map_err(|_| NUMBER)?;
            let digits = decimal.to_string().bytes().filter(u8::is_ascii_digit).count();
            let leading = usize::from(decimal.to_string().trim_start_matches('-').starts_with("0."))
                + usize::from(*scale == 0 && decimal.to_string() == "0");
            if digits - leading > usize::from(*precision) {
                return Err(NUMBER);
            }
            Value::Decimal(decimal)
        }
        ColumnType::Date => Value::Date(datetime::parse_date(text).ok_or("it is not a valid date")?),
        ColumnType::Time { fsp } => {
            Value::Time(datetime::parse_time(text, *fsp).ok_or("it is not a valid time")?)
        }
        ColumnType::DateTime { fsp } => {
            let (us, zone) = datetime::parse_date_time(text, *fsp).ok_or("it is not a valid time")?;
            if zone.is_some() {
                return Err("it may not have a zone");
            }
            Value::DateTime(us)
        }
        ColumnType::Timestamp { fsp } => {
            let (us, zone) = datetime::parse_date_time(text, *fsp).ok_or("it is not a valid time")?;
            Value::Timestamp(us - zone.ok_or("it has no zone, such as Z")?)
        }
        ColumnType::Text | ColumnType::Json => Value::Text(text.to_owned()),
        ColumnType::Geometry | ColumnType::Vector => return Err("columns of this type are read-only here"),
        ColumnType::Enum(members) => {
            if !members.iter().any(|member| member == text) {
                return Err("it is not a member");
            }
            Value::Text(text.to_owned())
        }
        ColumnType::Set(members) => {
            let chosen = text.split(',').filter(|t| !t.is_empty());
            let chosen: Vec<&str> = chosen.take(MAX_SET + 1).collect();
            if chosen.len() > MAX_SET || !chosen.iter().all(|one| members.iter().any(|member| member == one))
            {
                return Err("not all are members");
            }
            // MySQL keeps them in the order of the definition.
            let kept: Vec<&str> =
                members.iter().map(String::as_str).filter(|member| chosen.contains(member)).collect();
            Value::Text(kept.join(","))
        }
        ColumnType::Bytes { fixed } => {
            let mut bytes = BASE64.decode(text).map_err(|_| "it is not base64")?;
            if let Some(length) = fixed {
                if bytes.len() > usize::from(*length) {
                    return Err("it is too long");
                }
                bytes.resize((*length).into(), 0);
            }
            Value::Bytes(bytes)
        }
    })
}

fn is_number(ty: &ColumnType) -> bool {
    matches!(
        ty,
        ColumnType::Int { .. }
            | ColumnType::Float
            | ColumnType::Double
            | ColumnType::Decimal { .. }
            | ColumnType::Year
            | ColumnType::Bit { .. }
    )
}

fn expected(ty: &ColumnType) -> String {
    if is_number(ty) { format!("a number ({ty}), or a string of one,") } else { format!("a string ({ty})") }
}

fn expected_here(ty: &ColumnType) -> String {
    format!("not a value of {ty}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::OfField as _;
    use proptest::prelude::*;

    fn column(ty: &str) -> ColumnDef {
        ColumnDef { name: "c".into(), ty: ty.parse().unwrap(), nullable: true }
    }

    /// Parses JSON and converts the value back to JSON.
    fn round_trip(ty: &str, raw: &str) -> Result<String, Problem> {
        let column = column(ty);
        from_json(&column, raw).map(|value| to_json(&column.ty, &value).to_string())
    }

    #[test]
    fn every_type_round_trips() {
        for (ty, raw, out) in [
            ("int", "-2147483648", "-2147483648"),
            ("int", "\"7\"", "7"),
            ("bigint", "9007199254740991", "9007199254740991"),
            ("bigint", "9007199254740993", "\"9007199254740993\""),
            ("bigint", "\"-9223372036854775808\"", "\"-9223372036854775808\""),
            ("bigint unsigned", "18446744073709551615", "\"18446744073709551615\""),
            ("decimal(30,10)", "12345678901234567890.0123456789", "\"12345678901234567890.0123456789\""),
            ("decimal(5,2)", "\"-0.5\"", "\"-0.50\""),
            ("decimal(2,2)", "0.12", "\"0.12\""),
            ("decimal(3,0)", "999", "\"999\""),
            ("decimal(65,0)", "0", "\"0\""),
            ("float", "0.1", "0.1"),
            ("double", "-1e300", "-1e+300"),
            ("year", "2024", "2024"),
            ("date", "\"2024-02-29\"", "\"2024-02-29\""),
            ("time(2)", "\"-838:59:59.50\"", "\"-838:59:59.50\""),
            ("datetime(6)", "\"1969-12-31T23:59:59.999999\"", "\"1969-12-31T23:59:59.999999\""),
            ("datetime", "\"2024-02-29 12:30:00\"", "\"2024-02-29T12:30:00\""),
            ("timestamp(3)", "\"2024-02-29T01:30:00.5+02:00\"", "\"2024-02-28T23:30:00.500Z\""),
            ("text", "\"é\\u0000\\ud83d\\ude00\"", "\"é\\u0000😀\""),
            ("enum('a','b')", "\"b\"", "\"b\""),
            ("set('a','b','c')", "\"c,a\"", "\"a,c\""),
            ("varbinary(9)", "\"AP8=\"", "\"AP8=\""),
            ("binary(3)", "\"AP8=\"", "\"AP8A\""),
            ("int", "null", "null"),
        ] {
            assert_eq!(round_trip(ty, raw).as_deref(), Ok(out), "{ty} {raw}");
        }
    }

    #[test]
    fn values_that_would_change_are_rejected() {
        for (ty, raw) in [
            ("tinyint", "128"),
            ("mediumint unsigned", "16777216"),
            ("int", "1.0"),
            ("int", "1e3"),
            ("int", "true"),
            ("int unsigned", "-1"),
            ("bigint", "9223372036854775808"),
            ("decimal(4,2)", "100"),
            ("decimal(4,2)", "1.005"),
            ("float", "1e39"),
            ("year", "1900"),
            ("date", "\"2023-02-29\""),
            ("date", "\"0000-00-00\""),
            ("date", "20240229"),
            ("time", "\"839:00:00\""),
            ("time", "\"00:00:00.5\""),
            ("datetime", "\"2024-02-29T12:30:00Z\""),
            ("timestamp", "\"2024-02-29T12:30:00\""),
            ("text", "5"),
            ("text", "\"\\ud800\""),
            ("text", "[]"),
            ("enum('a','b')", "\"c\""),
            ("set('a','b')", "\"a,c\""),
            ("varbinary(9)", "\"?\""),
            ("binary(1)", "\"AP8=\""),
        ] {
            let problem = round_trip(ty, raw).unwrap_err();
            assert_eq!(problem.field(), Some("c"), "{ty} {raw}");
            assert_eq!(problem.status.as_u16(), 422);
        }
        let long = format!("1{}", "0".repeat(1 << 20));
        assert!(round_trip("decimal(65,0)", &long).is_err());
        let many = format!("\"{}\"", "a,".repeat(1 << 19));
        assert!(round_trip("set('a','b')", &many).is_err());
        let strict = ColumnDef { nullable: false, ..column("int") };
        assert!(from_json(&strict, "null").is_err());
    }

    proptest! {
        #[test]
        fn numbers_round_trip(n: i64, u: u64, f: f32, d: f64) {
            prop_assume!(f.is_finite() && d.is_finite());
            for (ty, value) in [
                ("bigint", Value::Int(n)),
                ("bigint unsigned", Value::UInt(u)),
                ("float", Value::Float(f)),
                ("double", Value::Double(d)),
            ] {
                let column = column(ty);
                let raw = to_json(&column.ty, &value).to_string();
                prop_assert_eq!(from_json(&column, &raw).unwrap(), value);
            }
        }

        #[test]
        fn times_round_trip(us in -62_135_596_800_000_000i64..253_402_300_800_000_000, t in -3_020_399_999_999i64..=3_020_399_999_999) {
            for (ty, value) in [
                ("datetime(6)", Value::DateTime(us)),
                ("timestamp(6)", Value::Timestamp(us)),
                ("date", Value::Date(us.div_euclid(86_400_000_000) as i32)),
                ("time(6)", Value::Time(t)),
            ] {
                let column = column(ty);
                let raw = to_json(&column.ty, &value).to_string();
                prop_assert_eq!(from_json(&column, &raw).unwrap(), value);
            }
        }

        #[test]
        fn texts_and_bytes_round_trip(text: String, bytes: Vec<u8>) {
            for (ty, value) in [("text", Value::Text(text.clone())), ("blob", Value::Bytes(bytes.clone()))] {
                let column = column(ty);
                let raw = to_json(&column.ty, &value).to_string();
                prop_assert_eq!(from_json(&column, &raw).unwrap(), value);
            }
        }

        #[test]
        fn any_text_is_accepted_or_rejected(text in ".{0,40}", which in 0usize..9) {
            let ty = ["int", "decimal(9,3)", "date", "time(3)", "datetime(6)", "timestamp", "set('a')", "binary(3)", "year"][which];
            let _ = from_text(&column(ty), &text);
            let _ = from_json(&column(ty), &text);
        }
    }
}
