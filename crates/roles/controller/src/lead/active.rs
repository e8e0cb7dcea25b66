//! The rounds of the active controller. In each round it measures, publishes the state, and follows an order or
//! acts automatically.

use tandem_kafka::{PublishError, TransactionalPublisher};
use tandem_model::{Disposition, PhaseRecord};
use tandem_runtime::now_us;
use tandem_wire::control::{PHASE_KEY, encode_control, encode_phase};
use tandem_wire::log::OutRecord;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{Controller, ControllerError};
use crate::lead::outcome::Ended;
use crate::measure::log_state::Since;
use crate::measure::log_watch::LogWatch;
use crate::measure::presence::KnownGateway;
use crate::measure::window::Window;
use crate::metrics::ActionLabel;
use crate::order::{Command, Order, OrderError, Standing, View};
use tandem_protocol::rollout::Measurements;
use tandem_protocol::rollout::{Action, Reason, audit, next_record};
use tandem_protocol::rollout::{Decision, Outlook, Situation, assess};

/// The author that the audit trail names for automatic actions.
const AUTO: &str = "auto";

/// The outcome of a round.
pub(crate) enum Round {
    Continue,
    /// Another controller is, or may be, the active one.
    Over(Ended),
}

/// The state of the active controller.
pub(crate) struct Active<'a> {
    pub(crate) controller: &'a Controller,
    pub(crate) publisher: TransactionalPublisher,
    pub(crate) log: LogWatch,
    pub(crate) window: Window,
    pub(crate) watched_since_us: i64,
    /// When Kafka last confirmed that this record is the newest.
    pub(crate) confirmed: Instant,
    pub(crate) measured: Measurements,
    /// Why the log was not measured in the last round, if it was not.
    pub(crate) unmeasured: Option<String>,
    /// The gateways as of the last round that measured the log.
    pub(crate) gateways: Vec<KnownGateway>,
    pub(crate) record: PhaseRecord,
}

