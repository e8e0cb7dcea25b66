//! Capture's batches: the product's assembler reads the model's binlog.
//!
//! Each call is a capture that has just started: the assembler resumes from a watermark and reads the binlog from
//! there. A running capture publishes the same, because a batch depends only on the last watermark and the binlog; the
//! assembler's own tests show that. To break a rule of capture, the model alters the watermark that the assembler
//! resumes from ([`Resume`]), or the versions that it returns (`renumbered`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock, RwLock};

use tandem_binlog::{BinlogEvent, Origin, RowsEvent, RowsKind, StatementKind};
use tandem_model::{
    BinlogPosition, Change, Gtid, GtidSet, PartialTransaction, Row, Value, Version, Watermark,
};
use tandem_protocol::assemble::{Assembler, AssemblerConfig};
use tandem_wire::log::{OutRecord, Topics};
use tandem_wire::{Images, ReadSchema};

use crate::state::{Record, Transaction};
use crate::table::{Small, SmallChange, definition, row};

const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const PREFIX: &str = "p";

/// The watermark that capture resumes from: how many transactions are published, and how many rows of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Resume {
    pub(crate) transactions: u8,
    pub(crate) partial: Option<u8>,
    pub(crate) version: i16,
}

/// Where a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// After this number of further rows, and after the end of the last row's transaction if `whole`.
    Rows { rows: usize, whole: bool },
    /// Without any change, with MySQL's clock if the binlog was read to its end.
    Idle { clock: Option<i16> },
}

/// A batch and its watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) records: Vec<Record>,
    pub(crate) transactions: u8,
    pub(crate) partial: Option<u8>,
    pub(crate) version: i16,
}

/// What a batch depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    from: Resume,
    /// MySQL's clock, as the watermark knows it.
    clock: i16,
    /// The transactions from the watermark on that the batch reads.
    read: Vec<Transaction>,
    end: End,
}

/// What capture publishes next. An exploration asks the same millions of times, so each answer is kept.
pub(crate) fn publish(binlog: &[Transaction], from: Resume, end: End) -> Published {
    static KNOWN: OnceLock<RwLock<HashMap<Question, Published>>> = OnceLock::new();
    let known = KNOWN.get_or_init(RwLock::default);
    let (captured, later) = binlog.split_at(from.transactions as usize);
    let clock = captured.iter().map(|t| t.commit_us).max().unwrap_or(0);
    let question = Question { from, clock, read: later[..reads(later, from, end)].to_vec(), end };
    if let Some(published) = known.read().unwrap().get(&question) {
        return published.clone();
    }
    let published = assemble(&question);
    known.write().unwrap().insert(question, published.clone());
    published
}

/// How many transactions a batch reads, the one that it ends in included.
fn reads(later: &[Transaction], from: Resume, end: End) -> usize {
    let End::Rows { rows, .. } = end else { return 0 };
    let mut published = from.partial.unwrap_or(0) as usize + rows;
    let through = later.iter().take_while(|transaction| {
        let through = published > 0;
        published = published.saturating_sub(transaction.records());
        through
    });
    through.count()
}

fn assemble(question: &Question) -> Published {
    let &Question { from, clock, ref read, end } = question;
    let mut assembler = Assembler::resume(config(), &watermark(from, clock));
    let clock = match end {
        End::Rows { rows, whole } => {
            for event in events(read, from, rows, whole) {
                assembler.on_event(event, 0).expect("the assembler takes every event of this binlog");
            }
            None
        }
        End::Idle { clock } => clock.map(i64::from),
    };
    let (batch, watermark) = assembler.take(clock);
    let transactions = (from.transactions..=from.transactions + read.len() as u8)
        .find(|&n| gtids(n) == watermark.gtid_set)
        .expect("capture publishes transactions in the binlog's order");
    let partial = watermark.partial.map(|partial| {
        assert_eq!(partial.gtid, gtid(transactions + 1), "the partial transaction is the next one");
        partial.rows as u8
    });
    let records = batch.records.iter().map(decoded).collect();
    Published { records, transactions, partial, version: watermark.version.0 as i16 }
}

/// The events from the watermark `from` on, up to the end of a batch. MySQL sends a partial transaction again as a whole.
fn events(read: &[Transaction], from: Resume, mut rows: usize, whole: bool) -> Vec<BinlogEvent> {
    let mut events = Vec::new();
    let mut out = from.partial.unwrap_or(0) as usize;
    for (number, transaction) in (from.transactions + 1..).zip(read) {
        let commit_us = transaction.commit_us.into();
        if transaction.ddl.is_some() {
            events.push(BinlogEvent::Statement {
                gtid: gtid(number),
                commit_us,
                database: "d".into(),
                sql: "ALTER TABLE t …".into(),
                kind: StatementKind::Alter,
                tables: vec![definition().name.clone()],
                position: position(number),
            });
            rows -= 1;
            continue;
        }
        let last = transaction.changes.len().min(out + rows);
        rows -= last - out;
        events.push(BinlogEvent::Begin {
            gtid: gtid(number),
            commit_us,
            server_id: 1,
            origin: Origin::Other,
            xa: None,
        });
        events.extend(row_events(&transaction.changes[..last], position(number).pos));
        if last < transaction.changes.len() || rows == 0 && !whole {
            break;
        }
        events.push(BinlogEvent::Commit { position: position(number) });
        out = 0;
    }
    events
}

