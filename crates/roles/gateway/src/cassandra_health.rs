//! A circuit breaker for requests to Cassandra.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Consecutive failures that open the circuit.
const MAX_FAILURES: u32 = 5;
/// How long the circuit stays open before one request probes Cassandra.
const OPEN_FOR: Duration = Duration::from_secs(1);

/// Counts consecutive failures. While Cassandra is down, only one request a second waits for it.
#[derive(Debug, Default)]
pub(crate) struct CassandraHealth(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    until: Option<Instant>,
}

impl CassandraHealth {
    /// Whether to send a request now. While the circuit is open, this is true for one caller every [`OPEN_FOR`].
    pub(crate) fn ask(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                state.until = Some(now + OPEN_FOR);
                true
            }
        }
    }

    /// Records whether Cassandra answered.
    pub(crate) fn note(&self, answered: bool, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            *state = State::default();
        } else {
            state.failures = state.failures.saturating_add(1);
            if state.failures >= MAX_FAILURES {
                state.until = Some(now + OPEN_FOR);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_probes_an_open_circuit() {
        let (health, start) = (CassandraHealth::default(), Instant::now());
        for _ in 0..MAX_FAILURES {
            assert!(health.ask(start));
            health.note(false, start);
        }
        assert!(!health.ask(start));
        let later = start + OPEN_FOR;
        assert!(health.ask(later) && !health.ask(later));
        health.note(true, later);
        assert!(health.ask(later) && health.ask(later));
        health.note(false, later);
        assert!(health.ask(later));
    }
}
