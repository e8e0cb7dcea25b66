//! The state of one connection: what it waits for, since when, and until when.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::limits::ConnectionLimits;

/// How long an idle connection is kept although others wait for its place. A client that sends one request after the
/// other keeps its connection.
const IDLE_GRACE: Duration = Duration::from_millis(100);
/// How long a client has for its request although others wait for its place.
const UNANSWERED_GRACE: Duration = Duration::from_secs(1);
/// How long what a client still sends after the last response is discarded.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The client has not sent a byte of its first request. A TLS handshake may be under way.
    Opening,
    /// The client is sending the head of a request.
    Head,
    /// The client is sending the body of a request.
    Body,
    /// The API works on a request.
    Working,
    /// The response is being sent, and the API still has parts of it.
    Responding,
    /// The last part of the response is being sent.
    Flushing,
    /// The client has its response and sends nothing.
    Idle,
    /// The last response is sent, and what the client still sends is discarded.
    Lingering,
    /// The connection gives way to another one.
    Closed,
}

/// How readily a connection is closed to make room for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Expendable {
    /// It has no request.
    Idle,
    /// Its client has not sent a whole request. Nothing was done for it yet.
    Unanswered,
}

/// A connection, as the server and its own task see it.
#[derive(Debug)]
pub(crate) struct Connection {
    state: Mutex<State>,
    closed: CancellationToken,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    since: Instant,
}

impl State {
    /// Whether, and from when on, the connection may be closed to make room. A response is never cut.
    fn expendable(self) -> Option<(Expendable, Instant)> {
        match self.phase {
            Phase::Lingering => Some((Expendable::Idle, self.since)),
            Phase::Idle => Some((Expendable::Idle, self.since + IDLE_GRACE)),
            Phase::Opening | Phase::Head | Phase::Body => {
                Some((Expendable::Unanswered, self.since + UNANSWERED_GRACE))
            }
            Phase::Working | Phase::Responding | Phase::Flushing | Phase::Closed => None,
        }
    }
}

impl Connection {
    pub(crate) fn new() -> Self {
        let state = State { phase: Phase::Opening, since: Instant::now() };
        Self { state: Mutex::new(state), closed: CancellationToken::new() }
    }

    fn with<T>(&self, so: impl FnOnce(&mut State) -> T) -> T {
        so(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes from one of the phases `from` to the phase `to`. Returns whether it did.
    pub(crate) fn step(&self, from: &[Phase], to: Phase) -> bool {
        self.with(|state| {
            if !from.contains(&state.phase) {
                return false;
            }
            // The time for the first head includes the handshake, and that for a response its last part.
            let goes_on = matches!((state.phase, to), (Phase::Opening, Phase::Head) | (_, Phase::Flushing));
            let since = if goes_on { state.since } else { Instant::now() };
            *state = State { phase: to, since };
            true
        })
    }

    /// Goes to the phase `to`, unless the connection was closed. Returns whether it did.
    pub(crate) fn enter(&self, to: Phase) -> bool {
        self.with(|state| {
            let open = state.phase != Phase::Closed;
            if open {
                *state = State { phase: to, since: Instant::now() };
            }
            open
        })
    }

    /// When the connection has waited too long for its client.
    pub(crate) fn deadline(&self, limits: &ConnectionLimits) -> Option<Instant> {
        let State { phase, since } = self.with(|state| *state);
        let limit = match phase {
            Phase::Opening | Phase::Head => limits.header_timeout,
            Phase::Responding | Phase::Flushing => limits.send_timeout,
            Phase::Idle => limits.idle_timeout,
            Phase::Lingering => LINGER_TIMEOUT,
            // Whoever reads the body has a timeout, because it answers.
            Phase::Body | Phase::Working | Phase::Closed => return None,
        };
        Some(since + limit)
    }

    /// Whether, and from when on, the connection may be closed to make room.
    pub(crate) fn expendable(&self) -> Option<(Expendable, Instant)> {
        self.with(|state| state.expendable())
    }

    /// Closes the connection if it may be closed by now to make room. Returns whether it did.
    pub(crate) fn give_way(&self) -> bool {
        self.close_if(|state| state.expendable().is_some_and(|(_, from)| from <= Instant::now()))
    }

    /// Closes the connection unless it has a request.
    pub(crate) fn close_if_without_request(&self) -> bool {
        self.close_if(|state| {
            matches!(state.phase, Phase::Opening | Phase::Head | Phase::Idle | Phase::Lingering)
        })
    }

    fn close_if(&self, so: impl FnOnce(State) -> bool) -> bool {
        let closes = self.with(|state| {
            let closes = so(*state);
            if closes {
                state.phase = Phase::Closed;
            }
            closes
        });
        if closes {
            self.closed.cancel();
        }
        closes
    }

    /// Whether the connection was closed by another task.
    pub(crate) fn is_closed(&self) -> bool {
        self.with(|state| state.phase == Phase::Closed)
    }

    /// Waits until the connection is closed by another task.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_response_is_never_cut_and_all_else_has_a_grace() {
        let connection = Connection::new();
        assert!(!connection.give_way());
        for phase in [Phase::Working, Phase::Responding, Phase::Flushing] {
            connection.enter(phase);
            tokio::time::advance(Duration::from_hours(1)).await;
            assert!(!connection.give_way(), "{phase:?}");
        }
        for (phase, grace, class) in [
            (Phase::Idle, IDLE_GRACE, Expendable::Idle),
            (Phase::Opening, UNANSWERED_GRACE, Expendable::Unanswered),
            (Phase::Head, UNANSWERED_GRACE, Expendable::Unanswered),
            (Phase::Body, UNANSWERED_GRACE, Expendable::Unanswered),
        ] {
            let connection = Connection::new();
            connection.enter(phase);
            assert_eq!(connection.expendable(), Some((class, Instant::now() + grace)));
            tokio::time::advance(grace.saturating_sub(Duration::from_millis(1))).await;
            assert!(!connection.give_way(), "{phase:?}");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(connection.give_way(), "{phase:?}");
            // A request that comes now is not executed.
            assert!(!connection.enter(Phase::Working));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_for_the_client_ends() {
        let limits = ConnectionLimits::default();
        let connection = Connection::new();
        let opened = Instant::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(connection.step(&[Phase::Opening, Phase::Idle], Phase::Head));
        assert_eq!(connection.deadline(&limits), Some(opened + limits.header_timeout));
        connection.enter(Phase::Working);
        assert_eq!(connection.deadline(&limits), None);
        connection.enter(Phase::Responding);
        let responding = Instant::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        connection.step(&[Phase::Responding], Phase::Flushing);
        assert_eq!(connection.deadline(&limits), Some(responding + limits.send_timeout));
        connection.enter(Phase::Idle);
        assert_eq!(connection.deadline(&limits), Some(Instant::now() + limits.idle_timeout));
        connection.step(&[Phase::Opening, Phase::Idle], Phase::Head);
        assert_eq!(connection.deadline(&limits), Some(Instant::now() + limits.header_timeout));
    }
}
