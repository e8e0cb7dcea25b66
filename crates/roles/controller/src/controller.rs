//! The controller's loop: election, and the rounds of the active controller.
//!
//! - Leadership is one partition of the audit topic in a consumer group of all controllers. Its owner is the
//!   active controller.
//! - Ownership alone would let a controller that was paused for a while write after it resumes. Each new leader
//!   therefore first starts a transactional publisher under a shared id, which fences every older one, and only
//!   then reads the phase.
//! - A change is one Kafka transaction: the next phase record and its entry of the audit trail.

use std::time::Duration;

use tandem_http_api::HttpListener;
use tandem_kafka::{GroupConsumer, TransactionalPublisher};
use tandem_model::{Disposition, PhaseRecord};
use tandem_protocol::rollout::Measurements;
use tandem_runtime::{Backoff, now_us};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::server::{self, Api};
use crate::config::{Controller, ControllerError};
use crate::lead::active::{Active, Round};
use crate::lead::leadership::Leadership;
use crate::lead::outcome::Ended;
use crate::measure::log_watch::LogWatch;
use crate::measure::window::Window;
use crate::order::{Command, OrderError, View};

/// How often leadership is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The longest pause before a retry after Kafka failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The window of the gateways' counters restarts after so long without a measurement.
const MEASURING_GAP: Duration = Duration::from_secs(15);
/// Queued orders at most.
const MAX_ORDERS: usize = 16;

impl Controller {
    /// Serves the API on `listener` until `stop`. Acts as the active controller while it holds leadership.
    ///
    /// # Errors
    ///
    /// Fails on an error of Kafka or of the log that a retry does not fix.
    pub async fn run(self, listener: HttpListener, stop: CancellationToken) -> Result<(), ControllerError> {
        let (commands, mut orders) = mpsc::channel(MAX_ORDERS);
        let (views, view) = watch::channel(View::Standby);
        let api = Api {
            view,
            commands,
            tokens: self.config.tokens.clone(),
            kafka: self.kafka.clone(),
            rules: self.config.rules.clone(),
            body_timeout: self.config.body_timeout,
        };
        let served = tokio::spawn(server::run(api, listener, stop.clone()));
        let mut backoff = Backoff::new(RETRY_PAUSE, RETRY_PAUSE);
        let outcome = loop {
            match self.term(&mut orders, &views, &stop).await {
                Ok(Ended::Stopped) => break Ok(()),
                Ok(Ended::Lost | Ended::Fenced) => {}
                Err(error) => match error.retry() {
                    Disposition::Retry => {
                        tracing::warn!(%error, "the controller failed on Kafka: retrying");
                        self.metrics.failed(error.to_string(), RETRY_PAUSE);
                    }
                    Disposition::Stop | Disposition::Refuse => break Err(error),
                },
            }
            self.stand_by(&views);
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                () = backoff.pause() => {}
            }
        };
        self.stand_by(&views);
        served.abort();
        outcome
    }

    fn stand_by(&self, views: &watch::Sender<View>) {
        self.metrics.active.set(0);
        views.send_replace(View::Standby);
    }

    /// Waits for leadership, and acts as the active controller while it holds it.
    async fn term(
        &self,
        orders: &mut mpsc::Receiver<Command>,
        views: &watch::Sender<View>,
        stop: &CancellationToken,
    ) -> Result<Ended, ControllerError> {
        let topics = self.kafka.topics();
        let mut leadership = Leadership {
            consumer: GroupConsumer::start(&self.kafka, &topics.controller_group(), &[topics.audit()])
                .await?,
            topic: topics.audit(),
        };
        let outcome = loop {
            if stop.is_cancelled() {
                break Ok(Ended::Stopped);
            }
            match leadership.is_held(POLL_INTERVAL).await {
                Err(error) => break Err(error.into()),
                Ok(true) => match self.lead(&mut leadership, orders, views, stop).await {
                    // Keep the membership: leaving the group would trigger another election.
                    Ok(Ended::Lost) => self.stand_by(views),
                    ended => break ended,
                },
                Ok(false) => self.metrics.waits_no_more(),
            }
            while let Ok(command) = orders.try_recv() {
                command.answer(Err(OrderError::Standby));
            }
        };
        self.stand_by(views);
        leadership.consumer.close().await;
        outcome
    }

    /// Acts as the active controller until leadership is lost.
    async fn lead(
        &self,
        leadership: &mut Leadership,
        orders: &mut mpsc::Receiver<Command>,
        views: &watch::Sender<View>,
        stop: &CancellationToken,
    ) -> Result<Ended, ControllerError> {
        let topics = self.kafka.topics();
        let id = topics.controller_transactional_id();
        let begun = async {
            let publisher = TransactionalPublisher::start(&self.kafka, &id).await?;
            let log = LogWatch::start(&self.kafka, &self.tables).await?;
            Ok::<_, ControllerError>((publisher, log))
        };
        let (publisher, log) = tokio::select! {
            begun = begun => begun?,
            () = stop.cancelled() => return Ok(Ended::Stopped),
        };
        let first = PhaseRecord { auto: self.config.auto, ..PhaseRecord::default() };
        let record = log.phase().cloned().unwrap_or(first);
        tracing::info!(generation = record.generation, phase = %record.phase, "this is the active controller");
        self.metrics.active.set(1);
        self.metrics.waits_no_more();
        let gap = MEASURING_GAP.max(self.config.interval * 3);
        let mut window = Window::new(self.config.window.as_micros() as i64, gap.as_micros() as i64);
        window.begin(record.generation);
        let mut active = Active {
            controller: self,
            publisher,
            log,
            window,
            watched_since_us: now_us(),
            confirmed: Instant::now(),
            measured: Measurements::none("nothing was measured yet"),
            unmeasured: None,
            gateways: Vec::new(),
            record,
        };
        let mut ticks = tokio::time::interval(self.config.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let command = tokio::select! {
                () = stop.cancelled() => return Ok(Ended::Stopped),
                _ = ticks.tick() => None,
                command = orders.recv() => command,
            };
            if !leadership.is_held(Duration::ZERO).await? {
                tracing::warn!("another controller leads");
                if let Some(command) = command {
                    command.answer(Err(OrderError::Standby));
                }
                return Ok(Ended::Lost);
            }
            let round = tokio::select! {
                round = active.round(command, views) => round?,
                () = stop.cancelled() => return Ok(Ended::Stopped),
            };
            if let Round::Over(ended) = round {
                return Ok(ended);
            }
        }
    }
}
