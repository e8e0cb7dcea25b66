//! Rows events (`Rows_event` in MySQL's source, version 2): row images by a table's plan.

use tandem_model::{ColumnDef, ColumnType, Row, Value};

use crate::RowsKind;
use crate::bytes::{Cursor, Fault, Problem};
use crate::decimal::binlog_decimal;
use crate::table_map::{Decoder, Plan};
use crate::temporal::{binlog_date, binlog_date_time, binlog_time, binlog_timestamp};

/// The images before and after of a row, each where there is one.
pub(crate) type Images = (Option<Row>, Option<Row>);

/// The beginning of a rows event.
pub(crate) struct RowsHead<'a> {
    pub(crate) table_id: u64,
    flags: u16,
    /// The width, the bitmaps of the columns present, and the rows.
    rest: Cursor<'a>,
}

impl<'a> RowsHead<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Problem> {
        let mut cursor = Cursor::new(body);
        let table_id = cursor.uint(6)?;
        let flags = cursor.uint(2)? as u16;
        let extra = cursor.uint(2)? as usize;
        cursor.take(extra.checked_sub(2).ok_or("its variable header has an impossible length")?)?;
        Ok(Self { table_id, flags, rest: cursor })
    }

    /// Whether this is the event without a table that only ends a statement.
    pub(crate) fn is_dummy(&self) -> bool {
        self.table_id == 0xff_ffff && self.flags & 1 == 1
    }

    /// All rows of the event.
    pub(crate) fn rows(self, plan: &Plan, kind: RowsKind) -> Result<Vec<Images>, Fault> {
        let mut cursor = self.rest;
        let width = cursor.length()?;
        if width != plan.decoders.len() {
            return Err(Fault::Malformed("its rows have another number of columns than their table".into()));
        }
        for _ in 0..if kind == RowsKind::Update { 2 } else { 1 } {
            let present = cursor.take(width.div_ceil(8))?;
            if (0..width).any(|i| present[i / 8] >> (i % 8) & 1 == 0) {
                return Err(Fault::unsupported(
                    "its row images lack columns",
                    "SET GLOBAL binlog_row_image = FULL, let every session connect anew, and copy the table anew",
                ));
            }
        }
        let mut rows = Vec::new();
        while !cursor.is_empty() {
            rows.push(match kind {
                RowsKind::Write => (None, Some(image(&mut cursor, plan)?)),
                RowsKind::Update => (Some(image(&mut cursor, plan)?), Some(image(&mut cursor, plan)?)),
                RowsKind::Delete => (Some(image(&mut cursor, plan)?), None),
            });
        }
        Ok(rows)
    }
}

/// One row image: a bitmap of NULLs, then the other values.
fn image(cursor: &mut Cursor<'_>, plan: &Plan) -> Result<Row, Fault> {
    let columns = &plan.table.columns;
    let nulls = cursor.take(columns.len().div_ceil(8))?;
    let mut row = Vec::with_capacity(columns.len());
    for (i, (decoder, column)) in plan.decoders.iter().zip(columns).enumerate() {
        row.push(if nulls[i / 8] >> (i % 8) & 1 == 1 {
            Value::Null
        } else {
            value(cursor, *decoder, column)
                .map_err(|problem| Fault::Malformed(format!("column `{}`: {problem}", column.name)))?
        });
    }
    Ok(row)
}

fn value(cursor: &mut Cursor<'_>, decoder: Decoder, column: &ColumnDef) -> Result<Value, Problem> {
    Ok(match decoder {
        Decoder::Int { bytes, unsigned: false } => Value::Int(cursor.int(bytes.into())?),
        Decoder::Int { bytes, unsigned: true } => Value::UInt(cursor.uint(bytes.into())?),
        Decoder::Float => Value::Float(cursor.f32()?),
        Decoder::Double => Value::Double(cursor.f64()?),
        Decoder::Decimal { precision, scale } => Value::Decimal(binlog_decimal(cursor, precision, scale)?),
        Decoder::Year => Value::Int(match cursor.u8()? {
            0 => 0,
            years => 1900 + i64::from(years),
        }),
        Decoder::Date => binlog_date(cursor)?,
        Decoder::Time { fsp } => binlog_time(cursor, fsp)?,
        Decoder::DateTime { fsp } => binlog_date_time(cursor, fsp)?,
        Decoder::Timestamp { fsp } => binlog_timestamp(cursor, fsp)?,
        Decoder::Text { length_bytes, charset } => {
            let length = cursor.uint(length_bytes.into())? as usize;
            Value::Text(charset.decode(cursor.take(length)?)?)
        }
        Decoder::Bytes { length_bytes, fixed } => {
            let length = cursor.uint(length_bytes.into())? as usize;
            let stored = cursor.take(length)?;
            let mut bytes = Vec::with_capacity(length.max(fixed.into()));
            bytes.extend_from_slice(stored);
            if length < fixed.into() {
                bytes.resize(fixed.into(), 0);
            }
            Value::Bytes(bytes)
        }
        Decoder::Enum { bytes } => {
            let index = cursor.uint(bytes.into())? as usize;
            Value::Text(match (index, &column.ty) {
                // The special value of an invalid member: no text, and no NULL.
                (0, _) => String::new(),
                (index, ColumnType::Enum(members)) => {
                    members.get(index - 1).ok_or("the ENUM has no such member")?.clone()
                }
                _ => return Err("it is no ENUM".into()),
            })
        }
        Decoder::Set { bytes } => {
            let bits = cursor.uint(bytes.into())?;
            let ColumnType::Set(members) = &column.ty else {
                return Err("it is no SET".into());
            };
            if members.len() < 64 && bits >> members.len() != 0 {
                return Err("the SET has no such member".into());
            }
            let mut text = String::new();
            for (i, member) in members.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1) {
                if bits & ((1 << i) - 1) != 0 {
                    text.push(',');
                }
                text.push_str(member);
            }
            Value::Text(text)
        }
    })
}
