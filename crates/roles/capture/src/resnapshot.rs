//! The re-snapshot: continues the log after a log gap.
//!
//! A log gap is what capture can no longer read: purged binlogs, an event that cannot be carried, or transactions
//! that a fail-over lost. The changes in the gap are on no topic, so nobody can tell which rows they changed. A
//! re-snapshot continues the log at what MySQL has executed by now, and every row is written again.
//!
//! Invariants:
//!
//! - The watermark after the gap and the record of the re-snapshot are one Kafka transaction, under capture's
//!   transactional id. No other capture can publish in between.
//! - The watermark does not make capture look alive, because it repeats the clock of the last one. The controller's
//!   gates that require a running capture therefore stay unmet until one runs. By then the record of the re-snapshot
//!   has long been read.
//! - The watermark's version is minted after that of the last one, as always. Versions therefore keep rising in the
//!   order of the log. Its GTID set is exactly what the server had executed. It excludes transactions that a
//!   fail-over lost, and a repair or a copy never borrows a version above what it reads.
//! - Copies from before the re-snapshot no longer count (`progress_key`), and neither do earlier full verifications.
//!   The new copy writes NULLs over older cells, so a value that became NULL in the gap does not survive. Rows that
//!   were deleted in the gap exist only in Cassandra. The full verification, which the rollout requires, finds them.
//! - Work that was in progress borrowed a version from before the gap, so its versions are lower than the copy's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tandem_kafka::{Admin, ConsumeError, PublishError, TransactionalPublisher};
use tandem_model::{BinlogPosition, GtidSet, TableName, Watermark};
use tandem_mysql::Reader;
use tandem_protocol::captured_tables;
use tandem_protocol::mint::Minter;
use tandem_protocol::table_state::is_captured;
use tandem_runtime::now_us;
use tandem_table_states::read_states;
use tandem_wire::control::{RESNAPSHOT_KEY, Resnapshot, encode_control};
use tandem_wire::log::{OutRecord, Topics};

use crate::error::CaptureError;
use crate::run::Capture;
use crate::standby::{self, Timeouts};
use crate::watermark_topic::WatermarkTopic;

/// The difference between the log and the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGap {
    /// The last watermark.
    pub last: Watermark,
    /// The transactions that the server has executed.
    pub executed: GtidSet,
    /// The executed transactions that are not on the log.
    pub not_captured: GtidSet,
    /// The transactions of `not_captured` that are in no binlog of the server any more. If this is empty, capture can
    /// continue by itself, unless it stops at an event.
    pub purged: GtidSet,
    /// The transactions on the log that the server lacks.
    pub lost: GtidSet,
}

impl Capture {
    /// Reads the current gap. It changes nothing.
    ///
    /// # Errors
    ///
    /// Fails if there is no log yet, or if Kafka or MySQL cannot be read.
    pub async fn gap(&self) -> Result<LogGap, CaptureError> {
        let topics = self.kafka.topics();
        match Admin::connect(&self.kafka).await?.partitions(&topics.watermarks()).await {
            Err(ConsumeError::NoTopic(_)) => return Err(CaptureError::NoLog),
            there => there?,
        };
        let mut reader = self.mysql.reader().await?.within(self.binlog.silence());
        let last = self.last_watermark().await?.ok_or(CaptureError::NoLog)?;
        LogGap::of(last, &mut reader).await
    }

    /// Continues the log at what the server has executed by now. A capture that hangs is not noticed, but it is fenced.
    ///
    /// # Errors
    ///
    /// Fails while another capture publishes, and while an XA transaction is prepared, because only part of its rows
    /// would be on the log. The second check needs the privilege for XA RECOVER. Also fails if there is no log yet,
    /// or on an error of Kafka or MySQL.
    pub async fn resnapshot(&self, reason: &str) -> Result<Resnapshot, CaptureError> {
        let topics = self.kafka.topics();
        if standby::publishes(&self.kafka, &Timeouts::of(self.config.idle)).await? {
            return Err(CaptureError::StillCaptured);
        }
        let publisher =
            TransactionalPublisher::start(&self.kafka, &topics.capture_transactional_id()).await?;
        let mut reader = self.mysql.reader().await?.within(self.binlog.silence());
        let last = self.last_watermark().await?.ok_or(CaptureError::NoLog)?;
        let clock_us = self.clock(&mut reader).await?;
        let LogGap { last, executed, .. } = LogGap::of(last, &mut reader).await?;
        self.nothing_prepared(&mut reader).await?;
        // A table that the log lacks changes of stays so: its own order has it copied again.
        let states = read_states(&self.kafka).await?;
        let captured = self.config.tables.iter().filter(|table| is_captured(states.get(table)));
        let captured: BTreeMap<TableName, Arc<str>> =
            captured.map(|table| (table.clone(), topics.changes(table).into())).collect();
        let offsets = self.ends(&topics, &last).await?;
        let watermark = Watermark {
            source: last.source,
            gtid_set: executed.clone(),
            // It has no position until the stream has reached one.
            position: BinlogPosition::default(),
            version: Minter::after(last.version).watermark(clock_us),
            tables: Arc::new(captured_tables::continued(&last.tables, &captured)),
            offsets: BTreeMap::new(),
            partial: None,
            clock_us: last.clock_us,
        };
        let resnapshot = Resnapshot {
            version: watermark.version.0,
            from_gtid_set: last.gtid_set.to_string(),
            to_gtid_set: executed.to_string(),
            reason: reason.to_owned(),
            at_us: now_us(),
        };
        let value = encode_control(&resnapshot).map_err(|error| PublishError::Finish(error.into()))?;
        let control = OutRecord::control(topics.control(), RESNAPSHOT_KEY.to_vec(), value);
        let watermarks = WatermarkTopic::new(&topics, offsets);
        publisher
            .publish(vec![control], move |offsets| Ok(vec![watermarks.record(watermark, offsets)]))
            .await?;
        Ok(resnapshot)
    }

    /// The end offsets of the change topics for the watermark after the gap: those of the last watermark, and the
    /// current ends of topics that are new to it. Capture adds topics that do not exist yet.
    async fn ends(
        &self,
        topics: &Topics,
        last: &Watermark,
    ) -> Result<BTreeMap<String, Vec<i64>>, CaptureError> {
        let admin = Admin::connect(&self.kafka).await?;
        let mut ends = BTreeMap::new();
        for table in &self.config.tables {
            let topic = topics.changes(table);
            let count = match admin.partitions(&topic).await {
                Err(ConsumeError::NoTopic(_)) => continue,
                count => count?,
            };
            let known = last.offsets.get(&topic);
            if let Some(known) = known.map(Vec::len).filter(|known| *known != count as usize) {
                return Err(CaptureError::Repartitioned { topic, known, count });
            }
            let found = match known {
                Some(known) => known.clone(),
                None => admin.end_offsets(&topic, count).await?,
            };
            ends.insert(topic, found);
        }
        Ok(ends)
    }
}

impl LogGap {
    async fn of(last: Watermark, reader: &mut Reader) -> Result<Self, CaptureError> {
        let executed = reader.executed().await?;
        let purged = reader.purged().await?;
        Ok(Self {
            not_captured: executed.minus(&last.gtid_set),
            purged: purged.minus(&last.gtid_set),
            lost: last.gtid_set.minus(&executed),
            executed,
            last,
        })
    }

    /// The age of the log's end, by this machine's clock.
    pub fn age(&self) -> Duration {
        Duration::from_micros((now_us() - self.last.clock_us).max(0) as u64)
    }
}
