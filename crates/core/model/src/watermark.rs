//! Watermarks: "everything up to here has been published".

use std::collections::BTreeMap;

use crate::{BinlogPosition, Gtid, GtidSet, Version};

/// The rows of a MySQL transaction that is larger than one Kafka transaction and not yet out whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialTransaction {
    /// The transaction that was cut.
    pub gtid: Gtid,
    /// How many of its row changes have been published so far.
    pub rows: u64,
}

/// A statement of capture about the log, and its checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    /// The name of the source, the record's key.
    pub source: String,
    /// Every transaction published whole.
    pub gtid_set: GtidSet,
    /// Where the last complete transaction ends in the binlog.
    pub position: BinlogPosition,
    /// Minted for this watermark: above every change before it, below every change after it.
    pub version: Version,
    /// For every change topic and each of its partitions, the offset after the last record published.
    pub offsets: BTreeMap<String, Vec<i64>>,
    /// Set where a MySQL transaction is partly out. Such a watermark is a checkpoint only.
    pub partial: Option<PartialTransaction>,
    /// MySQL's clock as capture last heard it, in microseconds since the epoch.
    pub clock_us: i64,
}
