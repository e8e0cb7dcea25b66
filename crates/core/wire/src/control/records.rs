//! Mismatches, progress of backfills, DDL statements, dual writes that failed.

use serde::{Deserialize, Serialize};

use super::record::sealed::Sealed;
use super::record::{ControlRecord, ControlSchema};

/// How a row of Cassandra differs from MySQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MismatchKind {
    /// MySQL has the row, Cassandra has not.
    Missing,
    /// Cassandra has the row, MySQL has not.
    Extra,
    /// Both have the row, and cells differ.
    Different,
    /// A cell carries a writetime that no change and no watermark has.
    OutOfBand,
}

/// What has become of a mismatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MismatchState {
    /// It was confirmed.
    Found,
    /// It was repaired, or checked again and found equal.
    Resolved,
    /// It cannot be repaired by writing the row again.
    Unrepairable,
}

/// What met a mismatch first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FoundBy {
    /// The verification of changes, or of everything.
    Verification,
    /// A read that was Cassandra's to serve, compared with MySQL.
    CanaryRead,
    /// A read that MySQL served, compared with Cassandra.
    ShadowRead,
}

/// A confirmed difference between the stores, or what has become of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// `database.table` of the source.
    pub table: String,
    /// The target table's name in its keyspace.
    pub target: String,
    /// The source row's key as the change topics carry it, framed. Empty where the source has
    /// no such row and never had.
    #[serde(with = "apache_avro::serde::bytes")]
    pub source_key: Vec<u8>,
    /// The target key's columns, printable.
    pub target_key: Vec<String>,
    /// How they differ.
    pub kind: MismatchKind,
    /// The columns that differ.
    pub columns: Vec<String>,
    /// What has become of it.
    pub state: MismatchState,
    /// The version of W₁, the watermark below the check.
    pub lower: i64,
    /// The version of W₃, the watermark above the check.
    pub upper: i64,
    /// The writetimes found in the target row.
    pub writetimes: Vec<i64>,
    /// When it was confirmed, in microseconds since the epoch.
    pub detected_at_us: i64,
    /// The target key's columns in CQL's serialised form.
    #[serde(with = "bytes_list")]
    pub raw_target_key: Vec<Vec<u8>>,
    /// What met it first.
    pub found_by: FoundBy,
}

/// How far the backfill of a table has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillProgress {
    /// `database.table` of the source.
    pub table: String,
    /// A hash of the target tables that it fills. With another one the table is copied anew.
    pub mapping: String,
    /// A hash of the mapping as it was configured last, for those who do not know MySQL's definitions.
    pub configured: String,
    /// The last key copied, framed.
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub last_key: Option<Vec<u8>>,
    /// The last key to copy, framed.
    #[serde(with = "apache_avro::serde::bytes_opt")]
    pub upto_key: Option<Vec<u8>>,
    /// Rows copied so far.
    pub rows: i64,
    /// MySQL's estimate of the rows in the table.
    pub estimated_rows: i64,
    /// Whether every row has been published.
    pub done: bool,
    /// The version of the last watermark borrowed.
    pub version: i64,
    /// When it began, in microseconds since the epoch.
    pub started_at_us: i64,
    /// When this was written, in microseconds since the epoch.
    pub updated_at_us: i64,
    /// Once done: for each partition of the backfill topic, the offset after its last record.
    pub end_offsets: Vec<i64>,
}

/// A DDL statement of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ddl {
    /// The GTID under which it ran.
    pub gtid: String,
    /// The session's default database.
    pub database: String,
    /// The statement's text.
    pub statement: String,
    /// What it was classified as.
    pub kind: String,
    /// The tables that it names, as `database.table`.
    pub tables: Vec<String>,
    /// The version minted for it.
    pub version: i64,
    /// The binlog file.
    pub file: String,
    /// The end of its event in that file.
    pub pos: i64,
    /// When it was executed, in microseconds since the epoch.
    pub ts_us: i64,
}

