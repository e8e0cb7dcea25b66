//! Reads TABLE_MAP events: the definition of a table, and from it the plan for decoding its rows.

use std::sync::Arc;

use tandem_model::{ColumnDef, ColumnType, FollowUp, Remedy, TableDef, TableName};

use crate::ExcludedColumns;
use crate::cursor::{Cursor, Fault, Malformed};
use crate::rows::cell::{Cell, Form};
use crate::rows::metadata::Metadata;
use crate::types::charset::{Charset, Collations};
use crate::types::decimal::DecimalForm;

/// MySQL's limit for the columns of a primary key.
pub(crate) const KEY_COLUMNS: usize = 16;

/// The plan for decoding the rows of one table.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) table: Arc<TableDef>,
    /// One cell for each column of a row image.
    pub(crate) cells: Vec<Cell>,
    /// The number of bytes that the padding of BINARY columns can add to a row.
    pub(crate) padding: usize,
}

impl Plan {
    /// `columns` are the columns of the row images, each with whether it is excluded. `key` are indexes into
    /// them.
    fn new(name: TableName, columns: Vec<(ColumnDef, Form, bool)>, key: &[usize]) -> Result<Self, Fault> {
        if key.len() > KEY_COLUMNS {
            return Err(Fault::Malformed("its primary key has more columns than MySQL allows".into()));
        }
        let padding = columns.iter().map(|(_, form, _)| match form {
            Form::Bytes { fixed, .. } => usize::from(*fixed),
            _ => 0,
        });
        let padding = padding.sum();
        let mut table = TableDef { name, columns: Vec::new(), primary_key: vec![0; key.len()] };
        let mut cells = Vec::with_capacity(columns.len());
        for (i, (column, form, excluded)) in columns.into_iter().enumerate() {
            let place = key.iter().position(|&k| k == i);
            cells.push(Cell::new(form, &column, place, excluded));
            match place {
                Some(_) if excluded => {
                    return Err(Fault::unsupported(
                        format!("its primary key holds the excluded column `{}`", column.name),
                        Remedy::new("take it out of `exclude_from_capture`"),
                    ));
                }
                Some(place) => table.primary_key[place] = table.columns.len(),
                None => {}
            }
            if !excluded {
                table.columns.push(column);
            }
        }
        Ok(Self { cells, padding, table: Arc::new(table) })
    }

    /// The fault of a cell in the i-th column of a row image.
    #[cold]
    pub(crate) fn of_column(&self, i: usize, problem: &Malformed) -> Fault {
        Fault::Malformed(if self.cells[i].excluded {
            format!("column {} of the row, an excluded one: {problem}", i + 1)
        } else {
            let place = self.cells[..i].iter().filter(|cell| !cell.excluded).count();
            format!("column `{}`: {problem}", self.table.columns[place].name)
        })
    }
}

/// The head of a TABLE_MAP event.
pub(crate) struct Head<'a> {
    pub(crate) name: TableName,
    /// The bytes after the name.
    pub(crate) rest: Cursor<'a>,
}

/// Splits a TABLE_MAP event into the table id and the bytes after it. Two maps with the same bytes are
/// identical.
pub(crate) fn split_id(body: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut cursor = Cursor::new(body);
    Ok((cursor.uint(6)?, cursor.rest()))
}

