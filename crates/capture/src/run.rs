//! The loop around the assembler.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tandem_event_log::{
    Admin, ConsumeError, EndOffsets, KafkaConfig, OutRecord, PublishError, SchemaStore, Topics,
    TransactionalPublisher, read_last,
};
use tandem_model::{BinlogPosition, GtidSet, Minter, TableName, Version, Watermark};
use tandem_mysql_source::{BinlogError, BinlogEvent, BinlogStream, Mysql, MysqlConfig, MysqlError, Reader};
use tandem_wire::WireError;
use tandem_wire::control::{decode_watermark, encode_watermark};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::assembler::{Batch, Outline};
use crate::{AssembleError, Assembler, Metrics};

/// Binlog events decoded ahead of the assembler. An event holds a few rows, so this is small.
const EVENTS_AHEAD: usize = 256;

/// First and longest pause before capture starts again from its last watermark.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How capture works.
#[derive(Debug, Clone)]
pub struct CaptureConfig {
    /// The source's name: the key of its watermarks.
    pub source: String,
    /// The mapped tables.
    pub tables: Vec<TableName>,
    /// Records in one Kafka transaction, at most (one binlog event may overshoot it).
    pub max_records: usize,
    /// Bytes of keys and values in one Kafka transaction, at most (one event may overshoot it).
    pub max_bytes: usize,
    /// The longest time between two watermarks.
    pub idle: Duration,
    /// How far a commit time may lie ahead of this machine's clock.
    pub max_clock_ahead: Duration,
}

/// Why capture stopped.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The binlog.
    #[error(transparent)]
    Binlog(#[from] BinlogError),
    /// A query to MySQL.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// Publishing.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Reading the last watermark, or the schemas.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// An event that cannot be carried.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The last watermark cannot be read.
    #[error("the last watermark cannot be read: {0}")]
    Checkpoint(#[from] WireError),
    /// The server lacks transactions that were already published.
    #[error(
        "MySQL lacks transactions that were already published: {lost}. It is another server, or a fail-over lost \
         them. Point mysql.url at a server that has them; rows of Cassandra that they wrote are not taken back"
    )]
    Lost {
        /// The transactions.
        lost: GtidSet,
    },
    /// The task that reads the binlog is gone, which it should only be after an error of its own.
    #[error("the binlog is no longer read")]
    StreamEnded,
    /// The list of tables changed while a MySQL transaction was partly published.
    #[error(
        "the last watermark lies inside a MySQL transaction, and the list of mapped tables has changed since. Start \
         once with the former list until the transaction is out, then change it"
    )]
    TablesChangedInCut,
    /// A table was mapped, then not, and now is again.
    #[error(
        "topic `{topic}` holds changes of an earlier time, but the last watermark does not know it: its table was \
         taken out of tandem.toml and put back, and what changed in between is not on the log. Take it out again, \
         or drop its target tables and migrate it anew under another kafka.prefix"
    )]
    Gap {
        /// The change topic.
        topic: String,
    },
    /// Partitions were added to a change topic.
    #[error(
        "topic `{topic}` has {count} partitions and had {known} at the last watermark: keys would move to other \
         partitions, and their order would be lost. Migrate anew under another kafka.prefix"
    )]
    Repartitioned {
        /// The change topic.
        topic: String,
        /// Partitions at the last watermark.
        known: usize,
        /// Partitions now.
        count: i32,
    },
    /// MySQL's clock is far ahead of this machine's.
    #[error(
        "MySQL's clock is {ahead_s} s ahead of this machine's. A watermark at its time would raise every later \
         version. Set the clocks right (or raise capture.max_clock_ahead_seconds) and start again"
    )]
    ClockAhead {
        /// By how many seconds.
        ahead_s: i64,
    },
}

impl CaptureError {
    /// Whether going back to the last watermark may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Binlog(error) => error.is_transient(),
            Self::Mysql(error) => error.is_transient(),
            Self::Publish(error) => error.is_retriable(),
            Self::Consume(error) => error.is_retriable(),
            Self::StreamEnded => true,
            Self::Assemble(_)
            | Self::Checkpoint(_)
            | Self::Lost { .. }
            | Self::TablesChangedInCut
            | Self::Gap { .. }
            | Self::Repartitioned { .. }
            | Self::ClockAhead { .. } => false,
        }
    }
}

/// Everything one capture needs.
pub struct Capture {
    /// The source, for questions.
    pub mysql: Mysql,
    /// The source, for its binlog.
    pub binlog: MysqlConfig,
    /// The log.
    pub kafka: KafkaConfig,
    /// Where schemas are registered before their first use.
    pub schemas: SchemaStore,
    /// How to work.
    pub config: CaptureConfig,
    /// What is counted.
    pub metrics: Metrics,
}

