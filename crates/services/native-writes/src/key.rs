//! The keys of guards.

use std::fmt;

use tandem_model::TargetKey;

/// A row that has, or may have, a guard: its table and its primary key in Avro, without a frame.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GuardKey {
    pub(crate) table: String,
    pub(crate) key: Vec<u8>,
}

impl GuardKey {
    /// The partition key of its guard, and of its mark `done`.
    pub(crate) fn to_cql(&self) -> TargetKey {
        vec![self.table.clone().into_bytes(), self.key.clone()]
    }

    /// The inverse of [`Self::to_cql`]. `None` if it is no such key.
    pub(crate) fn of_cql(key: TargetKey) -> Option<Self> {
        let [table, key] = <[Vec<u8>; 2]>::try_from(key).ok()?;
        Some(Self { table: String::from_utf8(table).ok()?, key })
    }
}

/// The table only: a key is customer data.
impl fmt::Display for GuardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a row of {}", self.table)
    }
}
