//! Values in the text in which MySQL prints them, so that MySQL itself defines the expected values.

use tandem_model::{ColumnType, Value};

/// The expression whose text contains the whole value of a column: bytes in hexadecimal, and numbers that
/// MySQL would otherwise round.
pub(super) fn expression(column: &str, ty: &ColumnType) -> String {
    match ty {
        ColumnType::Float => format!("CAST({column} AS DOUBLE)"),
        ColumnType::Bit { .. } => format!("{column} + 0"),
        ColumnType::Bytes { .. } | ColumnType::Geometry | ColumnType::Vector => format!("HEX({column})"),
        _ => column.to_owned(),
    }
}

/// The same text for a value; none for NULL.
pub(super) fn of(value: &Value, ty: &ColumnType) -> Option<String> {
    Some(match (value, ty) {
        (Value::Null, _) => return None,
        (Value::Int(n), ColumnType::Year) => format!("{n:04}"),
        (Value::Int(n), _) => n.to_string(),
        (Value::UInt(n), _) => n.to_string(),
        (Value::Float(x), _) => double(f64::from(*x)),
        (Value::Double(x), _) => double(*x),
        (Value::Decimal(decimal), _) => decimal.to_string(),
        (Value::Date(days), _) => date((*days).into()),
        (Value::DateTime(us), ColumnType::DateTime { fsp })
        | (Value::Timestamp(us), ColumnType::Timestamp { fsp }) => {
            let day = 86_400_000_000;
            format!("{} {}", date(us.div_euclid(day)), time(us.rem_euclid(day) as u64, *fsp))
        }
        (Value::Time(us), ColumnType::Time { fsp }) => {
            format!("{}{}", if *us < 0 { "-" } else { "" }, time(us.unsigned_abs(), *fsp))
        }
        (Value::Text(text) | Value::InvalidDate(text), _) => text.clone(),
        (Value::Bytes(bytes), _) => bytes.iter().map(|b| format!("{b:02X}")).collect(),
        (value, ty) => panic!("{value:?} is no {ty}"),
    })
}

/// Normalises MySQL's text and that of [`of`]: the same number has the same text.
pub(super) fn double(x: f64) -> String {
    format!("{x:e}")
}

fn time(us: u64, fsp: u8) -> String {
    let seconds = us / 1_000_000;
    let whole = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let digits = format!("{:06}", us % 1_000_000);
    if fsp == 0 { whole } else { format!("{whole}.{}", &digits[..usize::from(fsp)]) }
}

/// The date of a day since 1970-01-01, found by walking through years and months.
fn date(days: i64) -> String {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut rest) = (1970, days);
    while rest < 0 {
        year -= 1;
        rest += 365 + i64::from(leap(year));
    }
    while rest >= 365 + i64::from(leap(year)) {
        rest -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", rest + 1)
}