impl Capture {
    /// Reads the binlog into Kafka until `stop`. Whatever may pass is retried for ever from the
    /// last committed watermark; what cannot pass is returned.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), CaptureError> {
        for table in &self.config.tables {
            self.metrics.count_foreign(table, 0);
        }
        let mut pause = BACKOFF.0;
        loop {
            let before = self.metrics.watermarks.get();
            let session = tokio::select! {
                ended = self.session() => ended,
                () = stop.cancelled() => Ok(()),
            };
            self.metrics.connected.set(0);
            match session {
                Ok(()) => return Ok(()),
                Err(error) if error.is_transient() => {
                    if self.metrics.watermarks.get() > before {
                        pause = BACKOFF.0;
                    }
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "capture goes back to its last watermark");
                    self.metrics.restarts.inc();
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = stop.cancelled() => return Ok(()),
                    }
                    pause = (pause * 2).min(BACKOFF.1);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// From the last watermark until something fails. Dropped at any point, it leaves at most an
    /// open Kafka transaction, which the next session's `init_transactions` aborts.
    async fn session(&self) -> Result<(), CaptureError> {
        let topics = Topics::new(&self.kafka.prefix);
        // First fence any older capture, then read the last watermark: in the other order, the older
        // one could still commit another.
        let publisher =
            TransactionalPublisher::start(&self.kafka, &topics.capture_transactional_id()).await?;
        let admin = Admin::connect(&self.kafka).await?;
        let mut partitions = BTreeMap::new();
        for table in &self.config.tables {
            let topic = topics.changes(table);
            partitions.insert(topic.clone(), admin.partitions(&topic).await?);
        }
        let mut reader = self.mysql.reader().await?;
        let last = self.last_watermark(&topics).await?;
        let resumed = last.is_some();
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
        if last.cut.is_some() && ends.keys().ne(partitions.keys()) {
            return Err(CaptureError::TablesChangedInCut);
        }
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
            if self.holds_changes(&admin, topic, &found).await? {
                return Err(CaptureError::Gap { topic: topic.clone() });
            }
            ends.insert(topic.clone(), found);
        }
        let wanted: HashSet<TableName> = self.config.tables.iter().cloned().collect();
        let outline = Outline {
            tables: wanted.clone(),
            topics: topics.clone(),
            prefix: self.kafka.prefix.clone(),
            partitions: partitions.into_iter().collect(),
            max_clock_ahead_us: self.config.max_clock_ahead.as_micros() as i64,
        };
        let mut assembler = Assembler::resume(outline, &last);
        let stream =
            BinlogStream::open(&self.binlog, &last.gtid_set, move |table| wanted.contains(table)).await?;
        tracing::info!(gtid_set = %last.gtid_set, version = %last.version, cut = last.cut.is_some(), "reading the binlog");
        self.metrics.connected.set(1);
        let mut events = decode_ahead(stream);
        let ends = Arc::new(Mutex::new(ends));
        let mut publication = None;
        // A new log begins with a watermark at once: nothing can be borrowed before there is one.
        let mut idle_at = Instant::now() + if resumed { self.config.idle } else { Duration::ZERO };

        loop {
            let full =
                assembler.len() >= self.config.max_records || assembler.bytes() >= self.config.max_bytes;
            tokio::select! {
                biased;
                done = finished(&mut publication), if publication.is_some() => {
                    publication = None;
                    let published: Published = done?;
                    self.metrics.rows.inc_by(published.rows);
                    self.metrics.bytes.inc_by(published.bytes);
                    self.metrics.transactions.inc_by(published.transactions);
                    for (table, rows) in &published.foreign_rows {
                        self.metrics.count_foreign(table, *rows);
                    }
                    self.metrics.watermarks.inc();
                }
                event = events.recv(), if !full => {
                    let now = now_us();
                    self.metrics.last_event_us.set(now);
                    let Some(event) = event else { return Err(CaptureError::StreamEnded) };
                    assembler.on_event(event?, now)?;
                }
                () = tokio::time::sleep_until(idle_at), if publication.is_none() => {}
            }
            if publication.is_some() {
                continue;
            }
            // Again: the event of this round may have filled the batch.
            let full =
                assembler.len() >= self.config.max_records || assembler.bytes() >= self.config.max_bytes;
            let caught_up = events.is_empty();
            let idle = Instant::now() >= idle_at;
            let whole = caught_up && !assembler.is_empty() && !assembler.in_transaction();
            if full || whole || idle {
                // MySQL's clock is asked only when there is nothing left to read: a watermark's clock
                // must not run ahead of changes that are still to come from the binlog's past.
                let clock = if idle && caught_up && assembler.is_empty() {
                    Some(self.clock(&mut reader).await?)
                } else {
                    None
                };
                let bytes = assembler.bytes() as u64;
                let (batch, watermark) = assembler.take(clock);
                idle_at = Instant::now() + self.config.idle;
                publication = Some(Box::pin(self.publish(
                    &publisher,
                    &topics,
                    Arc::clone(&ends),
                    batch,
                    watermark,
                    bytes,
                )));
            }
        }
    }