impl<'a> Head<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        cursor.take(8)?;
        let mut name = || -> Result<String, Malformed> {
            let length = usize::from(cursor.u8()?);
            let text = utf8(cursor.take(length)?)?;
            cursor.take(1)?;
            Ok(text)
        };
        let name = TableName { database: name()?, table: name()? };
        Ok(Self { name, rest: cursor })
    }

    /// Builds the plan for the rows of this table.
    pub(crate) fn plan(self, collations: &Collations, excluded: &ExcludedColumns) -> Result<Plan, Fault> {
        let mut cursor = self.rest;
        let count = cursor.length()?;
        let types = cursor.take(count)?;
        let mut type_metadata = Cursor::new(cursor.lenenc_bytes()?);
        let nullable = cursor.take(count.div_ceil(8))?;
        let metadata = Metadata::read(cursor)?;
        let Some(names) = &metadata.names else {
            return Err(Fault::unsupported(
                "the binlog does not hold the names of its columns",
                Remedy::new("SET GLOBAL binlog_row_metadata = FULL").then(FollowUp::Resnapshot),
            ));
        };
        if names.len() != count {
            return Err(Fault::Malformed("its column names do not match its number of columns".into()));
        }

        let mut classes = Classes::default();
        let mut columns = Vec::with_capacity(count);
        for (i, (&code, name)) in types.iter().zip(names).enumerate() {
            let name = utf8(name)?;
            let (ty, form) =
                column(code, &mut type_metadata, &metadata, &mut classes, collations).map_err(|fault| {
                    match fault {
                        Fault::Unsupported { problem, remedy } => {
                            Fault::unsupported(format!("column `{name}` has {problem}"), remedy)
                        }
                        other => other,
                    }
                })?;
            let excluded = excluded.has(&self.name, &name);
            let nullable = nullable[i / 8] >> (i % 8) & 1 == 1;
            columns.push((ColumnDef { name, ty, nullable }, form, excluded));
        }

        let primary_key = metadata.primary_key.unwrap_or_default();
        if primary_key.iter().any(|&i| i >= count) {
            return Err(Fault::Malformed("its primary key names a column that does not exist".into()));
        }
        if primary_key.is_empty() {
            return Err(Fault::unsupported(
                "it has no primary key",
                Remedy::new("ALTER TABLE … ADD PRIMARY KEY")
                    .then(FollowUp::Resnapshot)
                    .or("leave the table out"),
            ));
        }
        Plan::new(self.name, columns, &primary_key)
    }
}

fn utf8(bytes: &[u8]) -> Result<String, Malformed> {
    Charset::Utf8.decode(bytes).map_err(|_| "it holds a name that is not valid UTF-8".into())
}

/// The number of columns seen in each class. The metadata numbers columns within their class.
#[derive(Default)]
struct Classes {
    numeric: usize,
    text: usize,
    enum_or_set: usize,
    enums: usize,
    sets: usize,
}

/// Returns the class's next number.
fn next(counter: &mut usize) -> usize {
    *counter += 1;
    *counter - 1
}

/// The type and the encoding of a column, from its type code (`enum_field_types`) and metadata.
fn column(
    code: u8,
    type_metadata: &mut Cursor<'_>,
    metadata: &Metadata<'_>,
    classes: &mut Classes,
    collations: &Collations,
) -> Result<(ColumnType, Form), Fault> {
    let mut integer = |bytes: u8| -> Result<_, Fault> {
        let unsigned = metadata.unsigned(next(&mut classes.numeric))?;
        let form = match (bytes, unsigned) {
            (8, true) => Form::BigintUnsigned,
            _ => Form::Int { bytes, unsigned },
        };
        Ok((ColumnType::Int { bits: bytes * 8, unsigned }, form))
    };
    Ok(match code {
        1 => integer(1)?,
        2 => integer(2)?,
        9 => integer(3)?,
        3 => integer(4)?,
        8 => integer(8)?,
        4 | 5 => {
            next(&mut classes.numeric);
            match type_metadata.u8()? {
                4 if code == 4 => (ColumnType::Float, Form::Float),
                8 if code == 5 => (ColumnType::Double, Form::Double),
                _ => return Err(Fault::Malformed("it has a FLOAT or DOUBLE of an unknown size".into())),
            }
        }
        246 => {
            next(&mut classes.numeric);
            let (precision, scale) = (type_metadata.u8()?, type_metadata.u8()?);
            (ColumnType::Decimal { precision, scale }, Form::Decimal(DecimalForm::new(precision, scale)?))
        }
        13 => {
            next(&mut classes.numeric);
            (ColumnType::Year, Form::Year)
        }
        10 => (ColumnType::Date, Form::Date),
        19 => {
            let fsp = type_metadata.u8()?;
            (ColumnType::Time { fsp }, Form::Time { fsp })
        }
        18 => {
            let fsp = type_metadata.u8()?;
            (ColumnType::DateTime { fsp }, Form::DateTime { fsp })
        }
        17 => {
            let fsp = type_metadata.u8()?;
            (ColumnType::Timestamp { fsp }, Form::Timestamp { fsp })
        }
        // VARCHAR and VARBINARY: the metadata is the maximum length in bytes.
        15 => {
            let length_bytes = if type_metadata.uint(2)? > 255 { 2 } else { 1 };
            text_or_bytes(length_bytes, 0, metadata, classes, collations)?
        }
        // BLOB and TEXT: the metadata is the size of the length in bytes.
        252 => text_or_bytes(blob_length(type_metadata)?, 0, metadata, classes, collations)?,
        16 => {
            let (odd, whole) = (type_metadata.u8()?, type_metadata.u8()?);
            let bits = whole.checked_mul(8).and_then(|bits| bits.checked_add(odd));
            let Some(bits @ 1..=64) = bits.filter(|_| odd < 8) else {
                return Err(Fault::Malformed("it has a BIT of an impossible size".into()));
            };
            (ColumnType::Bit { bits }, Form::Bit { bytes: bits.div_ceil(8), bits })
        }
        245 => (ColumnType::Json, Form::Json { length_bytes: blob_length(type_metadata)? }),
        255 => {
            let length_bytes = blob_length(type_metadata)?;
            (ColumnType::Geometry, Form::Bytes { length_bytes, fixed: 0 })
        }
        242 => {
            // VECTOR counts as a text column. JSON and GEOMETRY do not.
            next(&mut classes.text);
            (ColumnType::Vector, Form::Bytes { length_bytes: blob_length(type_metadata)?, fixed: 0 })
        }
        254 => string(type_metadata, metadata, classes, collations)?,
        other => {
            return Err(Fault::unsupported(
                format!("the type number {other} in the binlog, which is not supported"),
                Remedy::new("drop the column or leave the table out"),
            ));
        }
    })
}

