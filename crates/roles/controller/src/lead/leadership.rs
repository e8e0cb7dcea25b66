//! Who leads: the owner of the audit topic's one partition within the controllers' group.

use std::time::Duration;

use tandem_kafka::{ConsumeError, GroupConsumer};

/// The partition whose owner is the active controller.
pub(crate) struct Leadership {
    pub(crate) consumer: GroupConsumer,
    pub(crate) topic: String,
}

impl Leadership {
    /// Whether this controller leads. The records themselves are of no interest here.
    pub(crate) async fn is_held(&mut self, wait: Duration) -> Result<bool, ConsumeError> {
        let records = self.consumer.next_batch(1000, wait).await?;
        self.consumer.done(&records)?;
        Ok(self.consumer.is_assigned(&self.topic, 0))
    }
}
