//! Orders to the active controller, and how it stands.

use std::sync::Arc;
use std::time::Duration;

use tandem_model::PhaseRecord;
use tokio::sync::oneshot;
use tokio::time::Instant;

use tandem_protocol::rollout::Measurements;
use tandem_protocol::rollout::Stage;
use tandem_protocol::rollout::{Obstacle, Outlook};

/// So long after Kafka last said that a phase holds, it may be another: below the time after which the
/// group gives the seat of a controller that was stopped to the next (6 s after its last heartbeat, of
/// which there is one a second).
const CONFIRMED: Duration = Duration::from_secs(4);

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Advance,
    Back,
    Pause,
    Resume,
    Auto(bool),
}

/// An order, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) order: Order,
    /// The generation that the order is about; none: whichever holds.
    pub(crate) generation: Option<u64>,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) reply: oneshot::Sender<Result<Option<Arc<Standing>>, Refusal>>,
}

impl Command {
    /// Who asked may be gone.
    pub(crate) fn answer(self, answer: Result<Option<Arc<Standing>>, Refusal>) {
        let _ = self.reply.send(answer);
    }
}

/// Why an order was not followed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    /// Another controller is the active one.
    Standby,
    /// What stands in the way of the next stage.
    Obstacles(Option<Stage>, Vec<Obstacle>),
    /// Nothing lies before the first stage.
    First,
    /// The order is about another generation.
    OtherGeneration { expected: u64, found: u64 },
    /// Kafka did not take the change.
    NotWritten(String),
    /// Whether Kafka took the change is not known yet.
    Unknown(String),
}

/// How the migration stands.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) record: PhaseRecord,
    pub(crate) outlook: Outlook,
    pub(crate) measured: Measurements,
    /// When Kafka last said that this record is the newest.
    pub(crate) confirmed: Instant,
    pub(crate) at_us: i64,
}

/// What this controller knows of the migration.
#[derive(Debug, Clone)]
pub(crate) enum View {
    /// Nothing: it waits for its turn.
    Standby,
    /// Everything.
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
    /// Whether Kafka has said so lately. After a while of silence another controller may have taken
    /// over.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.elapsed() < CONFIRMED
    }
}
