//! Measures from the log. Each round reads the followed topics up to their current ends.

use std::collections::HashMap;
use std::time::Duration;

use tandem_kafka::{
    Admin, ConsumeError, GroupOffsets, KafkaConfig, PartitionLag, TailReader, partition_lags, read_unapplied,
};
use tandem_model::{Disposition, PhaseRecord, Remedy};
use tandem_protocol::watermark_log::WatermarkReader;
use tandem_watermarks::{NewestWatermark, WatermarkReadError, read_watermark};
use tandem_wire::WireError;
use tandem_wire::log::Topics;
use tokio::time::Instant;

use crate::measure::log_state::{LogState, MappedTable, Since};
use crate::measure::presence::Presence;
use tandem_protocol::rollout::Measurements;
use tandem_runtime::now_us;

/// The timeout of reading the followed topics to their ends.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the log could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Reading Kafka failed.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// A watermark could not be read.
    #[error(transparent)]
    Watermark(#[from] WatermarkReadError),
    /// A record could not be decoded.
    #[error("a record of `{topic}` cannot be read: {source}")]
    Decode {
        /// Its topic.
        topic: String,
        /// The reason.
        source: WireError,
    },
    /// A topic was not read to its end in time.
    #[error("`{0}` was not read to its end in time")]
    Late(String),
}

impl LogError {
    /// What the caller does next. The controller skips no record of the log, so it ends on one that is
    /// refused.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Consume(error) => error.retry(),
            Self::Watermark(error) => error.retry(),
            Self::Decode { source, .. } => source.retry(),
            Self::Late(_) => Disposition::Retry,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Consume(error) => error.remedy(),
            Self::Watermark(error) => error.remedy(),
            Self::Decode { .. } | Self::Late(_) => None,
        }
    }
}

/// Follows the control, mismatch, watermark and dead-letter topics, and the announcements.
pub(crate) struct LogWatch {
    kafka: KafkaConfig,
    tables: Vec<MappedTable>,
    topics: Topics,
    admin: Admin,
    group: GroupOffsets,
    reader: TailReader,
    /// Completes the records of the watermark topic.
    watermarks: WatermarkReader,
    state: LogState,
    presence: Presence,
}

impl LogWatch {
    /// Starts, and reads the followed topics to their ends.
    pub(crate) async fn start(kafka: &KafkaConfig, tables: &[MappedTable]) -> Result<Self, LogError> {
        let topics = kafka.topics();
        let admin = Admin::connect(kafka).await?;
        let (control, mismatches, watermarks) = (topics.control(), topics.mismatches(), topics.watermarks());
        let mut state = LogState::default();
        // Only the newest watermark counts. Reading starts behind it and follows the later ones.
        let (mut reader, mut after) = (WatermarkReader::default(), 0);
        if let Some(newest) = NewestWatermark::read(kafka).await? {
            state.take_watermark(newest.watermark);
            (reader, after) = (newest.reader, newest.offset + 1);
        }
        let (letters, announcements) = (topics.dead_letters(), topics.announcements());
        let from = vec![
            (announcements.clone(), 0, admin.first_offsets(&announcements, 1).await?[0]),
            (letters.clone(), 0, admin.first_offsets(&letters, 1).await?[0]),
            (control.clone(), 0, admin.first_offsets(&control, 1).await?[0]),
            (mismatches.clone(), 0, admin.first_offsets(&mismatches, 1).await?[0]),
            (watermarks, 0, after),
        ];
        let mut watch = Self {
            kafka: kafka.clone(),
            tables: tables.to_vec(),
            group: GroupOffsets::new(kafka, &topics.apply_group())?,
            topics,
            admin,
            reader: TailReader::start(kafka, from).await?,
            watermarks: reader,
            state,
            presence: Presence::default(),
        };
        watch.catch_up(false).await?;
        Ok(watch)
    }

    /// The newest phase record read so far.
    pub(crate) fn phase(&self) -> Option<&PhaseRecord> {
        self.state.phase()
    }

    /// The roles that have announced themselves.
    pub(crate) fn presence(&self) -> &Presence {
        &self.presence
    }

