//! Leadership: the owner of the audit topic's one partition in the controllers' consumer group leads.

use std::time::Duration;

use tandem_kafka::{ConsumeError, GroupConsumer};

/// This controller's membership in the group whose one partition is the leadership.
pub(crate) struct Leadership {
    pub(crate) consumer: GroupConsumer,
    pub(crate) topic: String,
}

impl Leadership {
    /// Whether this controller leads. It consumes records only to stay in the group, and ignores them.
    pub(crate) async fn is_held(&mut self, wait: Duration) -> Result<bool, ConsumeError> {
        let records = self.consumer.next_batch(1000, wait).await?;
        self.consumer.done(&records)?;
        Ok(self.consumer.is_assigned(&self.topic, 0))
    }
}
