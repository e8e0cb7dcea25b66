//! Waiting until a watermark is applied.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tandem_kafka::{ConsumeError, GroupOffsets, KafkaConfig};
use tandem_model::Watermark;
use tandem_protocol::watermark::reached;
use tandem_wire::log::Topics;

/// First and longest pause between two looks at the group's committed offsets.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// The offsets that the apply group has committed. An offset is committed only after Cassandra has
/// answered, so what lies below it is in Cassandra. Cheap to clone.
#[derive(Clone)]
pub struct Applied {
    offsets: Arc<GroupOffsets>,
}

impl Applied {
    /// Looks at the apply group of this prefix, without joining it.
    pub fn of(config: &KafkaConfig) -> Result<Self, ConsumeError> {
        let group = Topics::new(&config.prefix).apply_group();
        Ok(Self { offsets: Arc::new(GroupOffsets::new(config, &group)?) })
    }

    /// What the group has committed on the partitions of these topics, as the broker has it now.
    pub async fn committed(
        &self,
        topics: &[String],
    ) -> Result<HashMap<(String, i32), Option<i64>>, ConsumeError> {
        self.offsets.committed(topics).await
    }

    /// Waits, without bound, until `watermark` is applied in `topic`. Lag is no error: the caller
    /// bounds the wait where it must.
    pub async fn wait(&self, watermark: &Watermark, topic: &str) -> Result<(), ConsumeError> {
        let Some(ends) = watermark.offsets.get(topic) else { return Ok(()) };
        self.wait_for(topic, ends).await
    }

    /// Waits, without bound, until the group has committed at least `ends` on each partition.
    pub async fn wait_for(&self, topic: &str, ends: &[i64]) -> Result<(), ConsumeError> {
        let mut pause = PAUSE.0;
        while !self.reached(topic, ends).await? {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
        Ok(())
    }

    /// Whether the group has committed at least `ends` on each partition of `topic`.
    pub async fn reached(&self, topic: &str, ends: &[i64]) -> Result<bool, ConsumeError> {
        let committed = self.offsets.committed(&[topic.to_owned()]).await?;
        Ok(reached(ends, |partition| committed.get(&(topic.to_owned(), partition as i32)).copied().flatten()))
    }
}
