//! The configuration of a controller, its parts, and its errors.

use std::time::Duration;

use tandem_http_api::{AccessToken, RequestRules};
use tandem_kafka::{ConsumeError, KafkaConfig, PublishError};
use tandem_model::{Disposition, Remedy};
use tandem_protocol::rollout::{Policy, Serving};

use crate::api::auth::Scope;
use crate::measure::log_state::MappedTable;
use crate::measure::log_watch::LogError;
use crate::metrics::Metrics;

/// The settings of a controller.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    /// The rollout plan and its gates.
    pub policy: Policy,
    /// What the phase record tells the gateways besides the phase.
    pub serving: Serving,
    /// Whether it advances automatically. This applies until a phase record exists.
    pub auto: bool,
    /// The time between two rounds of measuring.
    pub interval: Duration,
    /// The longest time over which rates are computed.
    pub window: Duration,
    /// The tokens of the API. Without tokens everybody who can reach the API may use it.
    pub tokens: Vec<AccessToken<Scope>>,
    /// Which requests the API accepts.
    pub rules: RequestRules,
    /// How long the body of a request may take.
    pub body_timeout: Duration,
}

/// Why a controller ended.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A Kafka client failed.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// A Kafka client failed.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The log cannot be read.
    #[error("the controller cannot read the log: {0}")]
    Log(#[from] LogError),
}

impl ControllerError {
    /// What the caller does next. A retry waits for leadership again.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Consume(error) => error.retry(),
            // Another controller may take over while this one starts.
            Self::Publish(PublishError::Fenced { .. }) => Disposition::Retry,
            Self::Publish(error) => error.retry(),
            Self::Log(error) => error.retry(),
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Consume(error) => error.remedy(),
            Self::Log(error) => error.remedy(),
            Self::Publish(_) => None,
        }
    }
}

/// A controller, active or standby.
pub struct Controller {
    /// The log.
    pub kafka: KafkaConfig,
    /// The migrated tables.
    pub tables: Vec<MappedTable>,
    /// The settings.
    pub config: ControllerConfig,
    /// The controller's metrics.
    pub metrics: Metrics,
}

#[cfg(test)]
mod tests {
    use tandem_wire::WireError;

    use super::*;

    #[test]
    fn each_error_says_what_follows() {
        let decode = LogError::Decode { topic: "control".into(), source: WireError::Truncated };
        let cases: [(ControllerError, Disposition); 6] = [
            (ConsumeError::Closed.into(), Disposition::Retry),
            (ConsumeError::NoTopic("audit".into()).into(), Disposition::Stop),
            (PublishError::Fenced { id: "controller".into() }.into(), Disposition::Retry),
            (PublishError::Config("no".into()).into(), Disposition::Stop),
            (LogError::Late("control".into()).into(), Disposition::Retry),
            (decode.into(), Disposition::Refuse),
        ];
        for (error, expected) in cases {
            assert_eq!(error.retry(), expected, "{error:?}");
        }
    }
}
