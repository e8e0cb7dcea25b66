//! Row changes.

use std::sync::Arc;

use crate::{Row, TableDef, Version};

/// What happened to a row: the `op` of the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// A row was inserted.
    Create,
    /// A row was updated and kept its primary key.
    Update,
    /// A row was deleted.
    Delete,
    /// A row was read by a backfill.
    Snapshot,
    /// A row was read by a backfill behind a gap in the log, over whatever was written before.
    Resnapshot,
}

impl Op {
    /// The envelope's letter. A copy and one made anew have the same; `source.snapshot` tells them apart.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Snapshot | Self::Resnapshot => "r",
        }
    }

    /// The operation of an envelope's letter: `r` is [`Op::Snapshot`].
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

/// Where a change came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceInfo {
    /// The transaction's GTID; none for a row read by a backfill.
    pub gtid: Option<String>,
    /// The binlog file; empty for a row read by a backfill.
    pub file: Arc<str>,
    /// The end of the event that held the row, in bytes.
    pub pos: u64,
    /// The row change's number within its transaction, from 0.
    pub row: u64,
    /// The server that executed the transaction first.
    pub server_id: u32,
    /// When the transaction committed on that server (a backfill's row: when it was read), in
    /// microseconds since the epoch.
    pub ts_us: i64,
}

/// One row change: one record on the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The table as it was at that moment.
    pub table: Arc<TableDef>,
    /// What happened.
    pub op: Op,
    /// The row before (update, delete).
    pub before: Option<Row>,
    /// The row after (create, update, read).
    pub after: Option<Row>,
    /// The version that its cells carry in Cassandra.
    pub version: Version,
    /// Where it came from.
    pub source: SourceInfo,
}

impl Change {
    /// The row that names the key: the image after, else the image before.
    ///
    /// # Panics
    /// A change without any image cannot be built by the decoder or the reader.
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
    fn the_image_after_names_the_key_where_there_is_one() {
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
