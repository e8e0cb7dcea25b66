//! The MySQL column types that Tandem supports.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use crate::Disposition;

/// The type of a MySQL column, with the details that its values depend on.
///
/// The text form is MySQL's own (`information_schema.COLUMNS.COLUMN_TYPE`), without display widths, lengths
/// and charsets. For example, `varchar(40)` is printed as `text`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// TINYINT (8), SMALLINT (16), MEDIUMINT (24), INT (32), BIGINT (64).
    Int {
        /// Width in bits.
        bits: u8,
        /// Whether the column is UNSIGNED.
        unsigned: bool,
    },
    /// FLOAT.
    Float,
    /// DOUBLE.
    Double,
    /// DECIMAL(precision, scale).
    Decimal {
        /// The number of digits, up to 65.
        precision: u8,
        /// The number of digits after the point, up to 30.
        scale: u8,
    },
    /// YEAR.
    Year,
    /// DATE.
    Date,
    /// TIME with a number of fraction digits.
    Time {
        /// Fraction digits, 0 to 6.
        fsp: u8,
    },
    /// DATETIME with a number of fraction digits.
    DateTime {
        /// Fraction digits, 0 to 6.
        fsp: u8,
    },
    /// TIMESTAMP with a number of fraction digits.
    Timestamp {
        /// Fraction digits, 0 to 6.
        fsp: u8,
    },
    /// BIT(n).
    Bit {
        /// The number of bits, 1 to 64.
        bits: u8,
    },
    /// CHAR, VARCHAR and the TEXT types.
    Text,
    /// VARBINARY and the BLOB types (`None`), or BINARY(n), whose values are padded to n bytes.
    Bytes {
        /// The length of a BINARY column.
        fixed: Option<u16>,
    },
    /// ENUM with its members in order.
    Enum(Vec<String>),
    /// SET with its members in order.
    Set(Vec<String>),
    /// JSON.
    Json,
    /// GEOMETRY and its subtypes, such as POINT.
    Geometry,
    /// VECTOR.
    Vector,
}

/// A MySQL type that Tandem does not support.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("type `{0}` is not supported")]
pub struct UnsupportedType(pub String);

impl UnsupportedType {
    /// Somebody must change the table, or leave it out.
    pub fn retry(&self) -> Disposition {
        Disposition::Stop
    }
}

impl FromStr for ColumnType {
    type Err = UnsupportedType;

    fn from_str(text: &str) -> Result<Self, UnsupportedType> {
        let unsupported = || UnsupportedType(text.to_owned());
        let name_end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
        let name = text[..name_end].to_ascii_lowercase();
        let rest = text[name_end..].trim_start();
        let (arguments, attributes) = match rest.strip_prefix('(') {
            Some(inner) => inner.rsplit_once(')').ok_or_else(unsupported)?,
            None => ("", rest),
        };
        let unsigned = attributes.split_ascii_whitespace().any(|w| w.eq_ignore_ascii_case("unsigned"));
        let int = |bits| Ok(Self::Int { bits, unsigned });
        let fsp = || -> Result<u8, UnsupportedType> {
            if arguments.is_empty() { Ok(0) } else { arguments.trim().parse().map_err(|_| unsupported()) }
        };
        match name.as_str() {
            "tinyint" => int(8),
            "smallint" => int(16),
            "mediumint" => int(24),
            "int" | "integer" => int(32),
            "bigint" => int(64),
            "float" => Ok(Self::Float),
            "double" => Ok(Self::Double),
            "decimal" | "numeric" => {
                let mut parts = arguments.split(',').map(|p| p.trim().parse::<u8>());
                match (parts.next(), parts.next()) {
                    (Some(Ok(precision)), Some(Ok(scale))) => Ok(Self::Decimal { precision, scale }),
                    (Some(Ok(precision)), None) => Ok(Self::Decimal { precision, scale: 0 }),
                    _ => Err(unsupported()),
                }
            }
            "year" => Ok(Self::Year),
            "date" => Ok(Self::Date),
            "time" => Ok(Self::Time { fsp: fsp()? }),
            "datetime" => Ok(Self::DateTime { fsp: fsp()? }),
            "timestamp" => Ok(Self::Timestamp { fsp: fsp()? }),
            "bit" => match arguments.trim() {
                "" => Ok(Self::Bit { bits: 1 }),
                bits => match bits.parse() {
                    Ok(bits @ 1..=64) => Ok(Self::Bit { bits }),
                    _ => Err(unsupported()),
                },
            },
            "json" => Ok(Self::Json),
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geomcollection" | "geometrycollection" => Ok(Self::Geometry),
            "vector" => Ok(Self::Vector),
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Ok(Self::Text),
            "binary" => Ok(Self::Bytes { fixed: Some(arguments.trim().parse().map_err(|_| unsupported())?) }),
            "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Ok(Self::Bytes { fixed: None }),
            "enum" => Ok(Self::Enum(members(arguments).ok_or_else(unsupported)?)),
            "set" => Ok(Self::Set(members(arguments).ok_or_else(unsupported)?)),
            _ => Err(unsupported()),
        }
    }
}

