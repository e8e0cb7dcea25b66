//! How a term as the active controller ends.

use tandem_kafka::{ConsumeError, PublishError};

use crate::config::ControllerError;
use crate::measure::log_watch::WatchError;

/// Why the active controller is no longer that.
pub(crate) enum Ended {
    /// It was told to stop.
    Stopped,
    /// It lost leadership, or what it wrote is not known: wait for leadership again.
    Lost,
    /// Another one took over before this one knew that it no longer leads: join the group anew.
    Fenced,
}

/// Why a term ended, and whether the next may go better.
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
    /// Another one may take over while this one starts.
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
