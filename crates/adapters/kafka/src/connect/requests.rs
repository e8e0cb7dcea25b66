//! A client for single requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use tandem_model::Disposition;

use crate::connect::client::{BackgroundClose, LogContext, blocking, created};
use crate::connect::config::KafkaConfig;
use crate::error::ConsumeError;

/// A consumer that reads nothing and serves for requests.
///
/// A request that fails replaces the consumer. One that has lost its brokers or holds an old picture of the cluster may
/// never recover by itself ([`crate::connect::rebootstrap`]).
pub(crate) struct RequestClient {
    properties: ClientConfig,
    config: KafkaConfig,
    current: Mutex<BackgroundClose<LogContext>>,
}

impl RequestClient {
    /// Creates the consumer. It connects at the first request.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub(crate) fn new(properties: ClientConfig, config: &KafkaConfig) -> Result<Self, ConsumeError> {
        let current = Mutex::new(Self::create(&properties, config)?);
        Ok(Self { properties, config: config.clone(), current })
    }

    fn create(
        properties: &ClientConfig,
        config: &KafkaConfig,
    ) -> Result<BackgroundClose<LogContext>, ConsumeError> {
        let consumer: BaseConsumer<LogContext> =
            created(properties.create_with_context(LogContext::new(config)))?;
        Ok(BackgroundClose::new(consumer))
    }

    fn lock(&self) -> MutexGuard<'_, BackgroundClose<LogContext>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a request outside the async threads.
    ///
    /// # Errors
    /// Those of the request.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Arc<BaseConsumer<LogContext>>) -> Result<T, ConsumeError> + Send + 'static,
    ) -> Result<T, ConsumeError> {
        let consumer = self.lock().get()?;
        let outcome = blocking(move || request(&consumer)).await;
        if outcome.as_ref().is_err_and(|error| error.retry() == Disposition::Retry) {
            let renewed = Self::create(&self.properties, &self.config)?;
            *self.lock() = renewed;
        }
        outcome
    }
}
