//! Watermarks: "everything up to this position has been published".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::{BinlogPosition, Gtid, GtidSet, TableName, Version};

/// The tables of a log at a watermark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CapturedTables {
    /// The captured tables with their change topics. All changes of such a table up to the watermark are on the log,
    /// from the first watermark on that has the table.
    pub captured: BTreeMap<TableName, Arc<str>>,
    /// The tables that were captured earlier and are not any more. The log lacks changes of such a table, so capture
    /// does not take it up again by itself.
    pub retired: BTreeSet<TableName>,
}

/// A partially published MySQL transaction: one that is larger than one Kafka transaction and not complete
/// yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialTransaction {
    /// The transaction.
    pub gtid: Gtid,
    /// The number of its row changes that have been published so far.
    pub rows: u64,
}

/// Capture's statement about how far the log is complete. It is also capture's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    /// The name of the source. It is the key of the watermark's record.
    pub source: String,
    /// The transactions that are completely published.
    pub gtid_set: GtidSet,
    /// The end of the last complete transaction in the binlog.
    pub position: BinlogPosition,
    /// The version minted for this watermark. It is above every change before the watermark and below every
    /// change after it.
    pub version: Version,
    /// The tables of the log.
    pub tables: Arc<CapturedTables>,
    /// For every change topic and each of its partitions: the offset after the last published record.
    pub offsets: BTreeMap<String, Vec<i64>>,
    /// Set if a MySQL transaction is partially published. Such a partial watermark is only a checkpoint: it
    /// is neither borrowed nor used as an upper bound.
    pub partial: Option<PartialTransaction>,
    /// MySQL's clock as capture last read it, in microseconds since the epoch.
    pub clock_us: i64,
}
