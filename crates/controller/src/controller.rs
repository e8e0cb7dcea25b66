//! The executor: which controller is the active one, and what the active one does.
//!
//! - One partition of the audit topic, in a consumer group of all controllers, is the seat: whoever
//!   has it is the active one.
//! - That alone would let a controller that was stopped for a while write when it goes on. So each
//!   one that takes the seat starts a transactional publisher under one id, which fences every older
//!   one, and only then reads the phase.
//! - A change is one Kafka transaction: the next phase record and its entry of the audit trail.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tandem_event_log::{
    ConsumeError, GroupConsumer, KafkaConfig, OutRecord, PublishError, Topics, TransactionalPublisher,
};
use tandem_model::{PhaseRecord, TableName};
use tandem_wire::control::{PHASE_KEY, encode_control, encode_phase};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};
use crate::auth::Token;
use crate::counters::MetricNames;
use crate::log_watch::{LogWatch, WatchError};
use crate::measurement::Measurements;
use crate::metrics::{ActionLabel, Metrics};
use crate::order::{Command, Order, Refusal, Standing, View};
use crate::plan::{Decision, Outlook, Situation, assess};
use crate::policy::Policy;
use crate::record::{Action, Reason, Serving, audit, next_record};
use crate::scrape::scrape;
use crate::window::Window;

/// Who the audit trail names where the controller acts by itself.
const AUTO: &str = "auto";
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
    /// The log cannot be read.
    #[error("the controller cannot read the log: {0}")]
    Log(String),
}

/// A controller, active or waiting to be.
pub struct Controller {
    /// The log.
    pub kafka: KafkaConfig,
    /// The migrated tables.
    pub tables: Vec<TableName>,
    /// How it works.
    pub config: ControllerConfig,
    /// What it tells about itself.
    pub metrics: Metrics,
}

/// Why the active controller is no longer that.
enum Ended {
    /// It was told to stop.
    Stopped,
    /// It lost the seat, or what it wrote is not known: wait for the seat again.
    Lost,
    /// Another one took over before this one knew that the seat was lost: join the group anew.
    Fenced,
}

