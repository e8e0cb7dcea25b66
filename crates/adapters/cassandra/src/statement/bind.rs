//! Passes cells to and from the driver as bytes.

use scylla::deserialize::row::ColumnIterator;
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::{CellOverflowError, RowWriter};
use tandem_model::{Cell, Mutation, TargetKey, Write};

/// The values of a mutation's statement. `cql::insert` and `cql::delete` define their order.
pub(crate) struct BoundMutation<'a>(pub(crate) &'a Mutation);

/// The values of a read's statement.
pub(crate) struct BoundKey<'a>(pub(crate) &'a TargetKey);

#[derive(Debug, thiserror::Error)]
#[error("the statement has {expected} values and {given} were given")]
struct ValueCount {
    expected: usize,
    given: usize,
}

fn too_long(error: CellOverflowError) -> SerializationError {
    SerializationError::new(error)
}

fn put_key(key: &TargetKey, writer: &mut RowWriter<'_>) -> Result<(), SerializationError> {
    for part in key {
        writer.make_cell_writer().set_value(part).map_err(too_long)?;
    }
    Ok(())
}

/// Checks the number of values. Cassandra would assign a wrong number of values to the wrong columns.
fn check_count(ctx: &RowSerializationContext<'_>, given: usize) -> Result<(), SerializationError> {
    let expected = ctx.columns().len();
    if expected == given { Ok(()) } else { Err(SerializationError::new(ValueCount { expected, given })) }
}

impl SerializeRow for BoundMutation<'_> {
    fn serialize(
        &self,
        ctx: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        let Mutation { key, version, write, .. } = self.0;
        let timestamp = version.0.to_be_bytes();
        match write {
            Write::Upsert(cells) => {
                check_count(ctx, key.len() + cells.len() + 1)?;
                put_key(key, writer)?;
                for cell in cells {
                    let to = writer.make_cell_writer();
                    match cell {
                        Cell::Unset => to.set_unset(),
                        Cell::Null => to.set_null(),
                        Cell::Value(bytes) => to.set_value(bytes).map_err(too_long)?,
                    };
                }
                writer.make_cell_writer().set_value(&timestamp).map_err(too_long)?;
            }
            Write::DeleteRow => {
                check_count(ctx, key.len() + 1)?;
                writer.make_cell_writer().set_value(&timestamp).map_err(too_long)?;
                put_key(key, writer)?;
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl SerializeRow for BoundKey<'_> {
    fn serialize(
        &self,
        ctx: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        check_count(ctx, self.0.len())?;
        put_key(self.0, writer)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns the cells of each row of an answer.
pub(crate) fn raw_rows(result: &QueryRowsResult) -> Result<Vec<Vec<Option<&[u8]>>>, String> {
    result
        .rows::<ColumnIterator<'_, '_>>()
        .map_err(|e| e.to_string())?
        .map(|row| {
            row.and_then(|columns| columns.map(|c| c.map(|c| c.slice.map(|s| s.as_slice()))).collect())
                .map_err(|e| e.to_string())
        })
        .collect()
}
