//! The loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem_kafka::{Admin, ConsumeError, KafkaConfig, Producer, PublishError, SchemaStore};
use tandem_model::{Change, Op, SourceInfo, TableDef, Value, Version};
use tandem_mysql::{Mysql, MysqlError, Reader};
use tandem_runtime::now_us;
use tandem_watermarks::{WatermarkError, Watermarks};
use tandem_wire::control::{BackfillProgress, Resnapshot};
use tandem_wire::fingerprint;
use tandem_wire::log::{ChangeTopic, OutRecord, Topics};
use tandem_wire::{TableSchema, WireError};
use tokio_util::sync::CancellationToken;

use crate::progress::{Copies, progress_record};
use crate::{Metrics, ProgressError};

/// First and longest pause before a table's backfill goes on after an error that may pass.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Rows in the first chunk, before it is known how wide they are.
const FIRST_CHUNK: usize = 100;

/// How the backfill works.
#[derive(Debug, Clone)]
pub struct BackfillConfig {
    /// Rows in a chunk, at most.
    pub chunk_rows: usize,
    /// About how many bytes a chunk shall have, at most: wide rows make smaller chunks.
    pub chunk_bytes: usize,
    /// Rows a second, at most; none: as fast as it goes.
    pub max_rows_per_second: Option<u32>,
}

/// Why the backfill stopped.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// A query to MySQL.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// No watermark to borrow.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    /// Publishing.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Reading Kafka.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// Reading how far the backfill had come.
    #[error(transparent)]
    Progress(#[from] ProgressError),
    /// A row does not fit its table's schema.
    #[error("backfill of {table}: {source}")]
    Encode {
        /// The table.
        table: String,
        /// What does not fit.
        source: WireError,
    },
}

impl BackfillError {
    /// Whether going on from the last progress may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Mysql(error) | Self::Watermark(WatermarkError::Mysql(error)) => error.is_transient(),
            Self::Watermark(WatermarkError::Late { .. }) => true,
            Self::Publish(error) => error.is_retriable(),
            Self::Consume(error) | Self::Progress(ProgressError::Consume(error)) => error.is_retriable(),
            Self::Watermark(_) | Self::Progress(ProgressError::Decode(_)) | Self::Encode { .. } => false,
        }
    }
}

/// A table to copy.
#[derive(Debug, Clone)]
pub struct BackfillTable {
    /// Its definition.
    def: Arc<TableDef>,
    /// A hash of its plan's layout.
    mapping: String,
    /// A hash of its mapping as it is configured.
    configured: String,
}

impl BackfillTable {
    /// The table of a plan, whose layout is `layout`, with what is configured.
    pub fn new(def: Arc<TableDef>, layout: &str, configuration: &str) -> Self {
        Self { def, mapping: fingerprint(layout), configured: fingerprint(configuration) }
    }
}

/// Everything one backfill needs.
pub struct Backfill {
    /// The source.
    pub mysql: Mysql,
    /// The log.
    pub kafka: KafkaConfig,
    /// Where schemas are registered before their first use.
    pub schemas: SchemaStore,
    /// What may be borrowed.
    pub watermarks: Watermarks,
    /// The tables to copy.
    pub tables: Vec<BackfillTable>,
    /// How to work.
    pub config: BackfillConfig,
    /// What is counted.
    pub metrics: Metrics,
}

