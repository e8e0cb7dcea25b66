//! A plausible value for any column, by its type.

use mysql_async::Value;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use tandem_compare::stores::schema::Column;

use crate::sample::Generator;

const WORDS: [&str; 16] = [
    "amber", "Brücke", "cloud", "delta", "école", "forest", "Gdańsk", "harbour", "índigo", "jazz", "kilo",
    "lemon", "音楽", "north", "ocean", "piano",
];

/// A random value that the column accepts, never NULL. `None` for types that this module does not generate.
pub(crate) fn value(column: &Column, g: &mut Generator) -> Option<Value> {
    let unsigned = column.full_type.contains("unsigned");
    Some(match column.data_type.as_str() {
        "tinyint" => g.rng().random_range(0..100_i64).into(),
        "smallint" | "mediumint" => g.rng().random_range(if unsigned { 0 } else { -100 }..10_000_i64).into(),
        "int" | "integer" | "bigint" => {
            g.rng().random_range(if unsigned { 0 } else { -1000 }..1_000_000_i64).into()
        }
        "year" => g.rng().random_range(1970..2030_i64).into(),
        "decimal" | "numeric" => decimal(column, g).into(),
        "float" => g.rng().random_range(0.0..1000.0_f32).into(),
        "double" => g.rng().random_range(0.0..1000.0_f64).into(),
        "date" => g.date(),
        // Within the range of a TIMESTAMP.
        "datetime" | "timestamp" => with_fsp(g.moment(), column.fsp),
        "time" => {
            let rng = g.rng();
            Value::Time(
                rng.random_range(0..8) == 0,
                0,
                rng.random_range(0..24),
                rng.random_range(0..60),
                rng.random_range(0..60),
                0,
            )
        }
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => {
            text(g, column.max_chars.unwrap_or(255)).into()
        }
        "enum" | "set" => members(&column.full_type).choose(g.rng())?.clone().into(),
        "binary" => {
            let length = column.max_chars.unwrap_or(1);
            g.bytes(length as usize)
        }
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
            let most = column.max_chars.unwrap_or(64).min(64);
            let length = g.rng().random_range(0..=most);
            g.bytes(length as usize)
        }
        _ => return None,
    })
}

fn decimal(column: &Column, g: &mut Generator) -> String {
    let scale = column.scale.unwrap_or(0).min(30);
    let whole_digits = column.precision.unwrap_or(10).saturating_sub(scale).min(5);
    let mut digits =
        |n: u64| (0..n).map(|_| char::from(g.rng().random_range(b'0'..=b'9'))).collect::<String>();
    let (whole, fraction) = (digits(whole_digits), digits(scale));
    let whole = if whole.is_empty() { "0" } else { &whole };
    if scale == 0 { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

/// Cuts the fraction to the column's precision, so that MySQL does not round.
fn with_fsp(mut value: Value, fsp: Option<u64>) -> Value {
    if let Value::Date(.., micros) = &mut value {
        *micros -= *micros % 10_u32.pow(6 - fsp.unwrap_or(0).min(6) as u32);
    }
    value
}

fn text(g: &mut Generator, most: u64) -> String {
    let words = g.rng().random_range(1..4);
    let mut text = String::new();
    for _ in 0..words {
        text.push_str(WORDS.choose(g.rng()).copied().unwrap_or("word"));
        text.push(' ');
    }
    text.push_str(&g.rng().random_range(0..10_000).to_string());
    // No blank at the end: CHAR drops it, which is correct but confuses a reader.
    text.chars().take(most as usize).collect::<String>().trim_end().to_owned()
}

/// The members of `enum('a','it''s')`.
fn members(full_type: &str) -> Vec<String> {
    let inner = full_type.split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
    let mut members = Vec::new();
    let mut chars = inner.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\'' {
            continue;
        }
        let mut member = String::new();
        while let Some(c) = chars.next() {
            if c != '\'' {
                member.push(c);
            } else if chars.next_if_eq(&'\'').is_some() {
                member.push('\'');
            } else {
                break;
            }
        }
        members.push(member);
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(data_type: &str, full_type: &str) -> Column {
        Column { data_type: data_type.into(), full_type: full_type.into(), ..Column::default() }
    }

    #[test]
    fn enum_members() {
        assert_eq!(members("enum('a','it''s','x)','')"), ["a", "it's", "x)", ""]);
    }

    #[test]
    fn values_fit_their_columns() {
        let mut g = Generator::new(9);
        let decimal_column =
            Column { precision: Some(4), scale: Some(2), ..column("decimal", "decimal(4,2)") };
        let short = Column { max_chars: Some(3), ..column("varchar", "varchar(3)") };
        let seconds = column("datetime", "datetime");
        for _ in 0..200 {
            let Some(Value::Bytes(number)) = value(&decimal_column, &mut g) else { panic!() };
            assert_eq!(number.len(), 5);
            let Some(Value::Bytes(text)) = value(&short, &mut g) else { panic!() };
            assert!(String::from_utf8(text).unwrap().chars().count() <= 3);
            assert!(matches!(value(&seconds, &mut g), Some(Value::Date(.., 0))));
        }
        assert_eq!(value(&column("json", "json"), &mut g), None);
    }
}
