//! The executor: which controller is the active one, and what the active one does.
//!
//! - One partition of the audit topic, in a consumer group of all controllers, is the seat: whoever
//!   has it is the active one.
//! - That alone would let a controller that was stopped for a while write when it goes on. So each
//!   one that takes the seat starts a transactional publisher under one id, which fences every older
//!   one, and only then reads the phase.
//! - A change is one Kafka transaction: the next phase record and its entry of the audit trail.

use std::fmt::Debug;
use std::time::Duration;

use axum::serve::Listener;
use tandem_event_log::{
    ConsumeError, GroupConsumer, KafkaConfig, PublishError, Topics, TransactionalPublisher,
};
use tandem_model::PhaseRecord;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::active::{Active, Turn, now_us};
use crate::api::{self, Api};
use crate::auth::Token;
use crate::counters::MetricNames;
use crate::log_state::MappedTable;
use crate::log_watch::{LogWatch, WatchError};
use crate::measurement::Measurements;
use crate::metrics::Metrics;
use crate::order::{Command, Refusal, View};
use crate::policy::Policy;
use crate::record::Serving;
use crate::window::Window;

/// Between two looks at who has the seat.
const LOOK: Duration = Duration::from_millis(100);
/// Before trying again what Kafka did not do.
const PAUSE: Duration = Duration::from_millis(500);
/// Orders that wait.
const ORDERS: usize = 16;

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

/// Why the active controller is no longer that.
pub(crate) enum Ended {
    /// It was told to stop.
    Stopped,
    /// It lost the seat, or what it wrote is not known: wait for the seat again.
    Lost,
    /// Another one took over before this one knew that the seat was lost: join the group anew.
    Fenced,
}

impl Controller {
    /// Serves the API on `listener` and takes its turns as the active controller, until `stop`.
    pub async fn run<L: Listener<Addr: Debug>>(
        self,
        listener: L,
        stop: CancellationToken,
    ) -> Result<(), ControllerError> {
        let (commands, mut orders) = mpsc::channel(ORDERS);
        let (views, view) = watch::channel(View::Standby);
        let api = Api { view, commands, tokens: self.config.tokens.clone(), kafka: self.kafka.clone() };
        let (failing, mut failures) = mpsc::channel(1);
        let serving = api::serve(api, listener, stop.clone());
        let served = tokio::spawn(async move {
            if let Err(error) = serving.await {
                // Without a receiver the controller has ended already.
                let _ = failing.send(error).await;
            }
        });
        let outcome = loop {
            let term = tokio::select! {
                term = self.term(&mut orders, &views, &stop) => term,
                // Without it nobody can give an order or look.
                Some(error) = failures.recv() => break Err(ControllerError::Serve(error)),
            };
            match term {
                Ok(Ended::Stopped) => break Ok(()),
                Ok(Ended::Lost | Ended::Fenced) => {}
                Err(Failure { error, retriable: true }) => {
                    tracing::warn!(%error, "Kafka does not do what the controller needs: trying again");
                }
                Err(Failure { error, retriable: false }) => break Err(error),
            }
            self.stand_by(&views);
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                () = tokio::time::sleep(PAUSE) => {}
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

    /// Waits for the seat, and is the active controller while it has it.
    async fn term(
        &self,
        orders: &mut mpsc::Receiver<Command>,
        views: &watch::Sender<View>,
        stop: &CancellationToken,
    ) -> Result<Ended, Failure> {
        let topics = Topics::new(&self.kafka.prefix);
        let mut seat = Seat {
            consumer: GroupConsumer::start(&self.kafka, &topics.controller_group(), &[topics.audit()])
                .await?,
            topic: topics.audit(),
        };
        let outcome = loop {
            if stop.is_cancelled() {
                break Ok(Ended::Stopped);
            }
            match seat.is_taken(LOOK).await {
                Err(error) => break Err(error.into()),
                Ok(true) => match self.lead(&mut seat, orders, views, stop).await {
                    // The membership is kept: leaving would make the others share the seat anew.
                    Ok(Ended::Lost) => self.stand_by(views),
                    ended => break ended,
                },
                Ok(false) => {}
            }
            while let Ok(command) = orders.try_recv() {
                command.answer(Err(Refusal::Standby));
            }
        };
        self.stand_by(views);
        seat.consumer.close().await;
        outcome
    }

    /// Acts until the seat is lost.
    async fn lead(
        &self,
        seat: &mut Seat,
        orders: &mut mpsc::Receiver<Command>,
        views: &watch::Sender<View>,
        stop: &CancellationToken,
    ) -> Result<Ended, Failure> {
        let topics = Topics::new(&self.kafka.prefix);
        let id = topics.controller_transactional_id();
        let begun = async {
            let publisher = TransactionalPublisher::start(&self.kafka, &id).await?;
            let log = LogWatch::start(&self.kafka, &self.tables).await?;
            Ok::<_, Failure>((publisher, log))
        };
        let (publisher, log) = tokio::select! {
            begun = begun => begun?,
            () = stop.cancelled() => return Ok(Ended::Stopped),
        };
        let first = PhaseRecord { auto: self.config.auto, ..PhaseRecord::default() };
        let record = log.phase().cloned().unwrap_or(first);
        tracing::info!(generation = record.generation, phase = %record.phase, "this is the active controller");
        self.metrics.active.set(1);
        let mut window = Window::new(self.config.window.as_micros() as i64);
        window.begin(record.generation);
        let mut active = Active {
            controller: self,
            publisher,
            log,
            window,
            watched_since_us: now_us(),
            confirmed: Instant::now(),
            measured: Measurements::none("nothing was measured yet"),
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
            if !seat.is_taken(Duration::ZERO).await? {
                tracing::warn!("another controller has the seat");
                if let Some(command) = command {
                    command.answer(Err(Refusal::Standby));
                }
                return Ok(Ended::Lost);
            }
            let turn = tokio::select! {
                turn = active.turn(command, views) => turn?,
                () = stop.cancelled() => return Ok(Ended::Stopped),
            };
            if let Turn::Over(ended) = turn {
                return Ok(ended);
            }
        }
    }
}

/// The partition whose owner is the active controller.
struct Seat {
    consumer: GroupConsumer,
    topic: String,
}

impl Seat {
    /// Whether this controller has it. The records themselves are of no interest here.
    async fn is_taken(&mut self, wait: Duration) -> Result<bool, ConsumeError> {
        let records = self.consumer.next_batch(1000, wait).await?;
        self.consumer.done(&records)?;
        Ok(self.consumer.is_assigned(&self.topic, 0))
    }
}

/// Why a term ended, and whether the next may go better.
pub(crate) struct Failure {
    error: ControllerError,
    retriable: bool,
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
