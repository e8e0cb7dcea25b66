//! What a controller is made of and how it works.

use std::time::Duration;

use tandem_kafka::{ConsumeError, KafkaConfig, PublishError};
use tandem_protocol::rollout::{Policy, Serving};

use crate::api::auth::Token;
use crate::measure::counters::MetricNames;
use crate::measure::log_state::MappedTable;
use crate::metrics::Metrics;

/// How a controller works.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    /// Places and gates.
    pub policy: Policy,
    /// What the gateways are told beside the phase.
    pub serving: Serving,
    /// Whether it walks on by itself where no record of the phase says so yet.
    pub auto: bool,
    /// The addresses of metrics pages: of every gateway, and of capture where writers are counted.
    pub gateways: Vec<String>,
    /// Which metrics stand for what.
    pub metric_names: MetricNames,
    /// Between two rounds of measuring.
    pub interval: Duration,
    /// The longest time over which rates are taken.
    pub window: Duration,
    /// Who may use the API. With none, everybody who reaches it.
    pub tokens: Vec<Token>,
}

/// Why a controller ended.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// Kafka refused.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// Kafka refused.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Its API is no longer served.
    #[error("the controller's API is no longer served: {0}")]
    Serve(std::io::Error),
    /// The log cannot be read.
    #[error("the controller cannot read the log: {0}")]
    Log(String),
}

/// A controller, active or waiting to be.
pub struct Controller {
    /// The log.
    pub kafka: KafkaConfig,
    /// The migrated tables.
    pub tables: Vec<MappedTable>,
    /// How it works.
    pub config: ControllerConfig,
    /// What it tells about itself.
    pub metrics: Metrics,
}