/// Parses the members of a list such as `'a','it''s'`.
///
/// MySQL doubles single quotes and escapes backslashes by a backslash. It writes line ends and NUL as `\n`,
/// `\r` and `\0` (`append_unescaped` in its source).
fn members(text: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        if chars.next()? != '\'' {
            return None;
        }
        let mut member = String::new();
        loop {
            match chars.next()? {
                '\'' if chars.peek() == Some(&'\'') => {
                    chars.next();
                    member.push('\'');
                }
                '\'' => break,
                '\\' => member.push(match chars.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    '0' => '\0',
                    c => c,
                }),
                c => member.push(c),
            }
        }
        out.push(member);
        match chars.next() {
            None => return Some(out),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_fsp = |f: &mut fmt::Formatter<'_>, name: &str, fsp: u8| {
            if fsp == 0 { f.write_str(name) } else { write!(f, "{name}({fsp})") }
        };
        let list = |f: &mut fmt::Formatter<'_>, name: &str, members: &[String]| {
            write!(f, "{name}(")?;
            for (i, member) in members.iter().enumerate() {
                f.write_str(if i == 0 { "'" } else { ",'" })?;
                for c in member.chars() {
                    match c {
                        '\'' => f.write_str("''")?,
                        '\\' => f.write_str("\\\\")?,
                        '\n' => f.write_str("\\n")?,
                        '\r' => f.write_str("\\r")?,
                        '\0' => f.write_str("\\0")?,
                        c => f.write_char(c)?,
                    }
                }
                f.write_char('\'')?;
            }
            f.write_char(')')
        };
        match self {
            Self::Int { bits, unsigned } => {
                f.write_str(match bits {
                    8 => "tinyint",
                    16 => "smallint",
                    24 => "mediumint",
                    32 => "int",
                    _ => "bigint",
                })?;
                f.write_str(if *unsigned { " unsigned" } else { "" })
            }
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Year => f.write_str("year"),
            Self::Date => f.write_str("date"),
            Self::Time { fsp } => with_fsp(f, "time", *fsp),
            Self::DateTime { fsp } => with_fsp(f, "datetime", *fsp),
            Self::Timestamp { fsp } => with_fsp(f, "timestamp", *fsp),
            Self::Bit { bits } => write!(f, "bit({bits})"),
            Self::Json => f.write_str("json"),
            Self::Geometry => f.write_str("geometry"),
            Self::Vector => f.write_str("vector"),
            Self::Text => f.write_str("text"),
            Self::Bytes { fixed: None } => f.write_str("blob"),
            Self::Bytes { fixed: Some(n) } => write!(f, "binary({n})"),
            Self::Enum(members) => list(f, "enum", members),
            Self::Set(members) => list(f, "set", members),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mysqls_spellings_are_parsed() {
        for (mysql, ours) in [
            ("tinyint(1)", "tinyint"),
            ("int unsigned", "int unsigned"),
            ("bigint(20) unsigned zerofill", "bigint unsigned"),
            ("decimal(10,2)", "decimal(10,2)"),
            ("decimal(65,30) unsigned", "decimal(65,30)"),
            ("varchar(40)", "text"),
            ("datetime(6)", "datetime(6)"),
            ("timestamp", "timestamp"),
            ("binary(16)", "binary(16)"),
            ("varbinary(10)", "blob"),
            ("enum('a,b','it''s','x)')", "enum('a,b','it''s','x)')"),
            ("set('')", "set('')"),
            (r"enum('back\\slash','n\n','r\r','z\0')", r"enum('back\\slash','n\n','r\r','z\0')"),
            ("year", "year"),
            ("smallint(6) unsigned", "smallint unsigned"),
            ("mediumint", "mediumint"),
            ("float", "float"),
            ("double", "double"),
            ("date", "date"),
            ("time(3)", "time(3)"),
            ("time", "time"),
            ("decimal(7)", "decimal(7,0)"),
            ("bit(1)", "bit(1)"),
            ("bit(64)", "bit(64)"),
            ("json", "json"),
            ("geometry", "geometry"),
            ("point", "geometry"),
            ("multipolygon", "geometry"),
            ("vector(3)", "vector"),
        ] {
            let ty: ColumnType = mysql.parse().unwrap();
            assert_eq!(ty.to_string(), ours);
            assert_eq!(ours.parse::<ColumnType>().unwrap(), ty);
        }
        let escaped: ColumnType = r"enum('a\\b','c\nd')".parse().unwrap();
        assert_eq!(escaped, ColumnType::Enum(vec!["a\\b".into(), "c\nd".into()]));
        for unsupported in ["bit(0)", "bit(65)", "curve", "enum()", "enum('a'"] {
            assert_eq!(unsupported.parse::<ColumnType>(), Err(UnsupportedType(unsupported.into())));
        }
    }
}
