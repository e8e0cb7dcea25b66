//! Reads a slice of a partition, in clustering order.

use std::sync::Arc;

use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::prepared::PreparedStatement;
use tandem_model::{StoredRow, TargetKey, TargetTable};

use crate::connect::target::Target;
use crate::error::{Failure, ReadError};
use crate::read::keys::unexpected;
use crate::statement::bind::raw_rows;
use crate::statement::cql;
use crate::statement::prepared::prepare;

/// A bound of a clustering column: its serialised value, and whether the slice includes it.
pub type SliceBound = (Vec<u8>, bool);

/// The rows whose first key columns equal `equal` and whose next key column is within the bounds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slice {
    /// The values of the partition key and of the following clustering columns, in CQL's serialised form.
    pub equal: Vec<Vec<u8>>,
    /// The lower bound of the next column.
    pub lower: Option<SliceBound>,
    /// The upper bound of the next column.
    pub upper: Option<SliceBound>,
    /// The most rows to return.
    pub limit: i32,
}

struct BoundSlice<'a>(&'a Slice);

impl SerializeRow for BoundSlice<'_> {
    fn serialize(
        &self,
        _: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        let limit = self.0.limit.to_be_bytes();
        let bounds = [&self.0.lower, &self.0.upper].into_iter().flatten().map(|(value, _)| &value[..]);
        for value in self.0.equal.iter().map(|v| &v[..]).chain(bounds).chain([&limit[..]]) {
            writer.make_cell_writer().set_value(value).map_err(SerializationError::new)?;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl Target {
    /// Reads a slice of a partition, without retries. The rows have no write times.
    ///
    /// # Errors
    /// Cassandra does not answer, or refuses the read.
    pub async fn slice(
        &self,
        table: &TargetTable,
        slice: &Slice,
    ) -> Result<Vec<(TargetKey, StoredRow)>, ReadError> {
        self.read_slice(table, slice).await.map_err(|failure| ReadError::new(&table.name, failure))
    }

    async fn read_slice(
        &self,
        table: &TargetTable,
        slice: &Slice,
    ) -> Result<Vec<(TargetKey, StoredRow)>, Failure> {
        let statement = self.slice_statement(table, slice).await?;
        let answer = self
            .session()
            .execute_unpaged(&statement, BoundSlice(slice))
            .await
            .map_err(|e| Failure::from(&e))?
            .into_rows_result()
            .map_err(|e| unexpected(&e.to_string()))?;
        let rows = raw_rows(&answer).map_err(|e| unexpected(&e))?;
        rows.into_iter()
            .map(|row| {
                let (key, cells) =
                    row.split_at_checked(table.key_len()).ok_or_else(|| unexpected("a row lacks columns"))?;
                let key: Option<TargetKey> = key.iter().map(|part| part.map(<[u8]>::to_vec)).collect();
                let cells: Vec<_> = cells.iter().map(|c| c.map(<[u8]>::to_vec)).collect();
                let writetimes = vec![None; cells.len()];
                Ok((key.ok_or_else(|| unexpected("a key lacks a part"))?, StoredRow { cells, writetimes }))
            })
            .collect()
    }

    /// Returns the slice's statement. Prepares it at first use.
    async fn slice_statement(
        &self,
        table: &TargetTable,
        slice: &Slice,
    ) -> Result<Arc<PreparedStatement>, Failure> {
        let operator = |bound: &Option<SliceBound>| bound.as_ref().map(|(_, inclusive)| *inclusive);
        let text = cql::slice(
            self.keyspace(),
            table,
            slice.equal.len(),
            operator(&slice.lower),
            operator(&slice.upper),
        );
        if let Some(statement) = self.slices().get(&text) {
            return Ok(statement);
        }
        let statement = Arc::new(prepare(self.session(), text.clone()).await?);
        self.slices().insert(text, Arc::clone(&statement));
        Ok(statement)
    }
}
