//! How a term as the active controller ends.

use tandem_kafka::{ConsumeError, PublishError};

use crate::config::ControllerError;
use crate::measure::log_watch::WatchError;

/// Why the term of the active controller ended.
pub(crate) enum Ended {
    /// The process was asked to stop.
    Stopped,
    /// It lost leadership, or the outcome of its write is unknown. It waits for leadership again.
    Lost,
    /// Another controller took over before this one noticed the loss of leadership. It rejoins the group.
    Fenced,
}

/// The error that ended a term, and whether another term may succeed.
pub(crate) struct Failure {
    pub(crate) error: ControllerError,
    pub(crate) retriable: bool,
}

impl From<ConsumeError> for Failure {
    fn from(error: ConsumeError) -> Self {
        Self { retriable: error.is_retriable(), error: error.into() }
    }
}

impl From<PublishError> for Failure {
    /// Fencing is retriable here: another controller may take over while this one starts.
    fn from(error: PublishError) -> Self {
        let retriable = error.is_retriable() || matches!(error, PublishError::Fenced { .. });
        Self { retriable, error: error.into() }
    }
}

impl From<WatchError> for Failure {
    fn from(error: WatchError) -> Self {
        Self { retriable: error.is_retriable(), error: ControllerError::Log(error.to_string()) }
    }
}
