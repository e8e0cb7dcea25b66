//! Mutations: writes to Cassandra.

use std::sync::Arc;

use crate::Version;

/// A cell as CQL's binary protocol represents it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Leaves the stored value unchanged.
    Unset,
    /// Writes a cell tombstone.
    Null,
    /// Writes this value, in CQL's serialised form.
    Value(Vec<u8>),
}

/// The primary key of a row in a target table: the partition key, then the clustering columns.
///
/// The values are in the table's order, each in CQL's serialised form.
pub type TargetKey = Vec<Vec<u8>>;

/// The kind of a write, with its cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// `INSERT … USING TIMESTAMP`: writes the row marker and these cells, in the order of the target's
    /// regular columns.
    Upsert(Vec<Cell>),
    /// `DELETE … USING TIMESTAMP`: writes a row tombstone, never a range or partition tombstone.
    DeleteRow,
}

/// A write to one row of one target table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// The name of the target table within the keyspace.
    pub target: Arc<str>,
    /// The primary key of the row.
    pub key: TargetKey,
    /// The version of the whole write. It becomes the timestamp in Cassandra.
    pub version: Version,
    /// The write.
    pub write: Write,
}

/// A row as Cassandra returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// The regular columns in the target's order, in CQL's serialised form. `None` is null.
    pub cells: Vec<Option<Vec<u8>>>,
    /// The writetimes of these cells. `None` where the cell is null.
    pub writetimes: Vec<Option<i64>>,
}
