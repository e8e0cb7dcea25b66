//! The envelope of a row change.
//!
//! It has the structure that Debezium's MySQL connector writes ("Change event values" in its documentation),
//! so consumers of Debezium can read it.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tandem_model::{Change, Epoch, NativeSource, Nonce, Op, Row, SourceInfo, TableDef, Version};

use crate::images::{Image, Images};
use crate::primitive::{Reader, put_bytes, put_long};
use crate::{WireError, column};

/// The value of `source.version`: the release that wrote the record.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The schema of `source`.
pub(crate) fn source_schema() -> Json {
    json!({"type": "record", "name": "Source", "fields": [
        {"name": "version", "type": "string"},
        {"name": "connector", "type": "string"},
        {"name": "name", "type": "string"},
        {"name": "ts_ms", "type": "long"},
        {"name": "ts_us", "type": "long"},
        {"name": "ts_ns", "type": "long"},
        {"name": "snapshot", "type": "string"},
        {"name": "db", "type": "string"},
        {"name": "sequence", "type": ["null", "string"], "default": null},
        {"name": "table", "type": "string"},
        {"name": "server_id", "type": "long"},
        {"name": "gtid", "type": ["null", "string"], "default": null},
        {"name": "file", "type": "string"},
        {"name": "pos", "type": "long"},
        {"name": "row", "type": "long"},
        {"name": "thread", "type": ["null", "long"], "default": null},
        {"name": "query", "type": ["null", "string"], "default": null},
        {"name": "tandem_version", "type": "long"},
    ]})
}

/// The schema of `transaction`. `data_collection_order`, a row's index among the rows of its own table, is
/// not known.
pub(crate) fn transaction_schema() -> Json {
    json!({"type": "record", "name": "Transaction", "fields": [
        {"name": "id", "type": "string"},
        {"name": "total_order", "type": "long"},
        {"name": "data_collection_order", "type": ["null", "long"], "default": null},
    ]})
}

/// Checks that a change has the images that its operation needs.
fn check_images(op: Op, before: bool, after: bool) -> Result<(), WireError> {
    let missing = match op {
        Op::Create | Op::Snapshot | Op::Resnapshot | Op::Update if !after => "after",
        Op::Update | Op::Delete if !before => "before",
        _ => return Ok(()),
    };
    Err(WireError::MissingImage { op: op.letter(), image: missing })
}

/// The value of `source.snapshot`. All are values that Debezium uses.
fn snapshot(op: Op) -> &'static str {
    match op {
        Op::Create | Op::Update | Op::Delete => "false",
        Op::Snapshot => "incremental",
        Op::Resnapshot => RESNAPSHOT,
    }
}

/// The `source.snapshot` of [`Op::Resnapshot`], a snapshot that replaces everything before it.
const RESNAPSHOT: &str = "true";

/// Writes a time in milliseconds, microseconds and nanoseconds since the epoch.
fn put_times(out: &mut Vec<u8>, us: i64) {
    put_long(out, us.div_euclid(1000));
    put_long(out, us);
    put_long(out, us.saturating_mul(1000));
}

/// A change whose images are already encoded in Avro.
#[derive(Debug, Clone, Copy)]
pub struct EncodedChange<'a> {
    /// The operation.
    pub op: Op,
    /// The image before (update, delete).
    pub before: Option<Image<'a>>,
    /// The image after (create, update, snapshot).
    pub after: Option<Image<'a>>,
    /// The version of its cells in Cassandra.
    pub version: Version,
    /// The source of the change.
    pub source: &'a SourceInfo,
}

impl<'a> EncodedChange<'a> {
    /// Combines a change with its images, as [`TableSchema::images`](crate::TableSchema::images) returns
    /// them.
    pub fn of(change: &'a Change, images: &'a Images) -> Self {
        let mut images = images.iter();
        Self {
            op: change.op,
            before: change.before.as_ref().and_then(|_| images.next()),
            after: change.after.as_ref().and_then(|_| images.next()),
            version: change.version,
            source: &change.source,
        }
    }

    /// The image that holds the key: the image after, or else the image before.
    ///
    /// # Errors
    ///
    /// The change has no image.
    pub fn image(&self) -> Result<Image<'a>, WireError> {
        let missing = WireError::MissingImage { op: self.op.letter(), image: "after" };
        self.after.or(self.before).ok_or(missing)
    }
}

/// The `source.connector` of a native write.
const CASSANDRA: &[u8] = b"cassandra";

/// The `source.sequence` of a native write: its epoch and its version, as Debezium writes the parts of a position.
fn sequence(epoch: Epoch, version: Version) -> String {
    format!("[\"{epoch}\",\"{version}\"]")
}

/// Reads the epoch of a sequence.
fn epoch_of(sequence: &str) -> Result<Epoch, WireError> {
    let parts: Option<[String; 2]> = serde_json::from_str(sequence).ok();
    let epoch = parts.and_then(|[epoch, _]| epoch.parse().ok());
    epoch.map(Epoch).ok_or(WireError::Corrupt("the sequence of its source has no epoch"))
}

fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => put_long(out, 0),
        Some(text) => {
            put_long(out, 1);
            put_bytes(out, text.as_bytes());
        }
    }
}

