//! Orders to the active controller, and the state of the migration that it publishes.

use std::sync::Arc;
use std::time::Duration;

use tandem_model::PhaseRecord;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::measure::presence::KnownGateway;
use tandem_protocol::rollout::Measurements;
use tandem_protocol::rollout::Stage;
use tandem_protocol::rollout::{Obstacle, Outlook};

/// How long a phase counts as confirmed after Kafka last confirmed it.
///
/// It is shorter than the time after which the consumer group passes the leadership of a paused controller to
/// another one: 6 s after the last heartbeat, with one heartbeat a second.
const CONFIRMED: Duration = Duration::from_secs(4);

/// An operator's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Advance,
    Back,
    Pause,
    Resume,
    Auto(bool),
}

/// An order, and the channel for its answer.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) order: Order,
    /// The generation that the order applies to. `None` means the current one.
    pub(crate) generation: Option<u64>,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) reply: oneshot::Sender<Result<Option<Arc<Standing>>, OrderError>>,
}

impl Command {
    /// Answers the order. The requester may be gone already.
    pub(crate) fn answer(self, answer: Result<Option<Arc<Standing>>, OrderError>) {
        let _ = self.reply.send(answer);
    }
}

/// Why an order was rejected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OrderError {
    /// This controller is a standby.
    Standby,
    /// The next stage, and the obstacles to it.
    Obstacles(Option<Stage>, Vec<Obstacle>),
    /// The first stage has no stage before it.
    First,
    /// The order applies to another generation.
    OtherGeneration { expected: u64, found: u64 },
    /// Kafka did not accept the change.
    NotWritten(String),
    /// It is not known yet whether Kafka accepted the change.
    Unknown(String),
}

/// The state of the migration.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) record: PhaseRecord,
    pub(crate) outlook: Outlook,
    pub(crate) measured: Measurements,
    pub(crate) gateways: Vec<KnownGateway>,
    /// When Kafka last confirmed that this record is the newest.
    pub(crate) confirmed: Instant,
    pub(crate) at_us: i64,
}

/// What this controller knows about the migration.
#[derive(Debug, Clone)]
pub(crate) enum View {
    /// Nothing: this controller is a standby.
    Standby,
    /// The whole state: this controller is the active one.
    Active(Arc<Standing>),
}

impl View {
    pub(crate) fn standing(&self) -> Option<Arc<Standing>> {
        match self {
            Self::Standby => None,
            Self::Active(standing) => Some(Arc::clone(standing)),
        }
    }
}

impl Standing {
    /// Whether Kafka has confirmed the record recently. After a longer silence another controller may have taken
    /// over.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.elapsed() < CONFIRMED
    }
}
