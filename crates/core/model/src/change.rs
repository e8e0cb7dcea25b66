//! Row changes.

use std::sync::Arc;

use crate::{Epoch, Nonce, Row, TableDef, Version};

/// What happened to a row. The envelope's `op` holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// A row was inserted.
    Create,
    /// A row was updated and kept its primary key.
    Update,
    /// A row was deleted.
    Delete,
    /// A backfill read the row.
    Snapshot,
    /// A backfill after a log gap read the row (re-snapshot). It replaces whatever was written before.
    Resnapshot,
}

impl Op {
    /// The letter in the envelope. A snapshot and a re-snapshot have the same letter; `source.snapshot`
    /// distinguishes them.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Snapshot | Self::Resnapshot => "r",
        }
    }

    /// The operation of an envelope's letter. `r` yields [`Op::Snapshot`].
    pub fn from_letter(letter: &str) -> Option<Self> {
        Some(match letter {
            "c" => Self::Create,
            "u" => Self::Update,
            "d" => Self::Delete,
            "r" => Self::Snapshot,
            _ => return None,
        })
    }
}

/// The source of a change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceInfo {
    /// The transaction's GTID. `None` for a row read by a backfill.
    pub gtid: Option<String>,
    /// The binlog file. Empty for a row read by a backfill.
    pub file: Arc<str>,
    /// The end of the event that holds the row, as an offset in bytes.
    pub pos: u64,
    /// The index of the row change within its transaction, from 0.
    pub row: u64,
    /// The id of the server that first executed the transaction.
    pub server_id: u32,
    /// When the transaction committed on that server, in microseconds since the epoch. For a row read by a
    /// backfill: when it was read.
    pub ts_us: i64,
    /// Set if the change is a native write: Cassandra decided it, and no binlog holds it.
    pub native: Option<NativeSource>,
}

/// The source of a change that Cassandra decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NativeSource {
    /// The epoch in which the write was accepted.
    pub epoch: Epoch,
    /// The request. `None` for a record that repeats what the row was before.
    pub request: Option<Nonce>,
}

/// A row change. It is one record on the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The table definition at the time of the change.
    pub table: Arc<TableDef>,
    /// The operation.
    pub op: Op,
    /// The row before the change (update, delete).
    pub before: Option<Row>,
    /// The row after the change (create, update, snapshot).
    pub after: Option<Row>,
    /// The version of its cells in Cassandra.
    pub version: Version,
    /// The source of the change.
    pub source: SourceInfo,
}

impl Change {
    /// The row that holds the key: the image after, or else the image before.
    ///
    /// # Panics
    ///
    /// The change has no image. Neither the decoder nor the snapshot reader builds such a change.
    pub fn image(&self) -> &Row {
        self.after.as_ref().or(self.before.as_ref()).expect("a change has at least one image")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TableName, Value};

    #[test]
    fn operations_have_debeziums_letters() {
        for (op, letter) in [(Op::Create, "c"), (Op::Update, "u"), (Op::Delete, "d"), (Op::Snapshot, "r")] {
            assert_eq!((op.letter(), Op::from_letter(letter)), (letter, Some(op)));
        }
        assert_eq!(Op::from_letter("t"), None);
    }

    #[test]
    fn the_image_after_holds_the_key_if_it_exists() {
        let table = TableDef { name: TableName::new("d", "t"), columns: Vec::new(), primary_key: Vec::new() };
        let row = |v| Some(vec![Value::Int(v)]);
        let change = |before, after| Change {
            table: Arc::new(table.clone()),
            op: Op::Update,
            before,
            after,
            version: Version(1),
            source: SourceInfo::default(),
        };
        assert_eq!(change(row(1), row(2)).image(), &vec![Value::Int(2)]);
        assert_eq!(change(row(1), None).image(), &vec![Value::Int(1)]);
    }
}