/// A write that MySQL has committed and Cassandra did not take in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DualWriteFailure {
    /// `database.table` of the source.
    pub table: String,
    /// The source row's key as the change topics carry it, framed.
    #[serde(with = "apache_avro::serde::bytes")]
    pub source_key: Vec<u8>,
    /// The transaction that committed it.
    pub gtid: String,
    /// The version of the watermark that was borrowed; 0 if none could be.
    pub version: i64,
    /// Why it failed.
    pub reason: String,
    /// When it failed, in microseconds since the epoch.
    pub at_us: i64,
}

/// The key of the record of the newest gap in the log in `<prefix>.control`.
pub const RESNAPSHOT_KEY: &[u8] = b"resnapshot";

/// A gap in the log: what MySQL did in it stands on no topic, and every table is copied anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resnapshot {
    /// The version of the watermark with which the log goes on.
    pub version: i64,
    /// What the log held before the gap.
    pub from_gtid_set: String,
    /// What MySQL had executed when the log went on.
    pub to_gtid_set: String,
    /// Why, in the words of who ordered it.
    pub reason: String,
    /// When it was ordered, in microseconds since the epoch.
    pub at_us: i64,
}

/// The key of the progress of a table's backfill in `<prefix>.control`, after the newest [`Resnapshot`] if there
/// was one.
///
/// Each resnapshot begins copies of its own under keys of their own. So what was copied before it does not
/// count, nor does a backfill that has not heard of it and goes on with the earlier copy.
pub fn progress_key(table: &str, resnapshot: Option<&Resnapshot>) -> Vec<u8> {
    match resnapshot {
        None => format!("backfill/{table}"),
        Some(Resnapshot { version, .. }) => format!("backfill@{version}/{table}"),
    }
    .into_bytes()
}

/// Whether a key of `<prefix>.control` is one of [`progress_key`].
pub fn is_progress_key(key: &[u8]) -> bool {
    key.starts_with(b"backfill/") || key.starts_with(b"backfill@")
}

/// The key of the record of the newest full verification in `<prefix>.control`.
pub const FULL_SCAN_KEY: &[u8] = b"full-scan";

/// What the newest verification of every row has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullScan {
    /// When it began, in microseconds since the epoch.
    pub started_at_us: i64,
    /// When it ended, in microseconds since the epoch.
    pub ended_at_us: i64,
    /// Rows checked, of both stores together.
    pub rows: i64,
    /// Target rows that differed, confirmed.
    pub mismatches: i64,
    /// Rows that kept changing and were not decided.
    pub undecided: i64,
}

/// A list of `bytes`.
mod bytes_list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct One(#[serde(with = "apache_avro::serde::bytes")] Vec<u8>);

    pub(super) fn serialize<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|bytes| One(bytes.clone())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
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

plain_record!(Mismatch, "mismatch.avsc");
plain_record!(BackfillProgress, "backfill-progress.avsc");
plain_record!(Ddl, "ddl.avsc");
plain_record!(DualWriteFailure, "dual-write-failure.avsc");
plain_record!(FullScan, "full-scan.avsc");
plain_record!(Resnapshot, "resnapshot.avsc");

#[cfg(test)]
mod tests {
    use super::*;

    /// A database may be called like a number, and a table may have a slash in its name.
    #[test]
    fn no_two_copies_have_one_key() {
        let resnapshot = |version| Resnapshot {
            version,
            from_gtid_set: String::new(),
            to_gtid_set: String::new(),
            reason: String::new(),
            at_us: 0,
        };
        let (one, two) = (resnapshot(1), resnapshot(2));
        let keys = [
            progress_key("d.t", None),
            progress_key("d.t", Some(&one)),
            progress_key("d.t", Some(&two)),
            progress_key("1/d.t", None),
            progress_key("1/d.t", Some(&one)),
            progress_key("d.u", Some(&one)),
        ];
        assert!(keys.iter().all(|key| is_progress_key(key)));
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert!(!is_progress_key(RESNAPSHOT_KEY) && !is_progress_key(FULL_SCAN_KEY));
    }
}