    async fn publish(
        &self,
        publisher: &TransactionalPublisher,
        topics: &Topics,
        ends: Arc<Mutex<BTreeMap<String, Vec<i64>>>>,
        batch: Batch,
        watermark: Watermark,
        bytes: u64,
    ) -> Result<Published, CaptureError> {
        for schema in &batch.schemas {
            let topic = topics.changes(&schema.table().name);
            self.schemas.register(&schema.key_subject(&topic), schema.key_id(), schema.key_json()).await?;
            self.schemas
                .register(&schema.value_subject(&topic), schema.value_id(), schema.value_json())
                .await?;
        }
        let Batch { records, rows, transactions, foreign_rows, .. } = batch;
        let published = Published { rows, transactions, bytes, foreign_rows };
        let topic: Arc<str> = topics.watermarks().into();
        publisher
            .publish(records, move |offsets| Ok(vec![watermark_record(topic, watermark, &ends, offsets)]))
            .await?;
        Ok(published)
    }

    /// Whether a topic holds a committed record, or has held some before retention took them. What an
    /// aborted transaction has left (that of a capture killed before its first watermark) is none.
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

    /// MySQL's clock, refused where it is far ahead: once it is in a version, every later version
    /// lies above it.
    async fn clock(&self, reader: &mut Reader) -> Result<i64, CaptureError> {
        let clock = reader.clock_us().await?;
        let ahead = clock - now_us();
        if ahead > self.config.max_clock_ahead.as_micros() as i64 {
            return Err(CaptureError::ClockAhead { ahead_s: ahead / 1_000_000 });
        }
        Ok(clock)
    }

    async fn last_watermark(&self, topics: &Topics) -> Result<Option<Watermark>, CaptureError> {
        let Some(record) = read_last(&self.kafka, &topics.watermarks(), 0).await? else { return Ok(None) };
        Ok(Some(decode_watermark(record.value.as_deref().unwrap_or_default())?))
    }

    /// Where a log begins: everything that the server has executed by now. It covers no position
    /// until the stream has reached one.
    async fn first_watermark(&self, reader: &mut Reader) -> Result<Watermark, CaptureError> {
        let clock_us = self.clock(reader).await?;
        let gtid_set = reader.executed().await?;
        tracing::info!(%gtid_set, "this log is new: capture begins at what MySQL has executed by now");
        Ok(Watermark {
            source: self.config.source.clone(),
            gtid_set,
            position: BinlogPosition::default(),
            version: Minter::after(Version(0)).watermark(clock_us),
            offsets: BTreeMap::new(),
            cut: None,
            clock_us,
        })
    }
}

/// What a committed Kafka transaction held.
struct Published {
    rows: u64,
    transactions: u64,
    bytes: u64,
    foreign_rows: BTreeMap<TableName, u64>,
}

/// The watermark's record, with the offsets that this transaction's records got.
fn watermark_record(
    topic: Arc<str>,
    mut watermark: Watermark,
    ends: &Mutex<BTreeMap<String, Vec<i64>>>,
    offsets: &EndOffsets,
) -> OutRecord {
    let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
    for ((topic, partition), &end) in offsets {
        if let Some(slot) = ends.get_mut(topic.as_ref()).and_then(|ends| ends.get_mut(*partition as usize)) {
            *slot = end;
        }
    }
    watermark.offsets.clone_from(&ends);
    OutRecord {
        topic,
        partition: 0,
        key: watermark.source.clone().into_bytes(),
        value: Some(encode_watermark(&watermark)),
        version: Some(watermark.version),
        timestamp_ms: Some(watermark.clock_us / 1000),
    }
}

/// Waits for the publication under way.
async fn finished<F: Future + Unpin>(publication: &mut Option<F>) -> F::Output {
    match publication {
        Some(publication) => publication.await,
        None => std::future::pending().await,
    }
}

/// Reads and decodes on a task of its own, so that decoding and encoding use two cores. Ends after
/// the first error, which it hands over.
fn decode_ahead(mut stream: BinlogStream) -> mpsc::Receiver<Result<BinlogEvent, BinlogError>> {
    let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = sender.closed() => return,
            };
            let failed = event.is_err();
            if sender.send(event).await.is_err() || failed {
                return;
            }
        }
    });
    receiver
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}
