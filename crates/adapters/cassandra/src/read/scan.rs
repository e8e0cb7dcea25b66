//! Reads the keys of a table by token range.

use std::ops::ControlFlow;
use std::sync::Arc;

use scylla::response::PagingState;
use tandem_model::TargetKey;

use crate::connect::target::Target;
use crate::error::{Failure, ReadError};
use crate::read::keys::unexpected;
use crate::retry;
use crate::statement::bind::raw_rows;
use crate::statement::prepared::PreparedTable;

/// A part of the Murmur3 token ring, both ends included. Tokens run from −2⁶³+1 to 2⁶³−1. No key has the
/// token −2⁶³, "the minimum token".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenRange {
    /// The lowest token.
    pub first: i64,
    /// The highest token.
    pub last: i64,
}

impl TokenRange {
    /// The whole ring.
    pub const WHOLE: Self = Self { first: i64::MIN + 1, last: i64::MAX };

    /// Splits the range into `parts` of about the same width, in ring order. Returns fewer parts if the range
    /// has fewer tokens, and one part for `parts` = 0.
    pub fn split(self, parts: u32) -> Vec<Self> {
        let tokens = self.last as i128 - self.first as i128 + 1;
        let parts = i128::from(parts).clamp(1, tokens.max(1));
        let cut = |i: i128| self.first as i128 + tokens * i / parts;
        (0..parts).map(|i| Self { first: cut(i) as i64, last: (cut(i + 1) - 1) as i64 }).collect()
    }
}

/// A scan in progress. It may or may not return rows that are written or deleted during the scan.
pub struct Scan {
    target: Target,
    name: String,
    table: Arc<PreparedTable>,
    range: TokenRange,
    /// The state of the next page; `None` at the end.
    next: Option<PagingState>,
}

impl Target {
    /// Starts a scan of the keys of all rows in a token range. To scan concurrently, or to resume after a
    /// stop, split the ring and scan each part separately.
    ///
    /// # Errors
    /// The table is not prepared.
    pub fn scan_keys(&self, target: &str, range: TokenRange) -> Result<Scan, ReadError> {
        Ok(Scan {
            table: self.prepared(target)?,
            target: self.clone(),
            name: target.to_owned(),
            range,
            next: Some(PagingState::start()),
        })
    }
}

impl Scan {
    /// Returns the next page of about a thousand keys, which may be empty; `None` at the end. Retries
    /// transient failures for five times the request timeout.
    ///
    /// # Errors
    /// Cassandra does not answer, or refuses the read. The next call reads the same page again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<TargetKey>>, ReadError> {
        let Some(from) = &self.next else { return Ok(None) };
        let (keys, next) = retry::bounded(self.target.retry_timeout(), || self.page(from.clone()))
            .await
            .map_err(|failure| ReadError::new(&self.name, failure))?;
        self.next = next;
        Ok(Some(keys))
    }

    async fn page(&self, from: PagingState) -> Result<(Vec<TargetKey>, Option<PagingState>), Failure> {
        let _permit = self.target.reads().acquire().await;
        let bounds = (self.range.first, self.range.last);
        let (answer, next) = self
            .target
            .session()
            .execute_single_page(&self.table.scan, bounds, from)
            .await
            .map_err(|e| Failure::from(&e))?;
        let answer = answer.into_rows_result().map_err(|e| unexpected(&e.to_string()))?;
        let keys = raw_rows(&answer)
            .map_err(|e| unexpected(&e))?
            .into_iter()
            .map(|row| row.into_iter().map(|part| part.map(<[u8]>::to_vec)).collect::<Option<TargetKey>>())
            .collect::<Option<Vec<_>>>()
            .filter(|keys| keys.iter().all(|key| key.len() == self.table.key_len))
            .ok_or_else(|| unexpected("a key lacks a part"))?;
        Ok((
            keys,
            match next.into_paging_control_flow() {
                ControlFlow::Break(()) => None,
                ControlFlow::Continue(state) => Some(state),
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_ring_in_two() {
        assert_eq!(
            TokenRange::WHOLE.split(2),
            [TokenRange { first: i64::MIN + 1, last: -1 }, TokenRange { first: 0, last: i64::MAX }]
        );
        assert_eq!(TokenRange::WHOLE.split(0), [TokenRange::WHOLE]);
        let one = TokenRange { first: 5, last: 5 };
        assert_eq!(one.split(9), [one]);
    }

    proptest! {
        #[test]
        fn parts_cover_the_range_once(a: i64, b: i64, parts in 1u32..300) {
            let range = TokenRange { first: a.min(b), last: a.max(b) };
            let split = range.split(parts);
            prop_assert_eq!(split[0].first, range.first);
            prop_assert_eq!(split[split.len() - 1].last, range.last);
            prop_assert!(split.iter().all(|r| r.first <= r.last));
            prop_assert!(split.windows(2).all(|w| w[0].last + 1 == w[1].first));
        }
    }
}