impl Controller {
    /// Serves the API on `listener` and takes its turns as the active controller, until `stop`.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> Result<(), ControllerError> {
        let (commands, mut orders) = mpsc::channel(ORDERS);
        let (views, view) = watch::channel(View::Standby);
        let api = Api { view, commands, tokens: self.config.tokens.clone(), kafka: self.kafka.clone() };
        let served = tokio::spawn(api::serve(api, listener, stop.clone()));
        let outcome = loop {
            match self.term(&mut orders, &views, &stop).await {
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

/// What a turn came to.
enum Turn {
    Next,
    /// Another controller is the active one, or may be.
    Over(Ended),
}

/// The active controller's knowledge.
struct Active<'a> {
    controller: &'a Controller,
    publisher: TransactionalPublisher,
    log: LogWatch,
    window: Window,
    watched_since_us: i64,
    /// When Kafka last said that this record is the newest.
    confirmed: Instant,
    measured: Measurements,
    record: PhaseRecord,
}

impl Active<'_> {
    /// Measures, shows how things stand, and does what is ordered or what is to do.
    async fn turn(&mut self, command: Option<Command>, views: &watch::Sender<View>) -> Result<Turn, Failure> {
        self.measure().await?;
        if self.log.phase().is_some_and(|seen| seen.generation > self.record.generation) {
            tracing::warn!("a newer phase record is there: another controller is the active one");
            if let Some(command) = command {
                command.answer(Err(Refusal::Standby));
            }
            return Ok(Turn::Over(Ended::Fenced));
        }
        let outlook = self.show(views);
        let (action, reason, reply) = match command {
            Some(command) => match ordered(&command, &self.record, &outlook) {
                Ok(action) => {
                    let Command { by, why, reply, .. } = command;
                    (action, Reason { by, why }, Some(reply))
                }
                Err(refusal) => {
                    command.answer(Err(refusal));
                    return Ok(Turn::Next);
                }
            },
            None => match by_oneself(&outlook) {
                Some((action, reason)) => (action, reason, None),
                None => return Ok(Turn::Next),
            },
        };
        let written = self.write(action, &reason, &outlook).await;
        let (turn, answer) = match written {
            Ok(()) => {
                // What was measured is of the place before.
                self.measured = Measurements::none("the migration has only just come here");
                self.show(views);
                (Turn::Next, Ok(views.borrow().standing()))
            }
            Err(PublishError::Fenced { .. }) => {
                tracing::warn!("another controller has taken over; nothing was changed");
                (Turn::Over(Ended::Fenced), Err(Refusal::Standby))
            }
            Err(error @ (PublishError::Aborted { .. } | PublishError::Rejected { .. })) => {
                tracing::warn!(%error, "the phase was not changed");
                (Turn::Next, Err(Refusal::NotWritten(error.to_string())))
            }
            Err(error) => {
                tracing::warn!(%error, "whether the phase was changed is not known: looking again");
                (Turn::Over(Ended::Lost), Err(Refusal::Unknown(error.to_string())))
            }
        };
        if matches!(turn, Turn::Over(_)) {
            views.send_replace(View::Standby);
        }
        if let Some(reply) = reply {
            let _ = reply.send(answer);
        }
        Ok(turn)
    }

    /// One round of measuring. While Kafka does not answer, what it would say is not measured.
    async fn measure(&mut self) -> Result<(), Failure> {
        let config = &self.controller.config;
        let now = now_us();
        let mut all = Measurements::none("it was not measured in this round");
        let (log, pages) =
            tokio::join!(self.log.measure(now, &mut all), scrape(&config.gateways, &config.metric_names));
        match log {
            Ok(()) => self.confirmed = Instant::now(),
            Err(error) if error.is_retriable() => {
                self.controller.metrics.failed_rounds.inc();
                all = Measurements::none(&error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        self.window.measure(now, self.record.generation, pages, &mut all);
        self.measured = all;
        Ok(())
    }

    /// How things stand, for everybody to see.
    fn show(&self, views: &watch::Sender<View>) -> Outlook {
        let situation = Situation {
            record: &self.record,
            measured: &self.measured,
            watched_since_us: self.watched_since_us,
            now_us: now_us(),
        };
        let outlook = assess(&self.controller.config.policy, situation);
        self.controller.metrics.generation.set(self.record.generation as i64);
        self.controller.metrics.show(&outlook);
        views.send_replace(View::Active(
            Standing {
                record: self.record.clone(),
                outlook: outlook.clone(),
                measured: self.measured.clone(),
                confirmed: self.confirmed,
                at_us: situation.now_us,
            }
            .into(),
        ));
        outlook
    }

    /// Writes a change: all of it or nothing.
    async fn write(
        &mut self,
        action: Action,
        reason: &Reason,
        outlook: &Outlook,
    ) -> Result<(), PublishError> {
        let controller = self.controller;
        let next = next_record(&controller.config.serving, &self.record, action, reason, now_us());
        let gates = outlook.gates.iter().chain(&outlook.step_back);
        let entry = audit(&self.record, &next, action, &self.measured, gates);
        let entry = encode_control(&entry).map_err(|error| PublishError::Finish(error.into()))?;
        let topics = Topics::new(&controller.kafka.prefix);
        let record = |topic: String, key: Vec<u8>, value| OutRecord {
            topic: topic.into(),
            partition: 0,
            key,
            value: Some(value),
            version: None,
            timestamp_ms: None,
        };
        let records = vec![
            record(topics.control(), PHASE_KEY.to_vec(), encode_phase(&next)),
            record(topics.audit(), next.generation.to_string().into_bytes(), entry),
        ];
        self.publisher.publish(records, |_| Ok(Vec::new())).await?;
        tracing::info!(
            generation = next.generation,
            action = action.name(),
            phase = %next.phase,
            percent = next.cohort.percent,
            by = reason.by,
            why = reason.why,
            "the phase was changed"
        );
        controller.metrics.actions.get_or_create(&ActionLabel { action: action.name() }).inc();
        if matches!(action, Action::Advance(_) | Action::Back(_)) {
            self.window.begin(next.generation);
        }
        self.confirmed = Instant::now();
        self.record = next;
        Ok(())
    }
}

/// What to do by oneself, and why.
fn by_oneself(outlook: &Outlook) -> Option<(Action, Reason)> {
    let (action, why) = match outlook.decision {
        Decision::Hold => return None,
        Decision::Forward(place) => {
            let gates: Vec<&str> = outlook.gates.iter().map(|gate| gate.name.as_str()).collect();
            let held = outlook.held.as_secs_f64();
            (Action::Advance(place), format!("held for {held:.1} s; met: {}", gates.join(", ")))
        }
        Decision::Back(place) => {
            let failing = outlook.step_back.iter().filter(|gate| gate.met).map(ToString::to_string);
            (Action::Back(place), failing.collect::<Vec<_>>().join("; "))
        }
    };
    Some((action, Reason { by: AUTO.to_owned(), why }))
}

/// What an order comes to.
fn ordered(command: &Command, record: &PhaseRecord, outlook: &Outlook) -> Result<Action, Refusal> {
    if let Some(expected) = command.generation.filter(|expected| *expected != record.generation) {
        return Err(Refusal::OtherGeneration { expected, found: record.generation });
    }
    match command.order {
        Order::Advance => match outlook.may_advance() {
            Ok(place) => Ok(Action::Advance(place)),
            Err(obstacles) => Err(Refusal::Obstacles(outlook.next, obstacles.to_vec())),
        },
        Order::Back => outlook.previous.map(Action::Back).ok_or(Refusal::First),
        Order::Pause => Ok(Action::Pause),
        Order::Resume => Ok(Action::Resume),
        Order::Auto(on) => Ok(Action::Auto(on)),
    }
}

/// Why a term ended, and whether the next may go better.
struct Failure {
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

pub(crate) fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}
