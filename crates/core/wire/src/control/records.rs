//! Control records: mismatches, backfill progress, DDL statements, failed dual writes, log gaps and full
//! verifications.

use serde::{Deserialize, Serialize};

use super::record::sealed::Sealed;
use super::record::{ControlRecord, ControlSchema};

/// How a row in Cassandra differs from MySQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MismatchKind {
    /// MySQL has the row, and Cassandra does not.
    Missing,
    /// Cassandra has the row, and MySQL does not.
    Extra,
    /// Both have the row, and cells differ.
    Different,
}

/// The state of a mismatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MismatchState {
    /// The mismatch was confirmed.
    Found,
    /// The mismatch was repaired, or a recheck found the rows equal.
    Resolved,
    /// Writing the row again cannot repair the mismatch.
    Unrepairable,
}

/// What first found a mismatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FoundBy {
    /// The verification of changes, or a full verification.
    Verification,
    /// A read routed to Cassandra and compared with MySQL.
    CanaryRead,
    /// A read served by MySQL and compared with Cassandra.
    ShadowRead,
}

/// A confirmed difference between the stores, or a change of its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// `database.table` of the source.
    pub table: String,
    /// The target table's name in its keyspace.
    pub target: String,
    /// The framed key of the source row, as on the change topics. Empty if the source never had such a row.
    #[serde(with = "apache_avro::serde::bytes")]
    pub source_key: Vec<u8>,
    /// The target key's columns in printable form.
    pub target_key: Vec<String>,
    /// How the rows differ.
    pub kind: MismatchKind,
    /// The columns that differ.
    pub columns: Vec<String>,
    /// The state.
    pub state: MismatchState,
    /// The version of W₁, the lower watermark of the check.
    pub lower: i64,
    /// The version of W₃, the upper watermark of the check.
    pub upper: i64,
    /// The writetimes found in the target row.
    pub writetimes: Vec<i64>,
    /// When the mismatch was confirmed, in microseconds since the epoch.
    pub detected_at_us: i64,
    /// The target key's columns in CQL's serialised form.
    #[serde(with = "bytes_list")]
    pub raw_target_key: Vec<Vec<u8>>,
    /// What first found the mismatch.
    pub found_by: FoundBy,
}

/// The progress of a table's backfill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillProgress {
    /// `database.table` of the source.
    pub table: String,
    /// A hash of the layout of the target tables. If it changes, the table is copied again.
    pub mapping: String,
    /// A hash of the last configured mapping, for readers that do not know MySQL's definitions.
    pub configured: String,
    /// The last copied key, framed.
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub last_key: Option<Vec<u8>>,
    /// The last key to copy, framed.
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub upto_key: Option<Vec<u8>>,
    /// The number of rows copied so far.
    pub rows: i64,
    /// MySQL's estimate of the number of rows in the table.
    pub estimated_rows: i64,
    /// Whether every row has been published.
    pub done: bool,
    /// The version of the last borrowed watermark.
    pub version: i64,
    /// When the backfill began, in microseconds since the epoch.
    pub started_at_us: i64,
    /// When this record was written, in microseconds since the epoch.
    pub updated_at_us: i64,
    /// Once done: the offset after the last record of each partition of the backfill topic.
    pub end_offsets: Vec<i64>,
}

/// A DDL statement of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ddl {
    /// The GTID of the statement.
    pub gtid: String,
    /// The session's default database.
    pub database: String,
    /// The statement's text.
    pub statement: String,
    /// The kind of the statement.
    pub kind: String,
    /// The tables that the statement names, as `database.table`.
    pub tables: Vec<String>,
    /// The version minted for the statement.
    pub version: i64,
    /// The binlog file.
    pub file: String,
    /// The end of the statement's event in that file.
    pub pos: i64,
    /// When the statement was executed, in microseconds since the epoch.
    pub ts_us: i64,
}

/// A failed dual write: MySQL committed it, and Cassandra did not accept it in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DualWriteFailure {
    /// `database.table` of the source.
    pub table: String,
    /// The framed key of the source row, as on the change topics.
    #[serde(with = "apache_avro::serde::bytes")]
    pub source_key: Vec<u8>,
    /// The GTID of the transaction.
    pub gtid: String,
    /// The version of the borrowed watermark, or 0 if there was none to borrow.
    pub version: i64,
    /// Why the secondary write failed.
    pub reason: String,
    /// When the secondary write failed, in microseconds since the epoch.
    pub at_us: i64,
}

