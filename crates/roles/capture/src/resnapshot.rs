//! Going on behind a gap in the log.
//!
//! What capture can no longer read (purged binlogs, an event that cannot be carried, transactions that a
//! fail-over lost) is a gap: what MySQL did in it stands on no topic, and no one can say which rows it
//! changed. A re-snapshot lets the log go on at what MySQL has executed by now, and has every row written again.
//!
//! Invariants:
//!
//! - The watermark behind the gap and the record of the re-snapshot are one Kafka transaction, under capture's
//!   transactional id: no other capture publishes in between.
//! - The watermark does not make capture look alive: its clock is that of the last one. So the gates of the
//!   controller that ask for a capture that runs stay shut until one does, and by then the record of the re-snapshot
//!   has long been seen.
//! - That watermark's version is minted after the last one's, as every other is, so versions go on rising
//!   in the order of the log. Its GTID set is what the server had executed, no more: what a fail-over lost is
//!   not in it, and what a repair or a copy borrows stays below what it reads.
//! - No copy of before it counts any more (`progress_key`), and with the copies every full verification
//!   of before. A copy behind it writes NULLs over the cells of before the gap, so no value stays that
//!   became NULL in it. Rows that were deleted in it are found, as rows that Cassandra alone has, by the full
//!   verification that the migration cannot go on without.
//! - Whatever was under way borrowed from before the gap: its versions are lower than the copy's.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tandem_kafka::{Admin, ConsumeError, TransactionalPublisher};
use tandem_model::{BinlogPosition, GtidSet, Watermark};
use tandem_mysql::Reader;
use tandem_protocol::mint::Minter;
use tandem_runtime::now_us;
use tandem_wire::control::{RESNAPSHOT_KEY, Resnapshot, encode_control};
use tandem_wire::log::{OutRecord, Topics};

use crate::error::CaptureError;
use crate::run::{Capture, watermark_record};
use crate::standby::{self, Patience};

/// What lies between the log and the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGap {
    /// The last watermark.
    pub last: Watermark,
    /// What the server has executed.
    pub executed: GtidSet,
    /// Of what it has executed, what is not on the log.
    pub not_captured: GtidSet,
    /// Of that, what stands in no binlog of the server any more. Where there is nothing of this kind, capture can
    /// go on by itself, unless it stops at an event.
    pub purged: GtidSet,
    /// What is on the log and the server lacks.
    pub lost: GtidSet,
}

impl Capture {
    /// The gap as it is now. Changes nothing.
    pub async fn gap(&self) -> Result<LogGap, CaptureError> {
        let topics = Topics::new(&self.kafka.prefix);
        match Admin::connect(&self.kafka).await?.partitions(&topics.watermarks()).await {
            Err(ConsumeError::NoTopic(_)) => return Err(CaptureError::NoLog),
            there => there?,
        };
        let mut reader = self.mysql.reader().await?.within(self.binlog.silence());
        let last = self.last_watermark(&topics).await?.ok_or(CaptureError::NoLog)?;
        LogGap::of(last, &mut reader).await
    }

    /// Lets the log go on at what the server has executed by now. Refused while another capture publishes (one that
    /// hangs is not noticed, and fenced), and while an XA transaction is prepared, as far as that may be asked:
    /// its rows would be on the log only in part.
    pub async fn resnapshot(&self, reason: &str) -> Result<Resnapshot, CaptureError> {
        let topics = Topics::new(&self.kafka.prefix);
        if standby::publishes(&self.kafka, &Patience::of(self.config.idle)).await? {
            return Err(CaptureError::StillCaptured);
        }
        let publisher =
            TransactionalPublisher::start(&self.kafka, &topics.capture_transactional_id()).await?;
        let mut reader = self.mysql.reader().await?.within(self.binlog.silence());
        let last = self.last_watermark(&topics).await?.ok_or(CaptureError::NoLog)?;
        let clock_us = self.clock(&mut reader).await?;
        let LogGap { last, executed, .. } = LogGap::of(last, &mut reader).await?;
        self.nothing_prepared(&mut reader).await?;
        let offsets = self.ends(&topics, &last).await?;
        let watermark = Watermark {
            source: last.source,
            gtid_set: executed.clone(),
            // It covers no position until the stream has reached one.
            position: BinlogPosition::default(),
            version: Minter::after(last.version).watermark(clock_us),
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
        let value = encode_control(&resnapshot)?;
        let control = OutRecord::control(topics.control(), RESNAPSHOT_KEY.to_vec(), value);
        let topic = topics.watermarks().into();
        let ends = Mutex::new(offsets);
        publisher
            .publish(vec![control], move |offsets| {
                Ok(vec![watermark_record(topic, watermark, &ends, offsets)])
            })
            .await?;
        Ok(resnapshot)
    }

    /// Where each change topic ends for the watermark behind the gap: where the last one said, and now, where a
    /// topic is new to it. One that is not there yet is capture's to take in.
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

    /// How old the log's end is, by this machine's clock.
    pub fn age(&self) -> Duration {
        Duration::from_micros((now_us() - self.last.clock_us).max(0) as u64)
    }
}