/// Writes an envelope without its frame.
///
/// A native write has no GTID and no place in a binlog. Its transaction is its request.
pub(crate) fn put(
    out: &mut Vec<u8>,
    table: &TableDef,
    prefix: &str,
    change: &EncodedChange<'_>,
) -> Result<(), WireError> {
    check_images(change.op, change.before.is_some(), change.after.is_some())?;
    for image in [&change.before, &change.after] {
        match image {
            None => put_long(out, 0),
            Some(image) => {
                put_long(out, 1);
                out.extend_from_slice(image.row);
            }
        }
    }
    let source = change.source;
    put_bytes(out, RELEASE.as_bytes());
    put_bytes(out, if source.native.is_some() { CASSANDRA } else { b"mysql" });
    put_bytes(out, prefix.as_bytes());
    put_times(out, source.ts_us);
    put_bytes(out, snapshot(change.op).as_bytes());
    put_bytes(out, table.name.database.as_bytes());
    put_optional(out, source.native.map(|native| sequence(native.epoch, change.version)).as_deref());
    put_bytes(out, table.name.table.as_bytes());
    put_long(out, i64::from(source.server_id));
    put_optional(out, source.gtid.as_deref());
    put_bytes(out, source.file.as_bytes());
    put_long(out, source.pos as i64);
    put_long(out, source.row as i64);
    put_long(out, 0); // thread
    put_long(out, 0); // query
    put_long(out, change.version.0);
    put_bytes(out, change.op.letter().as_bytes());
    put_times(out, source.ts_us);
    let request = source.native.and_then(|native| native.request);
    match source.gtid.clone().or_else(|| request.map(|nonce| nonce.to_string())) {
        None => put_long(out, 0),
        Some(transaction) => {
            put_long(out, 1);
            put_bytes(out, transaction.as_bytes());
            put_long(out, source.row as i64 + 1);
            put_long(out, 0); // data_collection_order
        }
    }
    Ok(())
}

fn get_row(reader: &mut Reader<'_>, table: &TableDef) -> Result<Option<Row>, WireError> {
    if !reader.present()? {
        return Ok(None);
    }
    table.columns.iter().map(|column| column::get(reader, column)).collect::<Result<_, _>>().map(Some)
}

fn unsigned<T: TryFrom<i64>>(value: i64) -> Result<T, WireError> {
    T::try_from(value).map_err(|_| WireError::Corrupt("a number of its source is out of range"))
}

/// Reads an envelope without its frame.
pub(crate) fn get(bytes: &[u8], table: &Arc<TableDef>) -> Result<Change, WireError> {
    let mut reader = Reader::new(bytes);
    let r = &mut reader;
    let before = get_row(r, table)?;
    let after = get_row(r, table)?;
    r.bytes()?; // version
    let is_native = r.bytes()? == CASSANDRA;
    r.bytes()?; // name
    r.long()?;
    let ts_us = r.long()?;
    r.long()?;
    let resnapshot = r.bytes()? == RESNAPSHOT.as_bytes();
    r.bytes()?; // db
    let sequence = if r.present()? { Some(r.text()?) } else { None };
    let epoch = is_native.then(|| epoch_of(sequence.unwrap_or_default())).transpose()?;
    r.bytes()?; // table
    let server_id = unsigned(r.long()?)?;
    let gtid = if r.present()? { Some(r.text()?.to_owned()) } else { None };
    let file = r.text()?.into();
    let pos = unsigned(r.long()?)?;
    let row = unsigned(r.long()?)?;
    if r.present()? {
        r.long()?; // thread
    }
    if r.present()? {
        r.bytes()?; // query
    }
    let version = Version(r.long()?);
    let op = match Op::from_letter(r.text()?).ok_or(WireError::Corrupt("it has an unknown op"))? {
        Op::Snapshot if resnapshot => Op::Resnapshot,
        op => op,
    };
    for _ in 0..3 {
        r.long()?; // ts_ms, ts_us, ts_ns
    }
    let mut request = None;
    if r.present()? {
        let id = r.text()?;
        if is_native {
            let nonce = Nonce::parse(id).ok_or(WireError::Corrupt("its transaction is not a request"))?;
            request = Some(nonce);
        }
        r.long()?; // total_order
        if r.present()? {
            r.long()?; // data_collection_order
        }
    }
    r.end()?;
    check_images(op, before.is_some(), after.is_some())?;
    let native = epoch.map(|epoch| NativeSource { epoch, request });
    let source = SourceInfo { gtid, file, pos, row, server_id, ts_us, native };
    Ok(Change { table: Arc::clone(table), op, before, after, version, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_needs_its_images() {
        for (op, before, after, missing) in [
            (Op::Create, false, true, None),
            (Op::Create, false, false, Some("after")),
            (Op::Snapshot, false, true, None),
            (Op::Snapshot, false, false, Some("after")),
            (Op::Resnapshot, false, true, None),
            (Op::Resnapshot, false, false, Some("after")),
            (Op::Update, true, true, None),
            (Op::Update, true, false, Some("after")),
            (Op::Update, false, true, Some("before")),
            (Op::Delete, true, false, None),
            (Op::Delete, false, false, Some("before")),
        ] {
            let found = match check_images(op, before, after) {
                Ok(()) => None,
                Err(WireError::MissingImage { image, .. }) => Some(image),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found, missing, "{op:?} {before} {after}");
        }
    }
}
