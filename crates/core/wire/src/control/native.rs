//! Control records that stand in Cassandra: guards, and batches of native writes.

use serde::{Deserialize, Serialize};

use super::record::sealed::Sealed;
use super::record::{ControlRecord, ControlSchema};
use super::records::{bytes_list, plain_record};

/// A key of a target that a native write deletes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleKey {
    /// The target table.
    pub target: String,
    /// The key's columns in CQL's serialised form.
    #[serde(with = "bytes_list")]
    pub key: Vec<Vec<u8>>,
}

/// A native write that a guard has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedWrite {
    /// The nonce of the request, of 16 bytes.
    #[serde(with = "apache_avro::serde::bytes")]
    pub request: Vec<u8>,
    /// The version that it got.
    pub version: i64,
}

/// The write of a batch that is not settled yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TentativeWrite {
    /// The batch, of 16 bytes.
    #[serde(with = "apache_avro::serde::bytes")]
    pub batch: Vec<u8>,
    /// The nonce of the request, of 16 bytes.
    #[serde(with = "apache_avro::serde::bytes")]
    pub request: Vec<u8>,
    /// The row if the batch is committed, in Avro and without a frame. `None` deletes it.
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub image: Option<Vec<u8>>,
    /// The target keys that are deleted then.
    pub stale: Vec<StaleKey>,
}

/// What the guard of a key holds, beside the nonce of its last compare-and-set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardRecord {
    /// The version of the last write.
    pub version: i64,
    /// Tandem's id of the envelope's schema. The images are rows of it, in Avro and without a frame.
    pub schema_id: i64,
    /// The row before the last write.
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub before: Option<Vec<u8>>,
    /// The row. `None` if it is deleted.
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub image: Option<Vec<u8>>,
    /// The target keys that the last write deletes.
    pub stale: Vec<StaleKey>,
    /// The writes accepted lately, the last one included.
    pub recent: Vec<AcceptedWrite>,
    /// The write of a batch that is not settled yet.
    pub tentative: Option<TentativeWrite>,
}

plain_record!(GuardRecord, "guard.avsc");

/// A row of a batch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BatchRow {
    /// `database.table` of the source.
    pub table: String,
    /// The row's primary key in Avro, without a frame.
    #[serde(with = "apache_avro::serde::bytes")]
    pub key: Vec<u8>,
}

/// A batch of native writes, beside its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeBatch {
    /// From when on anybody may abort it while it is pending, in microseconds since the epoch.
    pub deadline_us: i64,
    /// The version of its writes, once it is committed.
    pub version: Option<i64>,
    /// Its rows.
    pub rows: Vec<BatchRow>,
}

plain_record!(NativeBatch, "native-batch.avsc");
