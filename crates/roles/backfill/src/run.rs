//! The backfill loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem_kafka::{Admin, ConsumeError, KafkaConfig, Producer, PublishError, SchemaStore};
use tandem_model::{Change, Disposition, Op, Remedy, SourceInfo, TableDef, Value, Version};
use tandem_mysql::{Mysql, MysqlError, Reader};
use tandem_protocol::mapping_in_use::{Layouts, since};
use tandem_protocol::table_state::{Changes, TableFault, is_applied};
use tandem_runtime::{Backoff, now_us};
use tandem_table_states::{TableStatesError, halt};
use tandem_watermarks::{NewestWatermark, WatermarkError, WatermarkReadError, Watermarks};
use tandem_wire::control::BackfillProgress;
use tandem_wire::fingerprint;
use tandem_wire::log::{ChangeTopic, OutRecord};
use tandem_wire::{TableSchema, WireError};
use tokio_util::sync::CancellationToken;

use crate::progress::{Copies, progress_record};
use crate::{Metrics, ProgressError};

/// The first and the longest pause before a backfill continues after a transient error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Rows in the first chunk, whose width is not known yet.
const FIRST_CHUNK: usize = 100;

/// The settings of the backfill.
#[derive(Debug, Clone)]
pub struct BackfillConfig {
    /// Rows in a chunk at most.
    pub chunk_rows: usize,
    /// The approximate bytes in a chunk at most. Wide rows make smaller chunks.
    pub chunk_bytes: usize,
    /// Rows per second at most. `None` means no limit.
    pub max_rows_per_second: Option<u32>,
}

/// Why the backfill stopped.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// A query to MySQL failed.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// No watermark could be borrowed.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    /// Publishing to Kafka failed.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Reading Kafka failed.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// Reading the progress failed.
    #[error(transparent)]
    Progress(#[from] ProgressError),
    /// The newest watermark cannot be read.
    #[error(transparent)]
    NewestWatermark(#[from] WatermarkReadError),
    /// The states of tables cannot be read or written.
    #[error(transparent)]
    States(#[from] TableStatesError),
    /// A row does not fit its table's schema.
    #[error("backfill of {table}: {source}")]
    Encode {
        /// The table.
        table: String,
        /// The encoding error.
        source: WireError,
    },
}

impl BackfillError {
    /// The fault of the table that is being copied, if no other table would meet the error.
    fn table_fault(&self) -> Option<TableFault> {
        let reason = match self {
            Self::Encode { .. } => "cannot-be-encoded",
            Self::Mysql(error) if error.concerns_table() => "cannot-be-read",
            _ => return None,
        };
        let (reason, by) = (reason.to_owned(), "backfill".to_owned());
        Some(TableFault { reason, cause: self.to_string(), by, changes: Changes::Wait })
    }

    /// What the caller does next. A retry continues from the last progress. The backfill skips no row, so it
    /// ends on one that is refused.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Mysql(error) => error.retry(),
            Self::Watermark(error) => error.retry(),
            Self::Publish(error) => error.retry(),
            Self::Consume(error) => error.retry(),
            Self::Progress(error) => error.retry(),
            Self::NewestWatermark(error) => error.retry(),
            Self::States(error) => error.retry(),
            Self::Encode { source, .. } => source.retry(),
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Watermark(error) => error.remedy(),
            Self::Consume(error) => error.remedy(),
            Self::Progress(error) => error.remedy(),
            Self::NewestWatermark(error) => error.remedy(),
            Self::States(error) => error.remedy(),
            Self::Mysql(_) | Self::Publish(_) | Self::Encode { .. } => None,
        }
    }
}

/// A table to copy.
#[derive(Debug, Clone)]
pub struct BackfillTable {
    /// The definition.
    pub(crate) def: Arc<TableDef>,
    /// A hash of the plan's layout.
    pub(crate) layout: String,
    /// A hash of the configured mapping.
    pub(crate) configured: String,
    /// Whether a target held rows before the migration wrote any.
    held_rows: bool,
}

impl BackfillTable {
    /// Creates the table of a plan. `layout` is the plan's layout, and `configuration` the configured mapping.
    /// `held_rows` says whether one of its targets held rows before the migration wrote any.
    pub fn new(def: Arc<TableDef>, layout: &str, configuration: &str, held_rows: bool) -> Self {
        Self { def, layout: fingerprint(layout), configured: fingerprint(configuration), held_rows }
    }
}

/// A backfill.
pub struct Backfill {
    /// The source.
    pub mysql: Mysql,
    /// The log.
    pub kafka: KafkaConfig,
    /// Where schemas are registered before their first use.
    pub schemas: SchemaStore,
    /// The watermarks to borrow.
    pub watermarks: Watermarks,
    /// The tables to copy.
    pub tables: Vec<BackfillTable>,
    /// The layouts of their plans.
    pub layouts: Arc<Layouts>,
    /// The settings.
    pub config: BackfillConfig,
    /// The metrics.
    pub metrics: Metrics,
}

