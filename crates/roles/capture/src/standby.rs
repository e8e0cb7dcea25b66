//! Whose turn it is to capture.
//!
//! A capture that works shows it: it publishes a watermark at least once in `watermark_interval_ms`, whether or
//! not there are changes. So who starts looks at the watermarks first, and stands by while they keep
//! coming; when they stop, it takes over. Nothing rests on this guess: whoever takes over fences the one
//! before it (a transactional id of Kafka's), so two that try at once, or one that goes on after
//! it was stopped for a while, cannot both publish. The one that was fenced stands by in its turn.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tandem_kafka::{KafkaConfig, TailReader, read_last};
use tandem_wire::control::decode_watermark;
use tandem_wire::log::Topics;
use tokio::time::Instant;

use crate::error::CaptureError;
use crate::metrics::Metrics;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// How long nothing may be published by others before this capture takes over.
pub(crate) struct Patience {
    /// Where nobody is known to publish: a start after a crash should not take long.
    starting: Duration,
    /// Where another one did publish.
    standing: Duration,
    /// Where another one was met that has perhaps only just begun: it has yet to start its publisher and
    /// to read the binlog.
    met: Duration,
}

impl Patience {
    /// For captures that publish a watermark at least every `interval`.
    pub(crate) fn of(interval: Duration) -> Self {
        let standing = (interval * 6).max(Duration::from_secs(3));
        Self { starting: standing / 2, standing, met: standing * 5 }
    }
}

/// From when on silence counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// From the last watermark, by its own clock; one that is old costs no waiting.
    LastWatermark,
    /// From now: another capture was met, and has perhaps not published yet.
    Now,
}

/// Whether another capture publishes.
pub(crate) async fn publishes(kafka: &KafkaConfig, patience: &Patience) -> Result<bool, CaptureError> {
    let topic = Topics::new(&kafka.prefix).watermarks();
    let Some(last) = read_last(kafka, &topic, 0).await? else { return Ok(false) };
    let mut tail = TailReader::start(kafka, vec![(topic, 0, last.offset + 1)]).await?;
    let quiet_at = Instant::now() + patience.standing;
    while Instant::now() < quiet_at {
        if !tail.next_batch(1, LOOK).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits until nobody else publishes. Whether somebody did.
pub(crate) async fn wait(
    kafka: &KafkaConfig,
    patience: &Patience,
    since: Since,
    metrics: &Metrics,
) -> Result<bool, CaptureError> {
    let topic = Topics::new(&kafka.prefix).watermarks();
    let Some(last) = read_last(kafka, &topic, 0).await? else { return Ok(false) };
    let (mut limit, age) = match since {
        Since::Now => (patience.met, Duration::ZERO),
        Since::LastWatermark => {
            let watermark = decode_watermark(last.value.as_deref().unwrap_or_default())?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            // MySQL's clock; one that is ahead of this machine's says nothing of the age.
            let published = Duration::from_micros(watermark.clock_us.max(0) as u64);
            (patience.starting, now.saturating_sub(published))
        }
    };
    if age >= limit {
        return Ok(false);
    }
    let mut quiet_at = Instant::now() + limit.saturating_sub(age);
    let mut tail = TailReader::start(kafka, vec![(topic, 0, last.offset + 1)]).await?;
    let mut others = false;
    while Instant::now() < quiet_at {
        if tail.next_batch(1000, LOOK).await?.is_empty() {
            continue;
        }
        if !others {
            tracing::info!("another capture publishes: this one stands by");
        }
        others = true;
        metrics.standby.set(1);
        limit = patience.standing;
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