    /// The offset after the last mismatch event read.
    pub(crate) fn mismatches_end(&self) -> i64 {
        self.state.mismatches_end()
    }

    /// Reads the followed topics up to their current ends. `live` says that the records are new.
    async fn catch_up(&mut self, live: bool) -> Result<(), LogError> {
        let (control, mismatches, watermarks) =
            (self.topics.control(), self.topics.mismatches(), self.topics.watermarks());
        let (letters, announcements) = (self.topics.dead_letters(), self.topics.announcements());
        let begun = Instant::now();
        // The control topic is read again at the end: once the watermark behind a log gap is known, the re-snapshot that
        // invalidates the copies must be known too.
        for topic in [&announcements, &control, &mismatches, &watermarks, &letters, &control] {
            let end = self.admin.end_offsets(topic, 1).await?[0];
            while self.reader.consumed_to(topic, 0).is_none_or(|at| at < end) {
                if begun.elapsed() > CATCH_UP_TIMEOUT {
                    return Err(LogError::Late(topic.clone()));
                }
                for record in self.reader.next_batch(5000, Duration::from_millis(50)).await? {
                    let taken = match &*record.topic {
                        name if name == control => self.state.take_control(&record),
                        name if name == letters => self.state.take_dead_letter(&record),
                        name if name == announcements => {
                            self.presence.take(&record, Instant::now(), live);
                            Ok(())
                        }
                        name if name == mismatches => self.state.take_mismatch(&record, live.then(now_us)),
                        _ => {
                            let watermark = read_watermark(&mut self.watermarks, &record)?;
                            if let Some(watermark) = watermark {
                                self.state.take_watermark(watermark);
                            }
                            Ok(())
                        }
                    };
                    taken.map_err(|source| decode(&record.topic, source))?;
                }
            }
        }
        Ok(())
    }

    /// Measures. On an error no measurement of the log is known.
    pub(crate) async fn measure(
        &mut self,
        now_us: i64,
        since: Since,
        into: &mut Measurements,
    ) -> Result<(), LogError> {
        self.catch_up(true).await?;
        let mut behind = Vec::new();
        let (mut records, mut unclaimed) = (0, 0);
        let mut applied: HashMap<String, Vec<i64>> = HashMap::new();
        let topics = self.topics.of_tables(self.tables.iter().map(|table| &table.name));
        let lags = partition_lags(&self.admin, &self.group, &topics).await?;
        for (topic, partitions) in topics.into_iter().zip(lags) {
            records += partitions.iter().map(PartitionLag::records).sum::<i64>();
            unclaimed += partitions.iter().filter(|p| p.committed.is_none()).count();
            let lagging = partitions.iter().enumerate().filter(|(_, p)| p.records() > 0);
            behind.extend(lagging.map(|(number, p)| (topic.clone(), number as i32, p.applied()..p.end)));
            applied.insert(topic, partitions.iter().map(PartitionLag::applied).collect());
        }
        let copied = |table: &&MappedTable| {
            let applied = applied.get(&self.topics.backfill(&table.name));
            self.state.is_copied(table, applied.map_or(&[], Vec::as_slice))
        };
        let not_copied = self.tables.len() - self.tables.iter().filter(copied).count();
        let oldest = read_unapplied(&self.kafka, behind, Duration::ZERO, |_| {}).await?.oldest_ms;
        let oldest = oldest.map_or(0.0, |ms| (now_us / 1000 - ms).max(0) as f64 / 1e3);
        self.state.measure(&self.tables, now_us, since, into);
        into.set("apply_lag_records", Ok(records as f64));
        into.set("apply_partitions_unclaimed", Ok(unclaimed as f64));
        into.set("backfill_tables_left", Ok(not_copied as f64));
        let lag = self.state.capture_age(now_us).map(|age| age.max(oldest));
        into.set("apply_lag_seconds", lag.ok_or_else(|| "capture has not begun".to_owned()));
        Ok(())
    }
}

fn decode(topic: &str, source: WireError) -> LogError {
    LogError::Decode { topic: topic.to_owned(), source }
}