/// The key in `<prefix>.control` of the record of the newest log gap.
pub const RESNAPSHOT_KEY: &[u8] = b"resnapshot";

/// A log gap. Changes that MySQL made during the gap are on no topic, so every table is copied again
/// (re-snapshot).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resnapshot {
    /// The version of the watermark with which the log continues.
    pub version: i64,
    /// The transactions on the log before the gap.
    pub from_gtid_set: String,
    /// The transactions that MySQL had executed when the log continued.
    pub to_gtid_set: String,
    /// The reason, as given by whoever ordered the re-snapshot.
    pub reason: String,
    /// When the re-snapshot was ordered, in microseconds since the epoch.
    pub at_us: i64,
}

/// The key in `<prefix>.control` of the progress of a table's backfill. `from` is the version from which its copies
/// count ([`copies_from`](super::copies_from)).
///
/// Each re-snapshot, and each order to copy the table again, starts new copies under keys of their own. So rows copied
/// before it do not count. Neither does a backfill that has not seen the order yet and continues the earlier copy.
pub fn progress_key(table: &str, from: Option<i64>) -> Vec<u8> {
    match from {
        None => format!("backfill/{table}"),
        Some(version) => format!("backfill@{version}/{table}"),
    }
    .into_bytes()
}

/// Whether a key of `<prefix>.control` is a [`progress_key`].
pub fn is_progress_key(key: &[u8]) -> bool {
    key.starts_with(b"backfill/") || key.starts_with(b"backfill@")
}

/// The key in `<prefix>.control` of the record of the newest full verification.
pub const FULL_SCAN_KEY: &[u8] = b"full-scan";

/// The result of the newest full verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullScan {
    /// When the verification began, in microseconds since the epoch.
    pub started_at_us: i64,
    /// When the verification ended, in microseconds since the epoch.
    pub ended_at_us: i64,
    /// The number of rows checked, of both stores together.
    pub rows: i64,
    /// The number of target rows with a confirmed difference.
    pub mismatches: i64,
    /// The number of rows that kept changing and could not be decided.
    pub undecided: i64,
}

/// Serialises a list of `bytes`.
pub(super) mod bytes_list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct One(#[serde(with = "apache_avro::serde::bytes")] Vec<u8>);

    pub(crate) fn serialize<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|bytes| One(bytes.clone())))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        Ok(Vec::<One>::deserialize(deserializer)?.into_iter().map(|one| one.0).collect())
    }
}

macro_rules! plain_record {
    ($record:ident, $file:literal) => {
        impl Sealed for $record {}

        impl ControlRecord for $record {
            type Fields = Self;

            fn schema() -> &'static ControlSchema {
                static SCHEMA: ControlSchema = ControlSchema::new(
                    stringify!($record),
                    include_str!(concat!("../../../../../schemas/", $file)),
                );
                &SCHEMA
            }

            fn to_fields(&self) -> Self {
                self.clone()
            }

            fn from_fields(fields: Self) -> Result<Self, String> {
                Ok(fields)
            }
        }
    };
}

pub(super) use plain_record;

plain_record!(Mismatch, "mismatch.avsc");
plain_record!(BackfillProgress, "backfill-progress.avsc");
plain_record!(Ddl, "ddl.avsc");
plain_record!(DualWriteFailure, "dual-write-failure.avsc");
plain_record!(FullScan, "full-scan.avsc");
plain_record!(Resnapshot, "resnapshot.avsc");

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys must differ even if a database's name is a number or a table's name contains a slash.
    #[test]
    fn each_copy_has_its_own_key() {
        let keys = [
            progress_key("d.t", None),
            progress_key("d.t", Some(1)),
            progress_key("d.t", Some(2)),
            progress_key("1/d.t", None),
            progress_key("1/d.t", Some(1)),
            progress_key("d.u", Some(1)),
        ];
        assert!(keys.iter().all(|key| is_progress_key(key)));
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert!(!is_progress_key(RESNAPSHOT_KEY) && !is_progress_key(FULL_SCAN_KEY));
    }
}
