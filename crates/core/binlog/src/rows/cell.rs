//! Converts a cell of a row image from the binlog's encoding to Avro, by its column's plan.

use tandem_model::ColumnDef;
use tandem_wire::cell::{self, Union};

use crate::cursor::{Cursor, Malformed};
use crate::types::charset::Charset;
use crate::types::decimal::DecimalForm;
use crate::types::json;
use crate::types::temporal::{DateTimeFields, binlog_date, binlog_date_time, binlog_time, binlog_timestamp};

/// Reads and writes the cells of one column.
#[derive(Debug)]
pub(crate) struct Cell {
    form: Form,
    union: Union,
    /// The column's index in the primary key, if it is part of it.
    pub(crate) key: Option<usize>,
    /// Whether the column is excluded.
    pub(crate) excluded: bool,
}

/// The encoding of a column's value in a row image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Little-endian, in two's complement if it is signed. An unsigned number has up to 4 bytes here.
    Int {
        bytes: u8,
        unsigned: bool,
    },
    BigintUnsigned,
    Float,
    Double,
    Decimal(DecimalForm),
    Year,
    Date,
    Time {
        fsp: u8,
    },
    DateTime {
        fsp: u8,
    },
    Timestamp {
        fsp: u8,
    },
    /// A length in `length_bytes` bytes, then text.
    Text {
        length_bytes: u8,
        charset: Charset,
    },
    /// A length in `length_bytes` bytes, then bytes. They are padded with zeros to `fixed` bytes.
    Bytes {
        length_bytes: u8,
        fixed: u16,
    },
    /// Big-endian, in `bytes` bytes.
    Bit {
        bytes: u8,
        bits: u8,
    },
    /// A length in `length_bytes` bytes, then MySQL's binary JSON.
    Json {
        length_bytes: u8,
    },
    /// The number of a member, from 1.
    Enum {
        bytes: u8,
        members: Vec<String>,
    },
    /// One bit for each member.
    Set {
        bytes: u8,
        members: Vec<String>,
    },
}

impl Cell {
    pub(crate) fn new(form: Form, column: &ColumnDef, key: Option<usize>, excluded: bool) -> Self {
        Self { form, union: Union::of(column), key, excluded }
    }

    /// Skips a cell that is not NULL.
    pub(crate) fn skip(&self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        let fraction = |fsp: u8| usize::from(fsp.div_ceil(2));
        let length = match &self.form {
            Form::Int { bytes, .. }
            | Form::Bit { bytes, .. }
            | Form::Enum { bytes, .. }
            | Form::Set { bytes, .. } => usize::from(*bytes),
            Form::BigintUnsigned | Form::Double => 8,
            Form::Float => 4,
            Form::Decimal(form) => form.bytes(),
            Form::Year => 1,
            Form::Date => 3,
            Form::Time { fsp } => 3 + fraction(*fsp),
            Form::Timestamp { fsp } => 4 + fraction(*fsp),
            Form::DateTime { fsp } => 5 + fraction(*fsp),
            Form::Text { length_bytes, .. }
            | Form::Bytes { length_bytes, .. }
            | Form::Json { length_bytes } => cursor.uint((*length_bytes).into())? as usize,
        };
        cursor.take(length)?;
        Ok(())
    }

    /// Writes NULL.
    pub(crate) fn put_null(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.push(self.union.null.ok_or("it is NULL in a column that is NOT NULL")?);
        Ok(())
    }

    /// Reads a cell that is not NULL from a row image and writes it.
    pub(crate) fn put(&self, cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if let Some(branch) = self.union.value {
            out.push(branch);
        }
        match &self.form {
            Form::Int { bytes, unsigned: false } => cell::long(out, cursor.int((*bytes).into())?),
            Form::Int { bytes, unsigned: true } => cell::long(out, cursor.uint((*bytes).into())? as i64),
            Form::BigintUnsigned => cell::unsigned_bigint(out, cursor.uint(8)?),
            Form::Float => cell::float(out, cursor.f32()?),
            Form::Double => cell::double(out, cursor.f64()?),
            Form::Decimal(form) => form.put(cursor, out)?,
            Form::Year => cell::long(
                out,
                match cursor.u8()? {
                    0 => 0,
                    years => 1900 + i64::from(years),
                },
            ),
            Form::Date => {
                let fields = binlog_date(cursor)?;
                self.put_date(out, fields.days().map(i64::from), fields, None)?;
            }
            Form::Time { fsp } => cell::long(out, binlog_time(cursor, *fsp)?),
            Form::DateTime { fsp } => {
                let fields = binlog_date_time(cursor, *fsp)?;
                self.put_date(out, fields.micros_since_epoch(), fields, Some(*fsp))?;
            }
            Form::Timestamp { fsp } => {
                let micros = binlog_timestamp(cursor, *fsp)?;
                self.put_date(out, micros, DateTimeFields::default(), Some(*fsp))?;
            }
            Form::Text { length_bytes, charset } => {
                let length = cursor.uint((*length_bytes).into())? as usize;
                charset.put(cursor.take(length)?, out)?;
            }
            Form::Bytes { length_bytes, fixed } => {
                let length = cursor.uint((*length_bytes).into())? as usize;
                let stored = cursor.take(length)?;
                let padding = match usize::from(*fixed) {
                    0 => 0,
                    fixed => fixed.checked_sub(length).ok_or("the BINARY is longer than its column")?,
                };
                cell::long(out, (length + padding) as i64);
                out.extend_from_slice(stored);
                out.resize(out.len() + padding, 0);
            }
            Form::Bit { bytes, bits } => {
                let value = cursor.uint_be((*bytes).into())?;
                if *bits == 64 {
                    cell::unsigned_bigint(out, value);
                } else if value >> bits == 0 {
                    cell::long(out, value as i64);
                } else {
                    return Err("the BIT has more bits than its column".into());
                }
            }
            Form::Json { length_bytes } => {
                let length = cursor.uint((*length_bytes).into())? as usize;
                json::put(cursor.take(length)?, out)?;
            }
            Form::Enum { bytes, members } => {
                let text = match cursor.uint((*bytes).into())? as usize {
                    // MySQL's special value for an invalid member. It is the empty text, not NULL.
                    0 => "",
                    index => members.get(index - 1).ok_or("the ENUM has no such member")?,
                };
                cell::bytes(out, text.as_bytes());
            }
            Form::Set { bytes, members } => put_set(out, cursor.uint((*bytes).into())?, members)?,
        }
        Ok(())
    }

    /// Writes a date or a point in time. For an invalid date it replaces the branch that was already written,
    /// and writes the text of the date.
    fn put_date(
        &self,
        out: &mut Vec<u8>,
        value: Option<i64>,
        fields: DateTimeFields,
        fsp: Option<u8>,
    ) -> Result<(), Malformed> {
        if let Some(value) = value {
            cell::long(out, value);
        } else {
            out.pop();
            out.push(self.union.invalid.ok_or("it is a date in a column of another type")?);
            cell::bytes(out, fields.text(fsp).as_bytes());
        }
        Ok(())
    }
}

/// Writes the names of the SET members whose bits are set, separated by commas.
fn put_set(out: &mut Vec<u8>, bits: u64, members: &[String]) -> Result<(), Malformed> {
    if members.len() < 64 && bits >> members.len() != 0 {
        return Err("the SET has no such member".into());
    }
    let chosen = || members.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, member)| member);
    let commas = (bits.count_ones() as usize).saturating_sub(1);
    cell::long(out, (chosen().map(String::len).sum::<usize>() + commas) as i64);
    for (i, member) in chosen().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(member.as_bytes());
    }
    Ok(())
}
