//! Waits until a watermark is applied.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tandem_kafka::{ConsumeError, GroupOffsets, KafkaConfig};
use tandem_model::Watermark;
use tandem_protocol::watermark::reached;
use tandem_runtime::Backoff;

/// The first and the longest pause between two reads of the group's committed offsets.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// The committed offsets of the apply group. Every change below a committed offset is in Cassandra, because
/// the group commits an offset only after Cassandra has acknowledged the writes. Cheap to clone.
#[derive(Clone)]
pub struct Applied {
    offsets: Arc<GroupOffsets>,
}

impl Applied {
    /// Reads the offsets of this prefix's apply group, without joining it.
    ///
    /// # Errors
    /// The Kafka configuration is wrong.
    pub fn of(config: &KafkaConfig) -> Result<Self, ConsumeError> {
        let group = config.topics().apply_group();
        Ok(Self { offsets: Arc::new(GroupOffsets::new(config, &group)?) })
    }

    /// Returns the group's current committed offset for every partition of these topics.
    ///
    /// # Errors
    /// A topic does not exist, or the request fails.
    pub async fn committed(
        &self,
        topics: &[String],
    ) -> Result<HashMap<(String, i32), Option<i64>>, ConsumeError> {
        self.offsets.committed(topics).await
    }

    /// Waits without limit until `watermark` is applied in `topic`. Lag is not an error. A caller that needs
    /// a limit sets its own timeout.
    ///
    /// # Errors
    /// Reading the offsets fails.
    pub async fn wait(&self, watermark: &Watermark, topic: &str) -> Result<(), ConsumeError> {
        let Some(ends) = watermark.offsets.get(topic) else { return Ok(()) };
        self.wait_for(topic, ends).await
    }

    /// Waits without limit until the group has committed at least `ends` on each partition.
    ///
    /// # Errors
    /// Reading the offsets fails.
    pub async fn wait_for(&self, topic: &str, ends: &[i64]) -> Result<(), ConsumeError> {
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        while !self.reached(topic, ends).await? {
            backoff.pause().await;
        }
        Ok(())
    }

    /// Whether the group has committed at least `ends` on each partition of `topic`.
    ///
    /// # Errors
    /// Reading the offsets fails.
    pub async fn reached(&self, topic: &str, ends: &[i64]) -> Result<bool, ConsumeError> {
        let committed = self.offsets.committed(&[topic.to_owned()]).await?;
        Ok(reached(ends, |partition| committed.get(&(topic.to_owned(), partition as i32)).copied().flatten()))
    }
}