impl Backfill {
    /// Copies every table that is not yet done, one after the other, and returns when all are.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), BackfillError> {
        tokio::select! {
            outcome = self.patiently() => outcome,
            () = stop.cancelled() => Ok(()),
        }
    }

    /// Until all is copied, whatever passes in between.
    async fn patiently(&self) -> Result<(), BackfillError> {
        let mut pause = BACKOFF.0;
        loop {
            let chunks = self.metrics.chunks.get();
            match self.all_tables().await {
                Err(error) if error.is_transient() => {
                    if self.metrics.chunks.get() > chunks {
                        pause = BACKOFF.0;
                    }
                    tracing::warn!(%error, "the backfill pauses and goes on from its last chunk");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
                outcome => return outcome,
            }
        }
    }

    /// Every table, and every table again if a re-snapshot was ordered meanwhile.
    async fn all_tables(&self) -> Result<(), BackfillError> {
        let producer = Producer::start(&self.kafka).await?;
        let mut copies = Copies::read(&self.kafka).await?;
        loop {
            for table in &self.tables {
                let known = copies.tables.remove(&table.def.name.to_string());
                self.table(&producer, table, copies.resnapshot.as_ref(), known).await?;
            }
            let now = Copies::read(&self.kafka).await?;
            if now.resnapshot == copies.resnapshot {
                return Ok(());
            }
            copies = now;
        }
    }

    /// The rest of a table's copy. One that follows a re-snapshot writes over cells of before it, and says so.
    async fn table(
        &self,
        producer: &Producer,
        copied: &BackfillTable,
        resnapshot: Option<&Resnapshot>,
        mut known: Option<BackfillProgress>,
    ) -> Result<(), BackfillError> {
        let BackfillTable { def: table, mapping, configured } = copied;
        let name = table.name.to_string();
        let encode = |source| BackfillError::Encode { table: name.clone(), source };
        if known.as_ref().is_some_and(|p| p.mapping != *mapping) {
            tracing::info!(
                table = name,
                "the table's targets have changed since it was copied: it is copied anew"
            );
            known = None;
        }
        // The same targets, written in another way: who knows no more than that must know it.
        if let Some(progress) = known.as_mut().filter(|p| p.configured != *configured) {
            progress.configured.clone_from(configured);
            producer.send(vec![progress_record(&self.kafka, resnapshot, progress)]).await?;
        }
        if known.as_ref().is_some_and(|p| p.done) {
            return Ok(());
        }
        let topics = Topics::new(&self.kafka.prefix);
        let topic_name = topics.backfill(&table.name);
        let admin = Admin::connect(&self.kafka).await?;
        let partitions = admin.partitions(&topic_name).await?;
        let schema = TableSchema::new(Arc::clone(table), &self.kafka.prefix);
        let schema = Arc::new(self.schemas.register_table(&topic_name, &schema).await?);
        let topic = ChangeTopic::new(topic_name.clone(), partitions, Arc::clone(&schema));
        let mut reader = self.mysql.reader().await?;

        let mut progress = match known {
            Some(progress) => progress,
            None => self.begin(&mut reader, &schema, copied, resnapshot).await?,
        };
        let key = |bytes: &Option<Vec<u8>>| {
            bytes.as_ref().map(|k| schema.decode_key(k)).transpose().map_err(encode)
        };
        let upto: Option<Vec<Value>> = key(&progress.upto_key)?;
        let mut after: Option<Vec<Value>> = key(&progress.last_key)?;
        if after.is_some() {
            tracing::info!(table = name, rows = progress.rows, "the backfill goes on where it was");
        } else if resnapshot.is_some() {
            tracing::info!(table = name, "the table is copied anew, after a gap in the log");
        }
        let op = if resnapshot.is_some() { Op::Resnapshot } else { Op::Snapshot };
        let least = least(resnapshot);
        let changes = topics.changes(&table.name);
        let mut limit = self.config.chunk_rows.min(FIRST_CHUNK);
        while let (false, Some(upto)) = (progress.done, &upto) {
            let began = Instant::now();
            let watermark = self.watermarks.borrow_from(&mut reader, &changes, least).await?;
            let rows = reader.read_chunk(table, after.as_deref(), upto, limit).await?;
            let (count, read_at) = (rows.len(), now_us());
            if let Some(last) = rows.last() {
                let last = table.key_of(last);
                let mut bytes = Vec::new();
                schema.encode_key_values(&last, &mut bytes).map_err(encode)?;
                progress.last_key = Some(bytes);
                after = Some(last);
            }
            let mut records: Vec<OutRecord> = rows
                .into_iter()
                .map(|row| {
                    topic.record(&Change {
                        table: Arc::clone(table),
                        op,
                        before: None,
                        after: Some(row),
                        version: watermark.version,
                        source: SourceInfo { ts_us: read_at, ..SourceInfo::default() },
                    })
                })
                .collect::<Result<_, _>>()
                .map_err(encode)?;
            let bytes = records.iter().map(|r| r.key.len() + r.value.as_ref().map_or(0, Vec::len)).sum();
            self.schemas.reframe(&mut records)?;
            producer.send(records).await?;
            progress.rows += count as i64;
            progress.version = watermark.version.0;
            progress.updated_at_us = now_us();
            progress.done = count < limit;
            limit = self.next_limit(limit, count, bytes);
            if progress.done {
                progress.end_offsets = admin.end_offsets(&topic_name, partitions).await?;
            }
            producer.send(vec![progress_record(&self.kafka, resnapshot, &progress)]).await?;
            self.metrics.rows.inc_by(count as u64);
            self.metrics.chunks.inc();
            if let Some(limit) = self.config.max_rows_per_second {
                let least = Duration::from_secs_f64(count as f64 / f64::from(limit.max(1)));
                tokio::time::sleep(least.saturating_sub(began.elapsed())).await;
            }
        }
        if upto.is_none() {
            progress.done = true;
            // Of this copy there is nothing. An earlier one may stand there, and must be applied before anybody
            // verifies.
            progress.end_offsets = admin.end_offsets(&topic_name, partitions).await?;
            producer.send(vec![progress_record(&self.kafka, resnapshot, &progress)]).await?;
        }
        self.metrics.tables_done.inc();
        tracing::info!(table = name, rows = progress.rows, "the backfill of this table is published");
        Ok(())
    }

    /// How many rows the next chunk may have, after one of `count` rows and `bytes` bytes: not many
    /// more at once, for the next rows may be wider.
    fn next_limit(&self, limit: usize, count: usize, bytes: usize) -> usize {
        let fit = self.config.chunk_bytes.saturating_mul(count) / bytes.max(1);
        fit.min(limit.saturating_mul(4)).clamp(1, self.config.chunk_rows)
    }

    /// The first progress of a table: its upper end, read after a watermark was borrowed.
    async fn begin(
        &self,
        reader: &mut Reader,
        schema: &TableSchema,
        copied: &BackfillTable,
        resnapshot: Option<&Resnapshot>,
    ) -> Result<BackfillProgress, BackfillError> {
        let table = schema.table();
        let name = table.name.to_string();
        let changes = Topics::new(&self.kafka.prefix).changes(&table.name);
        let watermark = self.watermarks.borrow_from(reader, &changes, least(resnapshot)).await?;
        let upto_key = match reader.max_key(table).await? {
            None => None,
            Some(key) => {
                let mut bytes = Vec::new();
                schema
                    .encode_key_values(&key, &mut bytes)
                    .map_err(|source| BackfillError::Encode { table: name.clone(), source })?;
                Some(bytes)
            }
        };
        Ok(BackfillProgress {
            mapping: copied.mapping.clone(),
            configured: copied.configured.clone(),
            last_key: None,
            upto_key,
            rows: 0,
            estimated_rows: reader.approximate_rows(&table.name).await? as i64,
            done: false,
            version: watermark.version.0,
            started_at_us: now_us(),
            updated_at_us: now_us(),
            end_offsets: Vec::new(),
            table: name,
        })
    }
}

/// The lowest version that a copy may borrow: after a re-snapshot one of before it would tie with dual writes
/// of before it.
fn least(resnapshot: Option<&Resnapshot>) -> Version {
    Version(resnapshot.map_or(i64::MIN, |resnapshot| resnapshot.version))
}
