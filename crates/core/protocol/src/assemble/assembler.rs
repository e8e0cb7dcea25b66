//! Turns binlog events into batches of records. It mints versions, ends batches and resumes from watermarks,
//! and does no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tandem_binlog::{BinlogEvent, Origin, RowsEvent, RowsKind, StatementKind};
use tandem_model::{
    BinlogPosition, CapturedTables, Gtid, GtidSet, Op, PartialTransaction, SourceInfo, TableDef, TableName,
    Watermark,
};
use tandem_wire::control::{Ddl, encode_ddl};
use tandem_wire::log::{ChangeTopic, OutRecord, Topics};
use tandem_wire::{EncodedChange, Image, TableSchema};

use crate::assemble::error::AssembleError;
use crate::assemble::pending_xa::{HeldRows, PendingXa};
use crate::mint::Minter;

/// The content of one Kafka transaction, without its watermark.
#[derive(Debug, Default)]
pub struct Batch {
    /// The change records and DDL records, in order.
    pub records: Vec<OutRecord>,
    /// The schemas that appear for the first time in this batch.
    pub schemas: Vec<Arc<TableSchema>>,
    /// The number of row changes.
    pub rows: u64,
    /// The number of MySQL transactions that ended in this batch.
    pub transactions: u64,
    /// The row changes, counted by table and operation.
    pub changes: Vec<(TableName, Op, u64)>,
    /// The row changes that no gateway made, counted by table.
    pub out_of_band_rows: BTreeMap<TableName, u64>,
    /// The statements that changed the schema of a mapped table. Values that such a statement changes itself
    /// are not row changes and are not published.
    pub schema_changes: Vec<Ddl>,
    /// The tables whose rows a statement has changed without row changes, with its kind. They are to be verified.
    pub rewritten: Vec<(TableName, &'static str)>,
}

/// The MySQL transaction being read.
struct Open {
    gtid: Gtid,
    commit_us: i64,
    /// Whether a gateway ran it.
    origin: Origin,
    /// Where the last row change came from.
    source: SourceInfo,
    /// The row changes seen so far, whether published before a restart or now.
    rows: u64,
    /// The row changes that were published before a restart.
    skip: u64,
    /// The xid and the rows of an XA transaction, until its decision is known.
    xa: Option<(String, HeldRows)>,
}

/// A committing transaction whose rows must be read again.
struct Replay {
    /// The transaction that holds the rows.
    rows_of: Gtid,
    /// The end of the transaction that commits the rows.
    end: BinlogPosition,
    /// Whether the current events belong to the transaction that holds the rows.
    inside: bool,
}

/// A table definition with the state that its records share.
struct TableState {
    table: Arc<TableDef>,
    topic: ChangeTopic,
    /// The row changes in the batch by operation, in the order of [`OPS`].
    changes: [u64; 3],
}

/// The operations of row changes in a binlog.
const OPS: [Op; 3] = [Op::Create, Op::Update, Op::Delete];

/// The settings of an [`Assembler`].
#[derive(Debug, Clone)]
pub struct AssemblerConfig {
    /// The mapped tables.
    pub tables: HashSet<TableName>,
    /// The tables that go on after a TRUNCATE: they are verified, and what is gone in MySQL is deleted.
    pub truncatable: HashSet<TableName>,
    /// The names of the topics.
    pub topics: Topics,
    /// How many partitions each change topic has.
    pub partitions: HashMap<String, i32>,
    /// How far a commit time may lie ahead of this machine's clock, in microseconds.
    pub max_clock_ahead_us: i64,
    /// How many bytes of rows of pending XA transactions are kept in memory. Rows beyond that are read again.
    pub prepared_bytes: usize,
    /// Whether a record without a value follows each DELETE, for consumers that compact copies of the topics.
    pub tombstones: bool,
}

/// Turns binlog events into records and watermarks.
pub struct Assembler {
    config: AssemblerConfig,
    source: String,
    tables: Arc<CapturedTables>,
    minter: Minter,
    gtid_set: GtidSet,
    position: BinlogPosition,
    clock_us: i64,
    open: Option<Open>,
    prepared: PendingXa,
    replay: Option<Replay>,
    /// The partial transaction of the watermark that was resumed from, until MySQL sends it again.
    resumed: Option<PartialTransaction>,
    /// By the address of the table definition. The stream returns the same `Arc` for the same table map. Each
    /// entry holds that `Arc`, so its address is not reused.
    known: HashMap<usize, TableState>,
    batch: Batch,
    bytes: usize,
}

impl Assembler {
    /// An assembler that continues after the watermark `last`.
    pub fn resume(config: AssemblerConfig, last: &Watermark) -> Self {
        Self {
            prepared: PendingXa::new(config.prepared_bytes),
            replay: None,
            config,
            source: last.source.clone(),
            tables: Arc::clone(&last.tables),
            minter: Minter::after(last.version),
            gtid_set: last.gtid_set.clone(),
            position: last.position.clone(),
            clock_us: last.clock_us,
            open: None,
            resumed: last.partial.clone(),
            known: HashMap::new(),
            batch: Batch::default(),
            bytes: 0,
        }
    }

