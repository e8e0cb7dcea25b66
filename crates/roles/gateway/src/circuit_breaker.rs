//! A circuit breaker.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Consecutive failures that open the circuit.
const MAX_FAILURES: u32 = 5;
/// How long the circuit stays open before one request probes it.
const OPEN_FOR: Duration = Duration::from_secs(1);

/// Counts consecutive failures. While something fails, only one request a second waits for it.
///
/// Requests to Cassandra have one, and the waits of reads for their tokens have another one.
#[derive(Debug, Default)]
pub(crate) struct CircuitBreaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    until: Option<Instant>,
}

impl CircuitBreaker {
    /// Whether to try now. While the circuit is open, this is true for one caller every [`OPEN_FOR`].
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

    /// Records whether a try succeeded.
    pub(crate) fn note(&self, succeeded: bool, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if succeeded {
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
        let (circuit, start) = (CircuitBreaker::default(), Instant::now());
        for _ in 0..MAX_FAILURES {
            assert!(circuit.ask(start));
            circuit.note(false, start);
        }
        assert!(!circuit.ask(start));
        let later = start + OPEN_FOR;
        assert!(circuit.ask(later) && !circuit.ask(later));
        circuit.note(true, later);
        assert!(circuit.ask(later) && circuit.ask(later));
        circuit.note(false, later);
        assert!(circuit.ask(later));
    }
}
