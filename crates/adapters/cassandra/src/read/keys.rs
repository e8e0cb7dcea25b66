//! Reads rows by key.

use std::sync::Arc;

use tandem_model::{StoredRow, TargetKey};
use tokio::task::JoinSet;

use crate::connect::target::Target;
use crate::error::{Failure, ReadError, Rejection};
use crate::retry;
use crate::statement::bind::{BoundKey, raw_rows};
use crate::statement::prepared::PreparedTable;

impl Target {
    /// Reads rows by key, with the write times of their regular cells, in the order of the keys; `None` where
    /// there is no row.
    ///
    /// Reads rows concurrently, up to the limit that all clones share. Retries transient failures for five
    /// times the request timeout.
    ///
    /// # Errors
    /// The table is not prepared, Cassandra does not answer, or it refuses the read.
    pub async fn read(&self, target: &str, keys: &[TargetKey]) -> Result<Vec<Option<StoredRow>>, ReadError> {
        let table = self.prepared(target)?;
        let mut rows = vec![None; keys.len()];
        let mut tasks = JoinSet::new();
        for (i, key) in keys.iter().enumerate() {
            let permit = Arc::clone(self.reads()).acquire_owned().await;
            let (this, table, key) = (self.clone(), Arc::clone(&table), key.clone());
            tasks.spawn(async move {
                let _permit = permit;
                (i, retry::bounded(this.retry_timeout(), || this.read_row(&table, &key)).await)
            });
        }
        while let Some(done) = tasks.join_next().await {
            let (i, row) = done.unwrap_or_else(|e| match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(e) => unreachable!("read tasks are cancelled only with their set: {e}"),
            });
            rows[i] = row.map_err(|failure| ReadError::new(target, failure))?;
        }
        Ok(rows)
    }

    /// Reads one row, without retries, for callers that can read from another store instead.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub async fn get(&self, target: &str, key: &TargetKey) -> Result<Option<StoredRow>, ReadError> {
        let table = self.prepared(target)?;
        self.read_row(&table, key).await.map_err(|failure| ReadError::new(target, failure))
    }

    pub(crate) fn prepared(&self, target: &str) -> Result<Arc<PreparedTable>, ReadError> {
        self.tables().get(target).ok_or_else(|| ReadError::NotPrepared { target: target.to_owned() })
    }

    async fn read_row(&self, table: &PreparedTable, key: &TargetKey) -> Result<Option<StoredRow>, Failure> {
        let answer = self
            .session()
            .execute_unpaged(&table.select, BoundKey(key))
            .await
            .map_err(|e| Failure::from(&e))?
            .into_rows_result()
            .map_err(|e| unexpected(&e.to_string()))?;
        let rows = raw_rows(&answer).map_err(|e| unexpected(&e))?;
        rows.first().map(|row| stored(row, table.regular_len)).transpose()
    }
}

/// The failure for an answer that does not match the statement.
pub(crate) fn unexpected(cause: &str) -> Failure {
    Failure::Permanent(Rejection::SchemaChanged(cause.to_owned()))
}

/// Converts a row of `cql::select`.
fn stored(row: &[Option<&[u8]>], regular: usize) -> Result<StoredRow, Failure> {
    if regular == 0 {
        return Ok(StoredRow { cells: vec![], writetimes: vec![] });
    }
    if row.len() != regular * 2 {
        return Err(unexpected("a row has another number of columns than its table"));
    }
    let (cells, writetimes) = row.split_at(regular);
    let writetime = |cell: Option<&[u8]>| match cell {
        None => Ok(None),
        Some(bytes) => <[u8; 8]>::try_from(bytes)
            .map(|b| Some(i64::from_be_bytes(b)))
            .map_err(|_| unexpected("a writetime is not a bigint")),
    };
    Ok(StoredRow {
        cells: cells.iter().map(|c| c.map(<[u8]>::to_vec)).collect(),
        writetimes: writetimes.iter().copied().map(writetime).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_and_without_cells() {
        let at = 7i64.to_be_bytes();
        let row = stored(&[Some(&[1][..]), None, Some(&at[..]), None], 2).unwrap();
        assert_eq!(row.cells, [Some(vec![1]), None]);
        assert_eq!(row.writetimes, [Some(7), None]);
        assert_eq!(stored(&[Some(&[9][..])], 0).unwrap(), StoredRow { cells: vec![], writetimes: vec![] });
        assert!(stored(&[None], 2).is_err());
        assert!(stored(&[None, Some(&[1][..])], 1).is_err());
    }
}