    /// Whether the batch has no records.
    pub fn is_empty(&self) -> bool {
        self.batch.records.is_empty()
    }

    /// The total size of the batch's keys and values in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of records in the batch.
    pub fn len(&self) -> usize {
        self.batch.records.len()
    }

    /// The end of the last complete transaction.
    pub fn position(&self) -> &BinlogPosition {
        &self.position
    }

    /// Whether a MySQL transaction is open.
    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the last event ended a transaction, so that a watermark after it is complete.
    pub fn is_between_transactions(&self) -> bool {
        self.open.is_none() && self.resumed.is_none()
    }

    /// The transaction whose rows must be read again now, if any.
    ///
    /// Until this is `None`, feed the events of that transaction. Events of other transactions among them are
    /// ignored.
    pub fn rows_needed(&self) -> Option<&Gtid> {
        self.replay.as_ref().map(|replay| &replay.rows_of)
    }

    /// Processes the next event.
    ///
    /// `now_us` is this machine's clock. It is used only to refuse commit times that lie far ahead of it.
    ///
    /// # Errors
    ///
    /// Capture cannot continue past the event: see [`AssembleError`].
    pub fn on_event(&mut self, event: BinlogEvent, now_us: i64) -> Result<(), AssembleError> {
        if self.replay.is_some() {
            return self.on_replayed_event(event);
        }
        match event {
            BinlogEvent::Begin { gtid, commit_us, server_id, origin, xa } => {
                self.begin(gtid, commit_us, server_id, origin, xa, now_us)
            }
            BinlogEvent::Rows(rows) => {
                if let Some(Open { xa: Some((_, held)), .. }) = &mut self.open {
                    self.prepared.hold(held, rows);
                    return Ok(());
                }
                let at = BinlogPosition { file: Arc::clone(&rows.file), pos: rows.end };
                self.rows(&rows, &at)
            }
            BinlogEvent::Commit { position } => self.commit(position),
            BinlogEvent::Prepared { position } => {
                let Some(Open { gtid, xa: Some((xid, held)), .. }) = self.open.take() else {
                    return Err(AssembleError::OutOfOrder(position));
                };
                self.prepared.insert(xid, gtid, held);
                self.position = position;
                Ok(())
            }
            BinlogEvent::Decided { gtid, commit_us, server_id, xid, committed, position } => {
                self.begin(gtid.clone(), commit_us, server_id, Origin::Other, None, now_us)?;
                match self.prepared.remove(&xid) {
                    Some((rows_of, held)) if committed => self.publish(rows_of, held, position),
                    None if committed => Err(AssembleError::NotPrepared { xid, gtid, position }),
                    rolled_back => {
                        if let Some((prepared, _)) = rolled_back {
                            self.gtid_set.insert(&prepared);
                        }
                        self.open = None;
                        self.end_of_transaction(&gtid, commit_us, position);
                        Ok(())
                    }
                }
            }
            BinlogEvent::Statement { gtid, commit_us, database, sql, kind, tables, position } => {
                self.check_next(&gtid, commit_us, now_us)?;
                self.check_partial(&gtid)?;
                let rewritten = self.rewritten(kind, &tables);
                self.refuse_lost_table(&gtid, kind, (&database, &tables), &rewritten, &position)?;
                self.batch.rewritten.extend(rewritten.into_iter().map(|table| (table, kind.name())));
                if tables.iter().any(|t| self.config.tables.contains(t)) {
                    let ddl = Ddl {
                        gtid: gtid.to_string(),
                        database,
                        statement: sql,
                        kind: kind.name().to_owned(),
                        tables: tables.iter().map(ToString::to_string).collect(),
                        version: self.minter.first_of_transaction(commit_us).0,
                        file: position.file.to_string(),
                        pos: position.pos as i64,
                        ts_us: commit_us,
                    };
                    let record = OutRecord {
                        topic: self.config.topics.ddl().into(),
                        partition: 0,
                        key: self.source.clone().into_bytes(),
                        value: Some(encode_ddl(&ddl)),
                        version: Some(self.minter.last()),
                        timestamp_ms: Some(commit_us / 1000),
                    };
                    self.put(record);
                    self.batch.schema_changes.push(ddl);
                }
                self.end_of_transaction(&gtid, commit_us, position);
                Ok(())
            }
            BinlogEvent::Idle { position } => {
                if self.open.is_none() {
                    self.position = position;
                }
                Ok(())
            }
        }
    }

