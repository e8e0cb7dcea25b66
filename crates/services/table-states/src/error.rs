//! Why states of tables cannot be read or written.

use std::sync::Arc;

use tandem_kafka::{ConsumeError, PublishError};
use tandem_model::{Disposition, Remedy};
use tandem_wire::WireError;

/// Why states of tables cannot be read or written. After an error, a follower has ended: its user must start anew.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the states of tables: {0}")]
pub struct TableStatesError(Arc<Cause>);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Consume(ConsumeError),
    #[error(transparent)]
    Publish(PublishError),
    #[error("the record at offset {offset} of the control topic cannot be read: {source}")]
    Decode { offset: i64, source: WireError },
    #[error("a state cannot be encoded: {0}")]
    Encode(WireError),
}

impl From<ConsumeError> for TableStatesError {
    fn from(error: ConsumeError) -> Self {
        Self(Arc::new(Cause::Consume(error)))
    }
}

impl From<PublishError> for TableStatesError {
    fn from(error: PublishError) -> Self {
        Self(Arc::new(Cause::Publish(error)))
    }
}

impl TableStatesError {
    pub(crate) fn decode(offset: i64, source: WireError) -> Self {
        Self(Arc::new(Cause::Decode { offset, source }))
    }

    pub(crate) fn encode(source: WireError) -> Self {
        Self(Arc::new(Cause::Encode(source)))
    }

    /// What the caller does next.
    pub fn retry(&self) -> Disposition {
        match &*self.0 {
            Cause::Consume(error) => error.retry(),
            Cause::Publish(error) => error.retry(),
            Cause::Decode { source, .. } | Cause::Encode(source) => match source.retry() {
                Disposition::Retry => Disposition::Retry,
                Disposition::Stop | Disposition::Refuse => Disposition::Stop,
            },
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match &*self.0 {
            Cause::Consume(error) => error.remedy(),
            Cause::Publish(_) | Cause::Decode { .. } | Cause::Encode(_) => None,
        }
    }
}
