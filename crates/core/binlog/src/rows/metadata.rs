//! The optional metadata at the end of a TABLE_MAP event (`Table_map_event::Optional_metadata_fields` in
//! MySQL's source). MySQL writes all of it with `binlog_row_metadata=FULL`.

use tandem_model::Remedy;

use crate::cursor::{Cursor, Fault, Malformed};

/// The metadata fields that decoding rows needs.
#[derive(Debug, Default)]
pub(crate) struct Metadata<'a> {
    signedness: &'a [u8],
    /// The collations of character columns.
    pub(crate) text: Collated,
    /// The collations of ENUM and SET columns.
    pub(crate) members: Collated,
    /// The names of the columns. `None` with `binlog_row_metadata=MINIMAL`.
    pub(crate) names: Option<Vec<&'a [u8]>>,
    /// The members of each SET column.
    pub(crate) sets: Vec<Vec<&'a [u8]>>,
    /// The members of each ENUM column.
    pub(crate) enums: Vec<Vec<&'a [u8]>>,
    /// The columns of the primary key, in the key's order.
    pub(crate) primary_key: Option<Vec<usize>>,
}

/// The collation ids of the columns of one class, numbered within the class.
#[derive(Debug, Default)]
pub(crate) enum Collated {
    #[default]
    Missing,
    /// A default for all columns, with exceptions.
    Default(u64, Vec<(u64, u64)>),
    /// One id for each column.
    Each(Vec<u64>),
}

impl Collated {
    /// The collation of the n-th column of the class.
    pub(crate) fn of(&self, n: usize) -> Result<u64, Malformed> {
        let found = match self {
            Self::Missing => None,
            Self::Default(default, exceptions) => {
                Some(exceptions.iter().find(|(i, _)| *i == n as u64).map_or(*default, |(_, id)| *id))
            }
            Self::Each(ids) => ids.get(n).copied(),
        };
        found.ok_or_else(|| "its metadata lacks a column's character set".into())
    }

    fn with_default(mut cursor: Cursor<'_>) -> Result<Self, Malformed> {
        let default = cursor.lenenc()?;
        let mut exceptions = Vec::new();
        while !cursor.is_empty() {
            exceptions.push((cursor.lenenc()?, cursor.lenenc()?));
        }
        Ok(Self::Default(default, exceptions))
    }

    fn for_each(mut cursor: Cursor<'_>) -> Result<Self, Malformed> {
        let mut ids = Vec::new();
        while !cursor.is_empty() {
            ids.push(cursor.lenenc()?);
        }
        Ok(Self::Each(ids))
    }
}

impl<'a> Metadata<'a> {
    /// Reads the type-length-value fields.
    pub(crate) fn read(mut cursor: Cursor<'a>) -> Result<Self, Fault> {
        let mut out = Self::default();
        while !cursor.is_empty() {
            let kind = cursor.u8()?;
            let mut field = Cursor::new(cursor.lenenc_bytes()?);
            match kind {
                1 => out.signedness = field.rest(),
                2 => out.text = Collated::with_default(field)?,
                3 => out.text = Collated::for_each(field)?,
                4 => {
                    let mut names = Vec::new();
                    while !field.is_empty() {
                        names.push(field.lenenc_bytes()?);
                    }
                    out.names = Some(names);
                }
                5 => out.sets = member_lists(field)?,
                6 => out.enums = member_lists(field)?,
                8 => {
                    let mut key = Vec::new();
                    while !field.is_empty() {
                        key.push(field.length()?);
                    }
                    out.primary_key = Some(key);
                }
                9 => {
                    let mut key = Vec::new();
                    while !field.is_empty() {
                        key.push(field.length()?);
                        // The length of the column's prefix in the key. A key of prefixes is unique for the
                        // whole columns, too.
                        field.lenenc()?;
                    }
                    out.primary_key = Some(key);
                }
                10 => out.members = Collated::with_default(field)?,
                11 => out.members = Collated::for_each(field)?,
                // The types of geometries, the visibility of columns, the dimensions of vectors.
                7 | 12 | 13 => {}
                other => {
                    return Err(Fault::unsupported(
                        format!("its metadata holds the unknown field {other}"),
                        Remedy::new("use a version of Tandem that knows this version of MySQL"),
                    ));
                }
            }
        }
        Ok(out)
    }

    /// Whether the n-th numeric column is UNSIGNED. There is one bit per column, the highest first.
    pub(crate) fn unsigned(&self, n: usize) -> Result<bool, Malformed> {
        let byte = self.signedness.get(n / 8).ok_or("its metadata lacks a column's signedness")?;
        Ok(byte >> (7 - n % 8) & 1 == 1)
    }
}

/// Reads the members of each column: a count, and then as many names.
fn member_lists(mut cursor: Cursor<'_>) -> Result<Vec<Vec<&[u8]>>, Malformed> {
    let mut lists = Vec::new();
    while !cursor.is_empty() {
        let count = cursor.lenenc()?;
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(cursor.lenenc_bytes()?);
        }
        lists.push(members);
    }
    Ok(lists)
}