    /// Ends the batch and mints its watermark.
    ///
    /// `clock_us` is MySQL's clock, if the caller just read it; callers do so only when the binlog is read to
    /// its end. The watermark's offsets are empty: they are known only once the records are published. Its tables are
    /// those of the watermark that this assembler resumed from.
    pub fn take(&mut self, clock_us: Option<i64>) -> (Batch, Watermark) {
        self.clock_us = self.clock_us.max(clock_us.unwrap_or(i64::MIN));
        let partial = match &self.open {
            Some(open) if open.rows.max(open.skip) > 0 => {
                Some(PartialTransaction { gtid: open.gtid.clone(), rows: open.rows.max(open.skip) })
            }
            // The transaction that was partial before a restart has not come again, so it is still partial.
            _ => self.resumed.clone(),
        };
        self.bytes = 0;
        for known in self.known.values_mut() {
            for (op, count) in OPS.into_iter().zip(std::mem::take(&mut known.changes)) {
                if count > 0 {
                    self.batch.changes.push((known.table.name.clone(), op, count));
                }
            }
        }
        let watermark = Watermark {
            source: self.source.clone(),
            gtid_set: self.gtid_set.clone(),
            position: self.position.clone(),
            version: self.minter.watermark(self.clock_us),
            tables: Arc::clone(&self.tables),
            offsets: BTreeMap::new(),
            partial,
            clock_us: self.clock_us,
        };
        (std::mem::take(&mut self.batch), watermark)
    }

    fn begin(
        &mut self,
        gtid: Gtid,
        commit_us: i64,
        server_id: u32,
        origin: Origin,
        xa: Option<String>,
        now_us: i64,
    ) -> Result<(), AssembleError> {
        let partial = self.resumed.take_if(|partial| partial.gtid == gtid);
        // Pending XA transactions come again before the partial one. `commit` checks those that commit in one
        // phase.
        if xa.is_none() {
            self.check_partial(&gtid)?;
        }
        self.check_next(&gtid, commit_us, now_us)?;
        let skip = partial.map_or(0, |partial| partial.rows);
        let xa = xa.map(|xid| (xid, HeldRows::default()));
        let source =
            SourceInfo { gtid: Some(gtid.to_string()), server_id, ts_us: commit_us, ..SourceInfo::default() };
        self.open = Some(Open { gtid, commit_us, origin, source, rows: 0, skip, xa });
        Ok(())
    }

    /// Commits the open transaction. Its rows are already published, or it is an XA transaction that commits
    /// in one phase.
    fn commit(&mut self, position: BinlogPosition) -> Result<(), AssembleError> {
        let mut open = self.open.take().ok_or_else(|| AssembleError::OutOfOrder(position.clone()))?;
        let Some((_, held)) = open.xa.take() else {
            self.end_of_transaction(&open.gtid, open.commit_us, position);
            return Ok(());
        };
        if let Some(partial) = &self.resumed {
            return Err(AssembleError::PartialMissing { partial: partial.gtid.clone(), found: open.gtid });
        }
        let rows_of = open.gtid.clone();
        self.open = Some(open);
        self.publish(rows_of, held, position)
    }

    /// Publishes held rows as rows of the open transaction, which ends at `end`.
    fn publish(&mut self, rows_of: Gtid, held: HeldRows, end: BinlogPosition) -> Result<(), AssembleError> {
        let Some(events) = held.into_events() else {
            self.replay = Some(Replay { rows_of, end, inside: false });
            return Ok(());
        };
        for event in &events {
            self.rows(event, &end)?;
        }
        self.published(&rows_of, end)
    }

