//! What is written to Cassandra.

use std::sync::Arc;

use crate::Version;

/// One cell as CQL's binary protocol carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Leave whatever is there.
    Unset,
    /// Write a cell tombstone.
    Null,
    /// Write this value, in CQL's serialised form.
    Value(Vec<u8>),
}

/// The primary key of a row in a target table: partition key then clustering columns, in the
/// table's order, each in CQL's serialised form.
pub type TargetKey = Vec<Vec<u8>>;

/// What happens to a target row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// `INSERT … USING TIMESTAMP`: the row marker and these cells, in the order of the target's
    /// regular columns.
    Upsert(Vec<Cell>),
    /// `DELETE … USING TIMESTAMP`: a row tombstone. Never a range or a partition.
    DeleteRow,
}

/// One write to one row of one target table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// The name of the target table within the keyspace.
    pub target: Arc<str>,
    /// The row.
    pub key: TargetKey,
    /// The timestamp of everything in this write.
    pub version: Version,
    /// The write.
    pub write: Write,
}

/// A row as Cassandra returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// The regular columns in the target's order, in CQL's serialised form; `None` is null.
    pub cells: Vec<Option<Vec<u8>>>,
    /// Their writetimes, where a cell is there.
    pub writetimes: Vec<Option<i64>>,
}
