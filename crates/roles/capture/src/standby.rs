//! Standby: waits while another capture publishes.
//!
//! A working capture publishes a watermark at least once in `watermark_interval_ms`, with or without changes. A
//! capture that starts therefore watches the watermarks first. It is a standby while they keep coming, and takes over
//! when they stop.
//!
//! Safety does not depend on this guess. A capture that takes over fences the one before it through Kafka's
//! transactional id. Two captures that start at once, or one that resumes after a pause, can therefore never both
//! publish. The fenced capture becomes a standby.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tandem_kafka::{KafkaConfig, TailReader};
use tandem_watermarks::NewestWatermark;
use tokio::time::Instant;

use crate::error::CaptureError;
use crate::metrics::Metrics;

/// How often the watermarks are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long other captures must be silent before this one takes over.
pub(crate) struct Timeouts {
    /// If no other capture is known to publish. It is short, so that a start after a crash is fast.
    starting: Duration,
    /// If another capture was seen to publish.
    standby: Duration,
    /// If this capture was displaced by another one that may have just started, and has yet to start its publisher
    /// and to read the binlog.
    displaced: Duration,
}

impl Timeouts {
    /// For captures that publish a watermark at least every `interval`.
    pub(crate) fn of(interval: Duration) -> Self {
        let standby = (interval * 6).max(Duration::from_secs(3));
        Self { starting: standby / 2, standby, displaced: standby * 5 }
    }
}

/// The start of the silence that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// The time of the last watermark, by its own clock. An old watermark therefore causes no wait.
    LastWatermark,
    /// Now: another capture has taken over and may not have published yet.
    Now,
}

/// Whether another capture publishes.
pub(crate) async fn publishes(kafka: &KafkaConfig, timeouts: &Timeouts) -> Result<bool, CaptureError> {
    let topic = kafka.topics().watermarks();
    let Some(last) = NewestWatermark::read(kafka).await? else { return Ok(false) };
    let mut tail = TailReader::start(kafka, vec![(topic, 0, last.offset + 1)]).await?;
    let quiet_at = Instant::now() + timeouts.standby;
    while Instant::now() < quiet_at {
        if !tail.next_batch(1, POLL_INTERVAL).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits until no other capture publishes. Returns whether one did.
pub(crate) async fn wait(
    kafka: &KafkaConfig,
    timeouts: &Timeouts,
    since: Since,
    metrics: &Metrics,
) -> Result<bool, CaptureError> {
    let topic = kafka.topics().watermarks();
    let Some(last) = NewestWatermark::read(kafka).await? else { return Ok(false) };
    let (mut limit, age) = match since {
        Since::Now => (timeouts.displaced, Duration::ZERO),
        Since::LastWatermark => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            // This is MySQL's clock. If it is ahead of this machine's, the age is unknown and counts as 0.
            let published = Duration::from_micros(last.watermark.clock_us.max(0) as u64);
            (timeouts.starting, now.saturating_sub(published))
        }
    };
    if age >= limit {
        return Ok(false);
    }
    let mut quiet_at = Instant::now() + limit.saturating_sub(age);
    let mut tail = TailReader::start(kafka, vec![(topic, 0, last.offset + 1)]).await?;
    let mut others = false;
    while Instant::now() < quiet_at {
        if tail.next_batch(1000, POLL_INTERVAL).await?.is_empty() {
            continue;
        }
        if !others {
            tracing::info!("another capture publishes: this one stands by");
        }
        others = true;
        metrics.standby.set(1);
        metrics.waits_no_more();
        limit = timeouts.standby;
        quiet_at = Instant::now() + limit;
    }
    let quiet_ms = limit.as_millis();
    if others {
        tracing::info!(quiet_ms, "no watermark has come from the other capture: taking over");
    } else {
        tracing::info!(quiet_ms, "no watermark has come from any other capture");
    }
    Ok(others)
}