    /// Ends the open transaction, once all rows of `rows_of` are published as its rows.
    fn published(&mut self, rows_of: &Gtid, end: BinlogPosition) -> Result<(), AssembleError> {
        let open = self.open.take().ok_or_else(|| AssembleError::OutOfOrder(end.clone()))?;
        self.gtid_set.insert(rows_of);
        self.end_of_transaction(&open.gtid, open.commit_us, end);
        Ok(())
    }

    /// Processes an event while a replay reads a transaction again.
    fn on_replayed_event(&mut self, event: BinlogEvent) -> Result<(), AssembleError> {
        let Some(mut replay) = self.replay.take() else { return Ok(()) };
        match event {
            BinlogEvent::Begin { gtid, .. } => replay.inside = gtid == replay.rows_of,
            BinlogEvent::Rows(rows) if replay.inside => self.rows(&rows, &replay.end)?,
            BinlogEvent::Prepared { .. } | BinlogEvent::Commit { .. } if replay.inside => {
                return self.published(&replay.rows_of, replay.end);
            }
            _ => {}
        }
        self.replay = Some(replay);
        Ok(())
    }

    /// Refuses a transaction whose commit time is too far ahead, or that begins inside another one.
    fn check_next(&self, gtid: &Gtid, commit_us: i64, now_us: i64) -> Result<(), AssembleError> {
        let ahead_us = commit_us - now_us;
        if ahead_us > self.config.max_clock_ahead_us {
            return Err(AssembleError::ClockAhead { gtid: gtid.clone(), ahead_s: ahead_us / 1_000_000 });
        }
        if self.open.is_some() {
            return Err(AssembleError::OutOfOrder(self.position.clone()));
        }
        Ok(())
    }

    /// Refuses every other transaction or statement until the partial transaction has come again.
    fn check_partial(&self, gtid: &Gtid) -> Result<(), AssembleError> {
        match &self.resumed {
            Some(partial) if partial.gtid != *gtid => {
                Err(AssembleError::PartialMissing { partial: partial.gtid.clone(), found: gtid.clone() })
            }
            _ => Ok(()),
        }
    }

    fn end_of_transaction(&mut self, gtid: &Gtid, commit_us: i64, position: BinlogPosition) {
        self.gtid_set.insert(gtid);
        self.clock_us = self.clock_us.max(commit_us);
        self.position = position;
        self.batch.transactions += 1;
    }

    /// The mapped tables whose rows a statement changes without row changes, and that go on: a verification finds what
    /// differs.
    ///
    /// - `ALTER TABLE` that may change stored values;
    /// - TRUNCATE and partitions that come or go, where the mapping says so;
    /// - the swap at the end of gh-ost and pt-online-schema-change, `RENAME TABLE t TO old, new TO t`: there is a table of
    ///   this name as before, with the rows of the copy.
    fn rewritten(&self, kind: StatementKind, tables: &[TableName]) -> BTreeSet<TableName> {
        let mapped = tables.iter().filter(|table| self.config.tables.contains(table));
        let goes_on = |table: &&TableName| match kind {
            StatementKind::Rewrite => true,
            StatementKind::Truncate => self.config.truncatable.contains(table),
            StatementKind::Rename => {
                // Pairs of a former and a new name.
                let leaves = tables.iter().step_by(2).rposition(|former| former == *table);
                let arrives = tables.iter().skip(1).step_by(2).rposition(|new| new == *table);
                leaves.is_some() && arrives > leaves
            }
            _ => false,
        };
        mapped.filter(goes_on).cloned().collect()
    }

    fn refuse_lost_table(
        &self,
        gtid: &Gtid,
        kind: StatementKind,
        (database, tables): (&str, &[TableName]),
        rewritten: &BTreeSet<TableName>,
        position: &BinlogPosition,
    ) -> Result<(), AssembleError> {
        let mapped = &self.config.tables;
        let mut lost: Vec<TableName> = match kind {
            StatementKind::Truncate | StatementKind::Drop | StatementKind::Rename => {
                tables.iter().filter(|t| mapped.contains(t) && !rewritten.contains(t)).cloned().collect()
            }
            StatementKind::DropDatabase => {
                mapped.iter().filter(|t| t.database == database).cloned().collect()
            }
            StatementKind::Alter
            | StatementKind::Rewrite
            | StatementKind::Create
            | StatementKind::DataChange
            | StatementKind::Other => Vec::new(),
        };
        lost.sort();
        lost.dedup();
        if lost.is_empty() {
            return Ok(());
        }
        Err(AssembleError::TablesGone {
            kind: kind.name(),
            tables: lost,
            gtid: gtid.clone(),
            position: position.clone(),
        })
    }

