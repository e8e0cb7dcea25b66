//! Decodes rows events (`Rows_event` in MySQL's source, version 2) into row images by a table's plan.

use tandem_model::{FollowUp, Remedy};
use tandem_wire::Images;

use crate::RowsKind;
use crate::cursor::{Cursor, Fault, Malformed};
use table_map::{KEY_COLUMNS, Plan};

mod cell;
mod metadata;
pub(crate) mod table_map;

/// The beginning of a rows event.
pub(crate) struct RowsHead<'a> {
    pub(crate) table_id: u64,
    flags: u16,
    /// The number of columns, the bitmaps of the columns present, and the rows.
    rest: Cursor<'a>,
}

impl<'a> RowsHead<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let table_id = cursor.uint(6)?;
        let flags = cursor.uint(2)? as u16;
        let extra = cursor.uint(2)? as usize;
        cursor.take(extra.checked_sub(2).ok_or("its variable header has an impossible length")?)?;
        Ok(Self { table_id, flags, rest: cursor })
    }

    /// Whether this is a dummy event: one without a table that only ends a statement.
    pub(crate) fn is_dummy(&self) -> bool {
        self.table_id == 0xff_ffff && self.flags & 1 == 1
    }

    /// All row images of the event as Avro: one for each row, or for updates two, the image before and the
    /// image after.
    pub(crate) fn images(self, plan: &Plan, kind: RowsKind) -> Result<Images, Fault> {
        let mut cursor = self.rest;
        let width = cursor.length()?;
        if width != plan.cells.len() {
            return Err(Fault::Malformed("its rows have another number of columns than their table".into()));
        }
        let per_row = if kind == RowsKind::Update { 2 } else { 1 };
        for _ in 0..per_row {
            let present = cursor.take(width.div_ceil(8))?;
            if (0..width).any(|i| present[i / 8] >> (i % 8) & 1 == 0) {
                return Err(Fault::unsupported(
                    "its row images lack columns",
                    Remedy::new("SET GLOBAL binlog_row_image = FULL, have every session reconnect")
                        .then(FollowUp::Resnapshot),
                ));
            }
        }
        // Numbers take about as many bytes as in the binlog. Each cell may need the branch of a union.
        let mut images = Images::with_capacity(cursor.len() + per_row * (width + plan.padding), per_row);
        while !cursor.is_empty() {
            for _ in 0..per_row {
                image(&mut cursor, plan, &mut images)?;
            }
        }
        Ok(images)
    }
}

/// Decodes one row image: a bitmap of NULLs, then the other values.
fn image(cursor: &mut Cursor<'_>, plan: &Plan, images: &mut Images) -> Result<(), Fault> {
    let nulls = cursor.take(plan.cells.len().div_ceil(8))?;
    let mut key = [(0, 0); KEY_COLUMNS];
    let out = images.buffer();
    let start = out.len();
    for (i, cell) in plan.cells.iter().enumerate() {
        let from = out.len();
        match (nulls[i / 8] >> (i % 8) & 1 == 1, cell.excluded) {
            (true, true) => Ok(()),
            (true, false) => cell.put_null(out),
            (false, true) => cell.skip(cursor),
            (false, false) => cell.put(cursor, out),
        }
        .map_err(|problem| plan.of_column(i, &problem))?;
        if let Some(place) = cell.key {
            key[place] = (from, out.len());
        }
    }
    images.end_row(start, &key[..plan.table.primary_key.len()]);
    Ok(())
}