/// The size of the length of a BLOB in bytes. JSON, GEOMETRY and VECTOR are stored like a BLOB.
fn blob_length(type_metadata: &mut Cursor<'_>) -> Result<u8, Fault> {
    match type_metadata.u8()? {
        bytes @ 1..=4 => Ok(bytes),
        _ => Err(Fault::Malformed("it has a BLOB with an impossible length".into())),
    }
}

/// Reads a STRING column: CHAR or BINARY, or, by the real type in its metadata, ENUM or SET. The two highest
/// bits of a length above 255 are inverted in the real type.
fn string(
    type_metadata: &mut Cursor<'_>,
    metadata: &Metadata<'_>,
    classes: &mut Classes,
    collations: &Collations,
) -> Result<(ColumnType, Form), Fault> {
    let (high, low) = (type_metadata.u8()?, type_metadata.u8()?);
    let (real, length) = if high & 0x30 == 0x30 {
        (high, u16::from(low))
    } else {
        (high | 0x30, u16::from(low) | u16::from(high & 0x30 ^ 0x30) << 4)
    };
    match real {
        254 => text_or_bytes(if length > 255 { 2 } else { 1 }, length, metadata, classes, collations),
        247 | 248 => {
            let collation = metadata.members.of(next(&mut classes.enum_or_set))?;
            let charset = charset(collations, collation)?;
            let lists = if real == 247 {
                metadata.enums.get(next(&mut classes.enums))
            } else {
                metadata.sets.get(next(&mut classes.sets))
            };
            let members = lists
                .ok_or_else(|| Fault::Malformed("its metadata lacks the members of an ENUM or SET".into()))?
                .iter()
                .map(|member| charset.decode(member))
                .collect::<Result<Vec<_>, _>>()?;
            let bytes = low;
            match (real, bytes) {
                (247, 1 | 2) => Ok((ColumnType::Enum(members.clone()), Form::Enum { bytes, members })),
                (248, 1..=8) => Ok((ColumnType::Set(members.clone()), Form::Set { bytes, members })),
                _ => Err(Fault::Malformed("it has an ENUM or SET of an impossible size".into())),
            }
        }
        other => Err(Fault::Malformed(format!("it has a string of the unknown real type {other}"))),
    }
}

/// A column that is text or bytes, depending on its collation. `fixed` is the length of a CHAR or BINARY.
fn text_or_bytes(
    length_bytes: u8,
    fixed: u16,
    metadata: &Metadata<'_>,
    classes: &mut Classes,
    collations: &Collations,
) -> Result<(ColumnType, Form), Fault> {
    let collation = metadata.text.of(next(&mut classes.text))?;
    Ok(match charset(collations, collation)? {
        Charset::Binary => {
            (ColumnType::Bytes { fixed: (fixed > 0).then_some(fixed) }, Form::Bytes { length_bytes, fixed })
        }
        charset => (ColumnType::Text, Form::Text { length_bytes, charset }),
    })
}

fn charset(collations: &Collations, collation: u64) -> Result<Charset, Fault> {
    collations.charset(collation).map_err(|name| {
        Fault::unsupported(
            format!("the character set {name}, which is not supported"),
            Remedy::new("convert the column to utf8mb4 or leave the table out"),
        )
    })
}
