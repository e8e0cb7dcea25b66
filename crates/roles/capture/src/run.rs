//! The capture loop around the assembler.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tandem_binlog::BinlogEvent;
use tandem_kafka::{Admin, KafkaConfig, SchemaStore, TransactionalPublisher, read_last};
use tandem_model::{BinlogPosition, Disposition, Gtid, GtidSet, Op, TableName, Version, Watermark};
use tandem_mysql::{BinlogStream, Mysql, MysqlConfig, Reader};
use tandem_protocol::assemble::{AssembleError, Assembler, AssemblerConfig, Batch};
use tandem_protocol::captured_tables::{CAPTURE, Selection, continued, select};
use tandem_protocol::mint::Minter;
use tandem_protocol::table_state::{Changes, TableFault, add, recheck};
use tandem_runtime::{Backoff, now_us};
use tandem_table_states::{States, TableStates, TableStatesError, change, halt};
use tandem_watermarks::NewestWatermark;
use tandem_wire::log::Topics;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::CaptureError;
use crate::metrics::Metrics;
use crate::prefetch::Prefetch;
use crate::standby::{self, Since, Timeouts};
use crate::watermark_topic::WatermarkTopic;

/// The first and the longest pause before capture goes back to its last watermark.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// The settings of capture.
#[derive(Debug, Clone)]
pub struct CaptureConfig {
    /// The source's name: the key of its watermarks.
    pub source: String,
    /// The mapped tables.
    pub tables: Vec<TableName>,
    /// Those that go on after a TRUNCATE.
    pub truncatable: HashSet<TableName>,
    /// Records in one Kafka transaction at most. One binlog event may exceed it.
    pub max_records: usize,
    /// Bytes of keys and values in one Kafka transaction at most. One event may exceed it. The same limit applies to
    /// the buffered rows of prepared XA transactions.
    pub max_bytes: usize,
    /// The longest time between two watermarks.
    pub idle: Duration,
    /// The minimum time between a Kafka transaction with changes and the next one, unless that is full or due by
    /// `idle`. A Kafka transaction costs the brokers and the consumers as much as many records. A change after a
    /// pause is published at once.
    pub linger: Duration,
    /// How far a commit time may be ahead of this machine's clock.
    pub max_clock_ahead: Duration,
    /// Whether a tombstone (a record without a value) follows each DELETE.
    pub tombstones: bool,
}

/// Why a term ended.
enum Ended {
    /// The tables to capture are other ones now. Everything read before is published.
    OtherTables,
    /// Another capture seems to have taken over.
    Displaced(Displaced),
    Failed(CaptureError),
}

/// The end of a term by another capture, as far as this one can tell.
struct Displaced {
    error: CaptureError,
    /// Whether this is the second displacement in a row without another capture that publishes.
    again: bool,
}

/// A capture.
pub struct Capture {
    /// The source, for queries.
    pub mysql: Mysql,
    /// The source, for its binlog.
    pub binlog: MysqlConfig,
    /// The log.
    pub kafka: KafkaConfig,
    /// Where schemas are registered before their first use.
    pub schemas: SchemaStore,
    /// The settings.
    pub config: CaptureConfig,
    /// The metrics.
    pub metrics: Metrics,
}