impl Active<'_> {
    /// Runs one round: measures, publishes the state, and follows the order or acts automatically.
    pub(crate) async fn round(
        &mut self,
        command: Option<Command>,
        views: &watch::Sender<View>,
    ) -> Result<Round, ControllerError> {
        self.measure().await?;
        if self.log.phase().is_some_and(|seen| seen.supersedes(&self.record)) {
            tracing::warn!("a newer phase record exists: another controller is the active one");
            if let Some(command) = command {
                command.answer(Err(OrderError::Standby));
            }
            return Ok(Round::Over(Ended::Fenced));
        }
        // A requester that timed out was told that the outcome is unknown. Its order must not take effect later.
        let command = command.filter(|command| !command.reply.is_closed());
        let outlook = self.show(views);
        let (action, reason, reply) = match command {
            Some(command) => match ordered_action(&command, &self.record, &outlook) {
                Ok(action) => {
                    let Command { by, reason, reply, .. } = command;
                    (action, Reason { by, reason }, Some(reply))
                }
                Err(refusal) => {
                    command.answer(Err(refusal));
                    return Ok(Round::Continue);
                }
            },
            None => match automatic_action(&outlook) {
                Some((action, reason)) => (action, reason, None),
                None => return Ok(Round::Continue),
            },
        };
        let written = self.write(action, &reason, &outlook).await;
        let (round, answer) = match written {
            Ok(()) => {
                // The measurements belong to the previous stage.
                self.measured = Measurements::none("the stage has only just begun");
                self.show(views);
                (Round::Continue, Ok(views.borrow().standing()))
            }
            Err(PublishError::Fenced { .. }) => {
                tracing::warn!("another controller has taken over; nothing was changed");
                (Round::Over(Ended::Fenced), Err(OrderError::Standby))
            }
            Err(error @ (PublishError::Aborted { .. } | PublishError::Rejected { .. })) => {
                tracing::warn!(%error, "the phase was not changed");
                (Round::Continue, Err(OrderError::NotWritten(error.to_string())))
            }
            Err(error) => {
                tracing::warn!(%error, "it is unknown whether the phase was changed: reading it again");
                (Round::Over(Ended::Lost), Err(OrderError::Unknown(error.to_string())))
            }
        };
        if matches!(round, Round::Over(_)) {
            views.send_replace(View::Standby);
        }
        if let Some(reply) = reply {
            let _ = reply.send(answer);
        }
        Ok(round)
    }

    /// Measures once. While Kafka does not answer, nothing is known.
    async fn measure(&mut self) -> Result<(), ControllerError> {
        let config = &self.controller.config;
        let now = now_us();
        let mut all = Measurements::none("it was not measured in this round");
        let since = Since {
            offset: self.record.mismatches_from,
            seen_us: now.saturating_sub(config.window.as_micros() as i64),
        };
        match self.log.measure(now, since, &mut all).await {
            Ok(()) => {
                self.gateways = self.log.presence().gateways(Instant::now());
                let pages = self.log.presence().pages(Instant::now());
                self.window.measure(now, self.record.generation, pages, &mut all);
                if self.unmeasured.take().is_some() {
                    tracing::info!("the log is measured again");
                }
                self.confirmed = Instant::now();
            }
            Err(error) => match error.retry() {
                Disposition::Retry => {
                    self.controller.metrics.failed_rounds.inc();
                    let cause = error.to_string();
                    if self.unmeasured.as_ref() != Some(&cause) {
                        tracing::warn!(%error, "the log was not measured: trying again");
                    }
                    all = Measurements::none(&cause);
                    self.unmeasured = Some(cause);
                }
                Disposition::Stop | Disposition::Refuse => return Err(error.into()),
            },
        }
        self.measured = all;
        Ok(())
    }

    /// Publishes the state of the migration to the API and the metrics.
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
                gateways: self.gateways.clone(),
                confirmed: self.confirmed,
                at_us: situation.now_us,
            }
            .into(),
        ));
        outlook
    }

    /// Writes a change in one Kafka transaction, so that all of it is written or nothing.
    async fn write(
        &mut self,
        action: Action,
        reason: &Reason,
        outlook: &Outlook,
    ) -> Result<(), PublishError> {
        let controller = self.controller;
        let next = {
            let serving = &controller.config.serving;
            next_record(serving, &self.record, action, reason, now_us(), self.log.mismatches_end())
        };
        let gates = outlook.gates.iter().chain(&outlook.rollback);
        let entry = audit(&self.record, &next, action, &self.measured, gates);
        let entry = encode_control(&entry).map_err(|error| PublishError::Finish(error.into()))?;
        let topics = controller.kafka.topics();
        let records = vec![
            OutRecord::control(topics.control(), PHASE_KEY.to_vec(), encode_phase(&next)),
            OutRecord::control(topics.audit(), next.generation.to_string().into_bytes(), entry),
        ];
        self.publisher.publish(records, |_| Ok(Vec::new())).await?;
        tracing::info!(
            generation = next.generation,
            action = action.name(),
            phase = %next.phase,
            percent = next.cohort.percent,
            by = reason.by,
            reason = reason.reason,
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

/// The automatic action that the outlook decides on, and its reason.
fn automatic_action(outlook: &Outlook) -> Option<(Action, Reason)> {
    let (action, reason) = match outlook.decision {
        Decision::Hold => return None,
        Decision::Forward(stage) => {
            let gates: Vec<&str> = outlook.gates.iter().map(|gate| gate.name.as_str()).collect();
            let held = outlook.held.as_secs_f64();
            (Action::Advance(stage), format!("held for {held:.1} s; met: {}", gates.join(", ")))
        }
        Decision::Back(stage) => {
            let failing = outlook.rollback.iter().filter(|gate| gate.met).map(ToString::to_string);
            (Action::Back(stage), failing.collect::<Vec<_>>().join("; "))
        }
    };
    Some((action, Reason { by: AUTO.to_owned(), reason }))
}

/// The action of an order, or why it is rejected.
fn ordered_action(command: &Command, record: &PhaseRecord, outlook: &Outlook) -> Result<Action, OrderError> {
    if let Some(expected) = command.generation.filter(|expected| *expected != record.generation) {
        return Err(OrderError::OtherGeneration { expected, found: record.generation });
    }
    match command.order {
        Order::Advance => match outlook.may_advance() {
            Ok(stage) => Ok(Action::Advance(stage)),
            Err(obstacles) => Err(OrderError::Obstacles(outlook.next, obstacles.to_vec())),
        },
        Order::Back => outlook.previous.map(Action::Back).ok_or(OrderError::First),
        Order::Pause => Ok(Action::Pause),
        Order::Resume => Ok(Action::Resume),
        Order::Auto(on) => Ok(Action::Auto(on)),
    }
}