impl Backfill {
    /// Copies every unfinished table, one after the other, and returns when all are finished or at `stop`. Transient
    /// errors are retried.
    ///
    /// # Errors
    ///
    /// Fails on an error that a retry cannot fix, such as a row that does not fit its table's schema.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), BackfillError> {
        tokio::select! {
            outcome = self.retry_until_copied() => outcome,
            () = stop.cancelled() => Ok(()),
        }
    }

    /// Copies every table, and retries transient errors until all are copied.
    async fn retry_until_copied(&self) -> Result<(), BackfillError> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        self.metrics.waits_no_more();
        loop {
            let chunks = self.metrics.chunks.get();
            let Err(error) = self.all_tables().await else {
                self.metrics.waits_no_more();
                return Ok(());
            };
            match error.retry() {
                Disposition::Retry => {
                    if self.metrics.chunks.get() > chunks {
                        backoff.reset();
                    }
                    tracing::warn!(%error, "the backfill pauses and continues from its last chunk");
                    let pause = backoff.next();
                    self.metrics.failed(error.to_string(), pause);
                    tokio::time::sleep(pause).await;
                }
                Disposition::Stop | Disposition::Refuse => return Err(error),
            }
        }
    }

    /// Copies every table, and copies again what was ordered in the meantime. A halted table is left out.
    async fn all_tables(&self) -> Result<(), BackfillError> {
        let producer = Producer::start(&self.kafka).await?;
        let mut copies = self.copies_in_turn().await?;
        loop {
            let mut late = None;
            for table in &self.tables {
                let name = &table.def.name;
                // Its rows could not be applied now. It is copied once it resumes.
                if !is_applied(copies.state(name)) {
                    continue;
                }
                let known = copies.tables.remove(&name.to_string());
                let from = copies.from(name);
                let since = since(copies.in_use.as_ref(), &name.to_string());
                let Err(error) = self.table(&producer, table, from, since, known).await else { continue };
                // No watermark has the table yet, for example because capture has not taken it up again.
                if matches!(error, BackfillError::Watermark(WatermarkError::Late { .. })) {
                    late = Some(error);
                    continue;
                }
                let Some(fault) = error.table_fault() else { return Err(error) };
                tracing::error!(table = %name, %error, "the table halts; the others are copied");
                halt(&self.kafka, name, &fault).await?;
            }
            let now = self.copies_in_turn().await?;
            let counts = |table: &BackfillTable| now.from(&table.def.name) == copies.from(&table.def.name);
            if now.in_use == copies.in_use && self.tables.iter().all(counts) {
                return late.map_or(Ok(()), Err);
            }
            copies = now;
        }
    }

    /// Copies the rest of a table. `from` is the version from which its copies count. The rows of a copy that is not the
    /// first one are marked, so that they overwrite older cells.
    async fn table(
        &self,
        producer: &Producer,
        copied: &BackfillTable,
        from: Option<i64>,
        since: Option<Version>,
        mut known: Option<BackfillProgress>,
    ) -> Result<(), BackfillError> {
        let BackfillTable { def: table, configured, held_rows, .. } = copied;
        let mapping = copied.hash(since);
        let name = table.name.to_string();
        let encode = |source| BackfillError::Encode { table: name.clone(), source };
        if known.as_ref().is_some_and(|p| p.mapping != mapping) {
            tracing::info!(
                table = name,
                "the table's targets have changed since it was copied: it is copied anew"
            );
            known = None;
        }
        // The configured mapping changed, but its targets did not. Record the new fingerprint, because the controller
        // compares only that.
        if let Some(progress) = known.as_mut().filter(|p| p.configured != *configured) {
            progress.configured.clone_from(configured);
            producer.send(vec![progress_record(&self.kafka, from, progress)]).await?;
        }
        if known.as_ref().is_some_and(|p| p.done) {
            return Ok(());
        }
        let topics = self.kafka.topics();
        let topic_name = topics.backfill(&table.name);
        let admin = Admin::connect(&self.kafka).await?;
        let partitions = admin.partitions(&topic_name).await?;
        let schema = topics.schema(Arc::clone(table));
        let schema = Arc::new(self.schemas.register_table(&topic_name, &schema).await?);
        let topic = ChangeTopic::new(topic_name.clone(), partitions, Arc::clone(&schema));
        let mut reader = self.mysql.reader().await?;

        let mut progress = if let Some(progress) = known {
            progress
        } else {
            let progress = self.begin(&mut reader, &schema, copied, from, since).await?;
            // Capture orders the copy of a table that was added before it publishes the first watermark to borrow.
            if Copies::read(&self.kafka).await?.from(&table.name) != from {
                return Ok(());
            }
            progress
        };
        let key = |bytes: &Option<Vec<u8>>| {
            bytes.as_ref().map(|k| schema.decode_key(k)).transpose().map_err(encode)
        };
        let upto: Option<Vec<Value>> = key(&progress.upto_key)?;
        let mut after: Option<Vec<Value>> = key(&progress.last_key)?;
        if after.is_some() {
            tracing::info!(table = name, rows = progress.rows, "the backfill continues where it stopped");
        } else if from.is_some() {
            tracing::info!(table = name, "the table is copied again");
        }
        let over_cells = from.is_some() || since.is_some() || *held_rows;
        let op = if over_cells { Op::Resnapshot } else { Op::Snapshot };
        // Never below what the copy began with.
        let least = Version(progress.version);
        let mut limit = self.config.chunk_rows.min(FIRST_CHUNK);
        while let (false, Some(upto)) = (progress.done, &upto) {
            let began = Instant::now();
            let watermark = self.watermarks.borrow_from(&mut reader, &table.name, least).await?;
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
            producer.send(vec![progress_record(&self.kafka, from, &progress)]).await?;
            self.metrics.chunk(count);
            if let Some(limit) = self.config.max_rows_per_second {
                let least = Duration::from_secs_f64(count as f64 / f64::from(limit.max(1)));
                tokio::time::sleep(least.saturating_sub(began.elapsed())).await;
            }
        }
        if upto.is_none() {
            progress.done = true;
            // This copy has no rows. The topic may hold an earlier copy, which must be applied before a verification.
            progress.end_offsets = admin.end_offsets(&topic_name, partitions).await?;
            producer.send(vec![progress_record(&self.kafka, from, &progress)]).await?;
        }
        self.metrics.tables_done.inc();
        tracing::info!(table = name, rows = progress.rows, "the backfill of this table is published");
        Ok(())
    }

    /// The rows of the next chunk at most, after a chunk of `count` rows and `bytes` bytes. It grows at most fourfold,
    /// because the next rows may be wider.
    fn next_limit(&self, limit: usize, count: usize, bytes: usize) -> usize {
        let fit = self.config.chunk_bytes.saturating_mul(count) / bytes.max(1);
        fit.min(limit.saturating_mul(4)).clamp(1, self.config.chunk_rows)
    }

    /// The lowest version that a copy may borrow that counts from a version.
    ///
    /// After a re-snapshot, an older one could tie with dual writes from before the gap. After an order to copy the table
    /// again, the copy must hold every change that was skipped while the table was halted. All of them were on the log
    /// when the order was read, and so was the watermark of all but the last Kafka transaction. So the copy borrows a later
    /// one than the newest.
    async fn least(&self, from: Option<i64>) -> Result<Version, BackfillError> {
        let Some(from) = from else { return Ok(Version(i64::MIN)) };
        let newest = NewestWatermark::read(&self.kafka).await?;
        Ok(Version(newest.map_or(from, |newest| from.max(newest.watermark.version.0 + 1))))
    }

    /// The initial progress of a table. It reads the table's upper end after it has borrowed a watermark.
    async fn begin(
        &self,
        reader: &mut Reader,
        schema: &TableSchema,
        copied: &BackfillTable,
        from: Option<i64>,
        since: Option<Version>,
    ) -> Result<BackfillProgress, BackfillError> {
        let table = schema.table();
        let name = table.name.to_string();
        // Above whatever watermark was there while another mapping was in use: a repair may have its version.
        let least = self.least(from.max(since.map(|since| since.0))).await?;
        let watermark = self.watermarks.borrow_from(reader, &table.name, least).await?;
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
            mapping: copied.hash(since),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_follows() {
        use Disposition::{Refuse, Retry, Stop};
        let late = WatermarkError::Late { what: "of t".into(), waited: Duration::from_secs(1) };
        let encode = BackfillError::Encode { table: "shop.orders".into(), source: WireError::Truncated };
        let cases: [(BackfillError, Disposition); 7] = [
            (MysqlError::Unreachable { address: "h".into(), cause: "refused".into() }.into(), Retry),
            (late.into(), Retry),
            (WatermarkError::Ended.into(), Stop),
            (PublishError::Closed.into(), Retry),
            (ProgressError::Consume(ConsumeError::Closed).into(), Retry),
            (ConsumeError::NoTopic("control".into()).into(), Stop),
            (encode, Refuse),
        ];
        for (error, expected) in cases {
            assert_eq!(error.retry(), expected, "{error:?}");
        }
    }
}
