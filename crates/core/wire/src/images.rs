//! Row images in Avro, before they are framed into records.

use tandem_model::{Row, TableDef};

use crate::primitive::Reader;
use crate::{WireError, column};

/// Row images of one table in one buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images {
    bytes: Vec<u8>,
    spans: Vec<Spans>,
}

/// The start and end of a range in the buffer.
type Span = (usize, usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spans {
    row: Span,
    key: Span,
}

/// A row image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image<'a> {
    /// The Avro record of the primary key's columns in the key's order, without a frame. Two rows of a table
    /// have the same key if and only if these bytes are equal.
    pub key: &'a [u8],
    /// The Avro record of all columns.
    pub row: &'a [u8],
}

impl Images {
    /// Creates a buffer with capacity for this many bytes and images.
    pub fn with_capacity(bytes: usize, images: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), spans: Vec::with_capacity(images) }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// The approximate memory use in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + size_of_val(self.spans.as_slice())
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The images in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Image<'_>> {
        let of = |(from, to): Span| &self.bytes[from..to];
        self.spans.iter().map(move |spans| Image { key: of(spans.key), row: of(spans.row) })
    }

    /// Appends an image.
    ///
    /// # Errors
    ///
    /// The row does not fit the table. No image is appended then.
    pub fn push(&mut self, table: &TableDef, row: &Row) -> Result<(), WireError> {
        check_cells(table, row)?;
        let start = self.bytes.len();
        let mut cells = Vec::with_capacity(row.len());
        for (column, value) in table.columns.iter().zip(row) {
            let from = self.bytes.len();
            if let Err(error) = column::put(&mut self.bytes, column, value) {
                self.bytes.truncate(start);
                return Err(error);
            }
            cells.push((from, self.bytes.len()));
        }
        let key: Vec<Span> = table.primary_key.iter().map(|&i| cells[i]).collect();
        self.end_row(start, &key);
        Ok(())
    }

    /// The buffer, for a decoder that appends the cells of an image itself. It must then call
    /// [`Self::end_row`].
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Ends the image whose cells start at `start`. `key` holds the ranges of the primary key's cells in the
    /// buffer, in the key's order.
    ///
    /// # Panics
    ///
    /// A cell of the key is outside the buffer.
    pub fn end_row(&mut self, start: usize, key: &[Span]) {
        let end = self.bytes.len();
        let adjacent = key.windows(2).all(|pair| pair[0].1 == pair[1].0);
        let key = match (key.first(), key.last()) {
            (Some(first), Some(last)) if adjacent => (first.0, last.1),
            _ => {
                for &(from, to) in key {
                    self.bytes.extend_from_within(from..to);
                }
                (end, self.bytes.len())
            }
        };
        self.spans.push(Spans { row: (start, end), key });
    }
}

impl Image<'_> {
    /// Decodes the values of the row.
    ///
    /// # Errors
    ///
    /// The bytes are not a row of `table`.
    pub fn decode(&self, table: &TableDef) -> Result<Row, WireError> {
        let mut reader = Reader::new(self.row);
        let row = table.columns.iter().map(|c| column::get(&mut reader, c)).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(row)
    }
}

/// Checks that the row has as many cells as the table has columns.
fn check_cells(table: &TableDef, row: &Row) -> Result<(), WireError> {
    if row.len() == table.columns.len() {
        return Ok(());
    }
    Err(WireError::CellCount {
        table: table.name.to_string(),
        cells: row.len(),
        columns: table.columns.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_model::{ColumnDef, TableName, Value};

    fn table(primary_key: Vec<usize>) -> TableDef {
        let column =
            |name: &str| ColumnDef { name: name.into(), ty: "int".parse().unwrap(), nullable: false };
        TableDef { name: TableName::new("d", "t"), columns: ["a", "b", "c"].map(column).into(), primary_key }
    }

    /// A contiguous key is not copied. Any other key is assembled after the row.
    #[test]
    fn keys_are_found_wherever_their_columns_are() {
        let row: Row = [1, 2, 3].map(Value::Int).into();
        for (primary_key, key, copied) in [
            (vec![0], &[2][..], 0),
            (vec![1, 2], &[4, 6], 0),
            (vec![2], &[6], 0),
            (vec![0, 2], &[2, 6], 2),
            (vec![1, 0], &[4, 2], 2),
        ] {
            let table = table(primary_key);
            let mut images = Images::default();
            assert!(images.is_empty());
            images.push(&table, &row).unwrap();
            assert_eq!(images.buffer().len(), 3 + copied, "{key:?}");
            assert_eq!(images.bytes(), 3 + copied + size_of::<Spans>(), "{key:?}");
            images.push(&table, &row).unwrap();
            assert!(!images.is_empty() && images.len() == 2);
            for image in images.iter() {
                assert_eq!((image.row, image.key), (&[2, 4, 6][..], key));
                assert_eq!(image.decode(&table).unwrap(), row);
            }
        }
    }

    #[test]
    fn a_decoder_appends_the_same_bytes_as_push() {
        let table = table(vec![2, 0]);
        let mut pushed = Images::default();
        pushed.push(&table, &[1, 2, 3].map(Value::Int).into()).unwrap();
        let mut appended = Images::with_capacity(8, 1);
        appended.buffer().extend([2, 4, 6]);
        appended.end_row(0, &[(2, 3), (0, 1)]);
        assert_eq!(appended, pushed);
    }

    #[test]
    fn a_row_that_does_not_fit_appends_nothing() {
        let mut images = Images::default();
        let fits: Row = [1, 2, 3].map(Value::Int).into();
        images.push(&table(vec![0]), &fits).unwrap();
        let before = images.clone();
        images.push(&table(vec![0]), &vec![Value::Int(1), Value::Int(2), Value::Null]).unwrap_err();
        assert_eq!(images, before);
    }
}