/// The rows events of changes. A delete and the insert of the same row under another primary key is one UPDATE in the
/// binlog, unless the batch ends between them.
fn row_events(mut changes: &[SmallChange], end: u64) -> Vec<BinlogEvent> {
    let mut events = Vec::new();
    while let [change, rest @ ..] = changes {
        let moved = rest.first().filter(|next| {
            change.after.is_none()
                && next.before.is_none()
                && change.id != next.id
                && change.before == next.after
        });
        let image = |id, small: Option<Small>| small.map(|small| row(id, small));
        let (kind, before, after) = match (change.before, moved) {
            (before, Some(next)) => {
                changes = &rest[1..];
                (RowsKind::Update, image(change.id, before), image(next.id, next.after))
            }
            (before, None) => {
                changes = rest;
                let kind = match (before, change.after) {
                    (None, _) => RowsKind::Write,
                    (Some(_), Some(_)) => RowsKind::Update,
                    (Some(_), None) => RowsKind::Delete,
                };
                (kind, image(change.id, before), image(change.id, change.after))
            }
        };
        let mut images = Images::default();
        for row in [before, after].into_iter().flatten() {
            images.push(definition(), &row).expect("the row fits its table");
        }
        let table = Arc::clone(definition());
        events.push(BinlogEvent::Rows(RowsEvent { table, kind, images, end, file: position(0).file }));
    }
    events
}

/// A record as the model keeps it.
fn decoded(record: &OutRecord) -> Record {
    static SCHEMA: OnceLock<ReadSchema> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        let schema = Topics::new(PREFIX).schema(Arc::clone(definition()));
        ReadSchema::parse(schema.value_json()).expect("the schema is one of ours")
    });
    let version = record.version.expect("each record of capture has a version").0 as i16;
    if *record.topic == Topics::new(PREFIX).ddl() {
        return Record::Ddl { version };
    }
    let value = record.value.as_deref().expect("there are no tombstones");
    let Change { before, after, .. } = schema.decode(value).expect("the record has this schema");
    let small = |row: &Option<Row>| row.as_ref().map(|row| (int(&row[0]), small(row)));
    let (before, after) = (small(&before), small(&after));
    let id = before.or(after).expect("a change has an image").0.expect("a key is not NULL");
    Record::Change { of: SmallChange { id, before: before.map(|b| b.1), after: after.map(|a| a.1) }, version }
}

fn small(row: &Row) -> Small {
    Small { k: int(&row[1]).expect("k is not NULL"), a: int(&row[2]) }
}

fn int(value: &Value) -> Option<u8> {
    match value {
        Value::Null => None,
        Value::Int(value) => Some(*value as u8),
        _ => unreachable!("every column is an int"),
    }
}

fn config() -> AssemblerConfig {
    let topics = Topics::new(PREFIX);
    AssemblerConfig {
        truncatable: HashSet::default(),
        tables: [definition().name.clone()].into(),
        partitions: [(topics.changes(&definition().name), 1)].into(),
        topics,
        max_clock_ahead_us: i64::MAX,
        prepared_bytes: 0,
        tombstones: false,
    }
}

fn watermark(from: Resume, clock: i16) -> Watermark {
    let partial =
        from.partial.map(|rows| PartialTransaction { gtid: gtid(from.transactions + 1), rows: rows.into() });
    Watermark {
        source: "s".into(),
        gtid_set: gtids(from.transactions),
        position: position(from.transactions),
        version: Version(from.version.into()),
        tables: Arc::default(),
        offsets: BTreeMap::new(),
        partial,
        clock_us: clock.into(),
    }
}

pub(crate) fn gtid(number: u8) -> Gtid {
    format!("{SERVER}:{number}").parse().expect("a GTID")
}

/// The set of the first transactions, as many as given.
pub(crate) fn gtids(transactions: u8) -> GtidSet {
    match transactions {
        0 => GtidSet::default(),
        n => format!("{SERVER}:1-{n}").parse().expect("a GTID set"),
    }
}

/// Where the last of this number of transactions ends.
pub(crate) fn position(transactions: u8) -> BinlogPosition {
    BinlogPosition { file: "binlog.000001".into(), pos: transactions.into() }
}