    /// Adds the row changes of one event at a binlog position.
    fn rows(&mut self, event: &RowsEvent, at: &BinlogPosition) -> Result<(), AssembleError> {
        let known = self.know(&event.table, at)?;
        let published = self.batch.rows;
        for (before, after) in event.rows() {
            match (event.kind, before, after) {
                (RowsKind::Write, _, Some(after)) => {
                    self.change(known, Op::Create, None, Some(after), at)?;
                }
                (RowsKind::Delete, Some(before), _) => {
                    self.change(known, Op::Delete, Some(before), None, at)?;
                }
                // A change of the primary key becomes two row changes, each in the partition of its own key.
                (RowsKind::Update, Some(before), Some(after)) if before.key != after.key => {
                    self.change(known, Op::Delete, Some(before), None, at)?;
                    self.change(known, Op::Create, None, Some(after), at)?;
                }
                (RowsKind::Update, before @ Some(_), after @ Some(_)) => {
                    self.change(known, Op::Update, before, after, at)?;
                }
                _ => return Err(AssembleError::OutOfOrder(at.clone())),
            }
        }
        let added = self.batch.rows - published;
        if added > 0 && self.open.as_ref().is_some_and(|open| open.origin == Origin::Other) {
            *self.batch.out_of_band_rows.entry(event.table.name.clone()).or_default() += added;
        }
        Ok(())
    }

    /// The key of `known` for this definition. The entry is created when the definition first appears.
    fn know(&mut self, table: &Arc<TableDef>, at: &BinlogPosition) -> Result<usize, AssembleError> {
        let address = Arc::as_ptr(table) as usize;
        if !self.known.contains_key(&address) {
            if table.primary_key.is_empty() {
                return Err(AssembleError::NoPrimaryKey { table: table.name.clone(), position: at.clone() });
            }
            let schema = Arc::new(self.config.topics.schema(Arc::clone(table)));
            let topic = self.config.topics.changes(&table.name);
            let partitions = self.config.partitions.get(&topic).copied().unwrap_or(1);
            self.batch.schemas.push(Arc::clone(&schema));
            let topic = ChangeTopic::new(topic, partitions, schema);
            let known = TableState { table: Arc::clone(table), topic, changes: [0; 3] };
            self.known.insert(address, known);
        }
        Ok(address)
    }

    fn change(
        &mut self,
        known: usize,
        op: Op,
        before: Option<Image<'_>>,
        after: Option<Image<'_>>,
        at: &BinlogPosition,
    ) -> Result<(), AssembleError> {
        let open = self.open.as_mut().ok_or_else(|| AssembleError::OutOfOrder(at.clone()))?;
        let row = open.rows;
        open.rows += 1;
        if row < open.skip {
            return Ok(());
        }
        let version =
            if row == 0 { self.minter.first_of_transaction(open.commit_us) } else { self.minter.further() };
        let Some(known) = self.known.get_mut(&known) else {
            return Err(AssembleError::OutOfOrder(at.clone()));
        };
        known.changes[OPS.iter().position(|o| *o == op).unwrap_or_default()] += 1;
        let source = &mut open.source;
        if !Arc::ptr_eq(&source.file, &at.file) {
            source.file = Arc::clone(&at.file);
        }
        source.pos = at.pos;
        source.row = row;
        let change = EncodedChange { op, before, after, version, source };
        let record = known.topic.encoded(&change).map_err(|source| AssembleError::Encode {
            table: known.table.name.clone(),
            position: at.clone(),
            source,
        })?;
        let tombstone = (op == Op::Delete && self.config.tombstones).then(|| OutRecord {
            topic: Arc::clone(&record.topic),
            partition: record.partition,
            key: record.key.clone(),
            value: None,
            version: record.version,
            timestamp_ms: record.timestamp_ms,
        });
        self.put(record);
        if let Some(tombstone) = tombstone {
            self.put(tombstone);
        }
        self.batch.rows += 1;
        Ok(())
    }

    fn put(&mut self, record: OutRecord) {
        self.bytes += record.key.len() + record.value.as_ref().map_or(0, Vec::len);
        self.batch.records.push(record);
    }
}

#[cfg(test)]
mod tests;
