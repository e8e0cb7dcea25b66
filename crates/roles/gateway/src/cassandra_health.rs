//! Whether Cassandra is worth asking.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which it is left alone.
const FAILURES: u32 = 5;
/// For how long; then one request tries.
const REST: Duration = Duration::from_secs(1);

/// Counts failures in a row. While Cassandra is down nobody waits for it but one request a second.
#[derive(Debug, Default)]
pub(crate) struct CassandraHealth(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    until: Option<Instant>,
}

impl CassandraHealth {
    /// Whether to ask it now. True for one caller at the end of each rest.
    pub(crate) fn ask(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                state.until = Some(now + REST);
                true
            }
        }
    }

    /// It answered, or not.
    pub(crate) fn note(&self, answered: bool, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            *state = State::default();
        } else {
            state.failures = state.failures.saturating_add(1);
            if state.failures >= FAILURES {
                state.until = Some(now + REST);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_a_rest_tries() {
        let (health, start) = (CassandraHealth::default(), Instant::now());
        for _ in 0..FAILURES {
            assert!(health.ask(start));
            health.note(false, start);
        }
        assert!(!health.ask(start));
        let later = start + REST;
        assert!(health.ask(later) && !health.ask(later));
        health.note(true, later);
        assert!(health.ask(later) && health.ask(later));
        health.note(false, later);
        assert!(health.ask(later));
    }
}