impl Capture {
    /// Publishes the binlog to Kafka until `stop`. Transient errors are retried without limit from the last committed
    /// watermark.
    ///
    /// # Errors
    ///
    /// Returns errors that a retry cannot fix, such as a log gap or an event that cannot be carried.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), CaptureError> {
        for table in &self.config.tables {
            self.metrics.count_out_of_band(table, 0);
        }
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut displaced = None;
        self.metrics.waits_no_more();
        loop {
            let before = self.metrics.watermarks.get();
            let session = tokio::select! {
                ended = self.term(displaced.take()) => ended,
                () = stop.cancelled() => Ok(()),
            };
            self.metrics.connected.set(0);
            match session {
                Ok(()) => return Ok(()),
                Err(Ended::OtherTables) => {}
                Err(Ended::Displaced(by)) => {
                    tracing::warn!(error = %by.error, "another capture has taken over: this one stands by");
                    displaced = Some(by);
                }
                Err(Ended::Failed(error)) => {
                    // A table that could not be halted yet is met again.
                    match self.halts_tables(&error).await {
                        Some(true) => continue,
                        None if error.retry() != Disposition::Retry => return Err(error),
                        Some(false) | None => {}
                    }
                    if self.metrics.watermarks.get() > before {
                        backoff.reset();
                    }
                    let pause = backoff.next();
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "capture goes back to its last watermark");
                    self.metrics.failed(error.to_string(), pause);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = stop.cancelled() => return Ok(()),
                    }
                }
            }
        }
    }

    /// Waits while another capture publishes, then captures until something fails.
    async fn term(&self, displaced: Option<Displaced>) -> Result<(), Ended> {
        let timeouts = Timeouts::of(self.config.idle);
        let after = if displaced.is_some() { Since::Now } else { Since::LastWatermark };
        let others =
            standby::wait(&self.kafka, &timeouts, after, &self.metrics).await.map_err(Ended::Failed)?;
        self.metrics.standby.set(0);
        let alone = displaced.is_some() && !others;
        match displaced {
            // The second clash in a row, and no other capture of this log publishes. Some other client uses the same
            // replica id, so waiting would not end.
            Some(Displaced { error: clash @ CaptureError::Binlog(_), again: true }) if alone => {
                return Err(Ended::Failed(clash));
            }
            _ => {}
        }
        match self.session().await {
            Ok(()) => Err(Ended::OtherTables),
            Err(error) if error.is_displaced() => Err(Ended::Displaced(Displaced { error, again: alone })),
            Err(error) => Err(Ended::Failed(error)),
        }
    }

    /// Halts the tables that an error concerns, so that capture can go on without them. Returns whether they are halted, or
    /// `None` if the error concerns others, too.
    async fn halts_tables(&self, error: &CaptureError) -> Option<bool> {
        let (tables, fault) = error.table_fault()?;
        for table in &tables {
            tracing::error!(%table, %error, "the table halts and is no longer captured; the others go on");
            if let Err(error) = halt(&self.kafka, table, &fault).await {
                tracing::warn!(%table, %error, "the table could not be halted: capture meets the event again");
                return Some(false);
            }
        }
        Some(true)
    }

    /// Which tables to capture after `last`, by their states. Those that are left out are halted, and those that are new are
    /// copied.
    async fn selection(
        &self,
        last: &Watermark,
        mapped: &BTreeMap<TableName, Arc<str>>,
        states: &TableStates,
    ) -> Result<(Selection, Arc<States>), CaptureError> {
        let now = states.up_to_now().await?;
        let selection = select(last, mapped, |table| now.get(table))?;
        if selection.left_out.is_empty() && selection.added.is_empty() {
            return Ok((selection, now));
        }
        for table in &selection.added {
            change(&self.kafka, |states| {
                let state = states.get(table);
                let missing = state.is_none_or(|state| state.copy_from.is_none());
                let next = || add(state, table, last.version.0, CAPTURE, now_us());
                Ok::<_, TableStatesError>(missing.then(next))
            })
            .await?;
        }
        for table in &selection.left_out {
            let cause = if mapped.contains_key(table) {
                "it was taken out of tandem.toml and put back, and what changed in between is not on the log"
            } else {
                "it was taken out of tandem.toml"
            };
            let (reason, by) = ("not-captured".to_owned(), CAPTURE.to_owned());
            let changes = Changes::NotCaptured;
            let fault = TableFault { reason, cause: cause.to_owned(), by, changes };
            halt(&self.kafka, table, &fault).await?;
        }
        let now = states.up_to_now().await?;
        Ok((select(last, mapped, |table| now.get(table))?, now))
    }

    /// Captures from the last watermark until something fails, or until the tables to capture are other ones. If it is
    /// dropped, it leaves at most an open Kafka
    /// transaction, which the `init_transactions` of the next session aborts.
    async fn session(&self) -> Result<(), CaptureError> {
        let topics = self.kafka.topics();
        // Fence any older capture before reading the last watermark. In the other order, the older one could still
        // commit another watermark.
        let publisher =
            TransactionalPublisher::start(&self.kafka, &topics.capture_transactional_id()).await?;
        let admin = Admin::connect(&self.kafka).await?;
        let states = TableStates::follow(&self.kafka).await?;
        let mapped: BTreeMap<TableName, Arc<str>> =
            self.config.tables.iter().map(|table| (table.clone(), topics.changes(table).into())).collect();
        // The timeout for queries is the time that the stream may be silent.
        let mut reader = self.mysql.reader().await?.within(self.binlog.silence());
        let last = self.last_watermark().await?;
        let continues = last.is_some();
        let last = match last {
            Some(last) => last,
            None => self.first_watermark(&mut reader).await?,
        };
        let executed = reader.executed().await?;
        let lost = last.gtid_set.minus(&executed);
        if !lost.is_empty() {
            return Err(CaptureError::Lost { lost });
        }
        let mut ends = last.offsets.clone();
        let (Selection { tables: captured, .. }, mut known) = self.selection(&last, &mapped, &states).await?;
        let mut partitions = BTreeMap::new();
        for topic in mapped.values().collect::<BTreeSet<_>>() {
            partitions.insert(topic.to_string(), admin.partitions(topic).await?);
        }
        // The topics of tables that are taken up. Their copies replace what the topics lack.
        let ordered = |table| known.get(table).is_some_and(|state| state.copy_from.is_some());
        let back =
            captured.iter().filter(|(table, _)| !last.tables.captured.contains_key(*table) && ordered(table));
        let back: HashSet<Arc<str>> = back.map(|(_, topic)| Arc::clone(topic)).collect();
        let last = Watermark { tables: Arc::new(continued(&last.tables, &captured)), ..last };
        ends.retain(|topic, _| partitions.contains_key(topic));
        for (topic, &count) in &partitions {
            if let Some(known) = ends.get(topic) {
                let known = known.len();
                if known != count as usize {
                    return Err(CaptureError::Repartitioned { topic: topic.clone(), known, count });
                }
                continue;
            }
            let found = admin.end_offsets(topic, count).await?;
            // The topic of a table that is not captured may hold anything: its new copy replaces what the topic lacks.
            let checked = captured.values().any(|of| **of == **topic) && !back.contains(topic.as_str());
            if checked && self.holds_changes(&admin, topic, &found).await? {
                return Err(CaptureError::LogGap { topic: topic.clone() });
            }
            ends.insert(topic.clone(), found);
        }
        let wanted: HashSet<TableName> = captured.keys().cloned().collect();
        let outline = AssemblerConfig {
            tables: wanted.clone(),
            truncatable: self.config.truncatable.clone(),
            topics: topics.clone(),
            partitions: partitions.into_iter().collect(),
            max_clock_ahead_us: self.config.max_clock_ahead.as_micros() as i64,
            prepared_bytes: self.config.max_bytes,
            tombstones: self.config.tombstones,
        };
        let mut assembler = Assembler::resume(outline, &last);
        let stream = self.stream(&self.binlog, &last.gtid_set, &wanted).await?;
        tracing::info!(gtid_set = %last.gtid_set, version = %last.version, partial = last.partial.is_some(), "reading the binlog");
        self.metrics.connected.set(1);
        let mut events = Prefetch::of(stream);
        // The stream that reads the rows of a large XA transaction again when it commits.
        let mut again: Option<Prefetch> = None;
        let watermarks = WatermarkTopic::new(&topics, ends);
        let mut publication = None;
        // A new log begins with a watermark at once, because nothing can be borrowed before there is one.
        let mut idle_at = Instant::now() + if continues { self.config.idle } else { Duration::ZERO };
        let mut next_at = Instant::now();
        // Why this session ends, once everything that was read is published.
        let mut leaving: Option<Result<(), CaptureError>> = None;
        // A table is not taken up in the middle of a transaction, but after it.
        let complete = Watermark { partial: None, ..last.clone() };
        if is_other(&select(&complete, &mapped, |table| known.get(table))?, &captured) {
            leaving = Some(Ok(()));
        }

        loop {
            let (now, mut behind) = (now_us(), None);
            let leaves = |assembler: &Assembler, leaving: &Option<_>| {
                leaving.is_some() && assembler.is_between_transactions()
            };
            while !self.is_full(&assembler)
                && !leaves(&assembler, &leaving)
                && let Some(event) = again.as_mut().unwrap_or(&mut events).take()
            {
                behind = behind_us(&event, now).or(behind);
                match assembler.on_event(event, now) {
                    // A statement stands between transactions: what was read before it is published first.
                    Err(error @ AssembleError::TablesGone { .. }) => {
                        leaving = Some(Err(error.into()));
                        break;
                    }
                    outcome => outcome?,
                }
                match assembler.rows_needed() {
                    None => again = None,
                    Some(_) if again.is_some() => {}
                    Some(gtid) => {
                        again = Some(Prefetch::of(self.transaction(&mut reader, gtid, &wanted).await?));
                    }
                }
            }
            if let Some(behind) = behind {
                self.metrics.source_lag_s.set(behind as f64 / 1e6);
            }
            let leaves = leaves(&assembler, &leaving);
            if leaves && assembler.is_empty() && publication.is_none() {
                return leaving.unwrap_or(Ok(()));
            }
            let full = self.is_full(&assembler);
            let caught_up = again.is_none() && events.is_empty();
            let idle = Instant::now() >= idle_at;
            let whole = caught_up && !assembler.is_empty() && !assembler.in_transaction();
            let lingers = Instant::now() < next_at;
            if publication.is_none() && (full || whole && !lingers || idle || leaves) {
                // Ask for MySQL's clock only when everything is read. A watermark's clock must not be ahead of older
                // changes that are still unread in the binlog.
                let clock = if idle && caught_up && assembler.is_empty() {
                    Some(self.clock(&mut reader).await?)
                } else {
                    None
                };
                let bytes = assembler.bytes() as u64;
                let (batch, watermark) = assembler.take(clock);
                idle_at = Instant::now() + self.config.idle;
                if !batch.records.is_empty() {
                    next_at = Instant::now() + self.config.linger;
                }
                publication = Some(Box::pin(self.publish(
                    &publisher,
                    &topics,
                    watermarks.clone(),
                    batch,
                    watermark,
                    bytes,
                )));
            }
            tokio::select! {
                biased;
                done = finished(&mut publication), if publication.is_some() => {
                    publication = None;
                    let published: Published = done?;
                    self.metrics.bytes.inc_by(published.bytes);
                    self.metrics.transactions.inc_by(published.transactions);
                    for (table, op, rows) in &published.changes {
                        self.metrics.published(table, *op, *rows);
                    }
                    for (table, rows) in &published.out_of_band_rows {
                        self.metrics.count_out_of_band(table, *rows);
                    }
                    self.metrics.watermarks.inc();
                    self.metrics.waits_no_more();
                }
                changed = states.other_than(&known), if leaving.is_none() => {
                    known = changed?;
                    if is_other(&select(&complete, &mapped, |table| known.get(table))?, &captured) {
                        leaving = Some(Ok(()));
                    }
                }
                more = again.as_mut().unwrap_or(&mut events).ready(), if !leaves && !self.is_full(&assembler) => {
                    more?;
                    self.metrics.last_event_s.set(now_us() as f64 / 1e6);
                }
                () = tokio::time::sleep_until(if whole { next_at.min(idle_at) } else { idle_at }), if publication.is_none() => {}
            }
        }
    }

    /// Whether the batch has reached its size limit.
    fn is_full(&self, assembler: &Assembler) -> bool {
        assembler.len() >= self.config.max_records || assembler.bytes() >= self.config.max_bytes
    }

    async fn stream(
        &self,
        config: &MysqlConfig,
        from: &GtidSet,
        wanted: &HashSet<TableName>,
    ) -> Result<BinlogStream, CaptureError> {
        let wanted = wanted.clone();
        Ok(BinlogStream::open(config, from, move |table| wanted.contains(table)).await?)
    }

    /// Opens a stream that contains one past transaction, possibly after others. It uses another replica id than the
    /// main stream, which continues.
    async fn transaction(
        &self,
        reader: &mut Reader,
        gtid: &Gtid,
        wanted: &HashSet<TableName>,
    ) -> Result<BinlogStream, CaptureError> {
        tracing::info!(%gtid, "the rows of a large XA transaction are read again");
        let mut one = GtidSet::default();
        one.insert(gtid);
        let others = reader.executed().await?.minus(&one);
        let second =
            MysqlConfig { server_id: second_server_id(self.binlog.server_id), ..self.binlog.clone() };
        self.stream(&second, &others, wanted).await
    }

    async fn publish(
        &self,
        publisher: &TransactionalPublisher,
        topics: &Topics,
        watermarks: WatermarkTopic,
        batch: Batch,
        watermark: Watermark,
        bytes: u64,
    ) -> Result<Published, CaptureError> {
        for schema in &batch.schemas {
            let topic = topics.changes(&schema.table().name);
            self.schemas.register(&topic, schema).await?;
        }
        for change in &batch.schema_changes {
            tracing::warn!(
                gtid = change.gtid, kind = change.kind, tables = ?change.tables,
                "the schema of a mapped table changed; values that the statement itself changed are not \
                 row changes and are not carried"
            );
        }
        for (table, statement) in &batch.rewritten {
            change(&self.kafka, |states| {
                Ok::<_, TableStatesError>(recheck(states.get(table), table, statement, CAPTURE, now_us()))
            })
            .await?;
        }
        let Batch { mut records, transactions, changes, out_of_band_rows, .. } = batch;
        let published = Published { transactions, bytes, changes, out_of_band_rows };
        self.schemas.reframe(&mut records)?;
        let topic = watermarks.clone();
        let ends =
            publisher.publish(records, move |offsets| Ok(vec![topic.record(watermark, offsets)])).await?;
        watermarks.committed(&ends);
        Ok(published)
    }

    /// Whether a topic has a committed record, or had one that retention has removed. Records of an aborted transaction,
    /// such as that of a capture killed before its first watermark, do not count.
    async fn holds_changes(&self, admin: &Admin, topic: &str, ends: &[i64]) -> Result<bool, CaptureError> {
        if admin.first_offsets(topic, ends.len() as i32).await?.iter().any(|first| *first > 0) {
            return Ok(true);
        }
        for (partition, end) in ends.iter().enumerate() {
            if *end > 0 && read_last(&self.kafka, topic, partition as i32).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads MySQL's clock. Fails if it is far ahead, because once it is in a version, every later version is above it.
    pub(crate) async fn clock(&self, reader: &mut Reader) -> Result<i64, CaptureError> {
        let clock = reader.clock_us().await?;
        let ahead = clock - now_us();
        if ahead > self.config.max_clock_ahead.as_micros() as i64 {
            return Err(CaptureError::ClockAhead { ahead_s: ahead / 1_000_000 });
        }
        Ok(clock)
    }

    pub(crate) async fn last_watermark(&self) -> Result<Option<Watermark>, CaptureError> {
        let newest = NewestWatermark::read(&self.kafka).await?;
        Ok(newest.map(|newest| Arc::unwrap_or_clone(newest.watermark)))
    }

    /// Fails if an XA transaction is prepared.
    ///
    /// Call this after reading the executed set, so that it sees every transaction that is prepared in the set and
    /// still pending. Without the privilege for this check, capture notices the XA COMMIT of such a transaction.
    pub(crate) async fn nothing_prepared(&self, reader: &mut Reader) -> Result<(), CaptureError> {
        match reader.prepared().await? {
            Some(count) if count > 0 => Err(CaptureError::PreparedBefore { count }),
            _ => Ok(()),
        }
    }

    /// The watermark that begins a log: everything that the server has executed by now. It has no position until the
    /// stream has reached one.
    async fn first_watermark(&self, reader: &mut Reader) -> Result<Watermark, CaptureError> {
        let clock_us = self.clock(reader).await?;
        let gtid_set = reader.executed().await?;
        self.nothing_prepared(reader).await?;
        tracing::info!(%gtid_set, "this log is new: capture begins at what MySQL has executed by now");
        Ok(Watermark {
            source: self.config.source.clone(),
            gtid_set,
            position: BinlogPosition::default(),
            version: Minter::after(Version(0)).watermark(clock_us),
            tables: Arc::default(),
            offsets: BTreeMap::new(),
            partial: None,
            clock_us,
        })
    }
}

/// The contents of a committed Kafka transaction.
struct Published {
    transactions: u64,
    bytes: u64,
    changes: Vec<(TableName, Op, u64)>,
    out_of_band_rows: BTreeMap<TableName, u64>,
}

/// Waits for the publication in progress.
async fn finished<F: Future + Unpin>(publication: &mut Option<F>) -> F::Output {
    match publication {
        Some(publication) => publication.await,
        None => std::future::pending().await,
    }
}

/// The replica id of a second connection. It differs from the first and is not 0, which is not a valid id.
fn second_server_id(first: u32) -> u32 {
    match first ^ 0x8000_0000 {
        0 => 1,
        id => id,
    }
}

/// The age of an event's transaction, by this machine's clock. For an idle server it is 0.
fn behind_us(event: &BinlogEvent, now_us: i64) -> Option<i64> {
    match event {
        BinlogEvent::Begin { commit_us, .. }
        | BinlogEvent::Decided { commit_us, .. }
        | BinlogEvent::Statement { commit_us, .. } => Some((now_us - commit_us).max(0)),
        BinlogEvent::Idle { .. } => Some(0),
        BinlogEvent::Rows(_) | BinlogEvent::Commit { .. } | BinlogEvent::Prepared { .. } => None,
    }
}

/// Whether the selection leads to other tables than those that are captured.
fn is_other(selection: &Selection, captured: &BTreeMap<TableName, Arc<str>>) -> bool {
    selection.tables != *captured || !selection.added.is_empty() || !selection.left_out.is_empty()
}
