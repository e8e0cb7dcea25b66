//! When a client that makes no progress is given its bootstrap brokers again ([`crate::connect::rebootstrap`]).

use std::ffi::{CStr, CString};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a client makes no progress before it is given its bootstrap brokers, and the longest pause until it is given
/// them again. librdkafka keeps a copy of the list each time.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));

/// A client's bootstrap brokers, and when it is given them next.
#[derive(Debug)]
pub(crate) struct Bootstrap {
    /// `None` if the list has a zero byte. No such client can be created.
    brokers: Option<CString>,
    /// When the brokers are given next, and the pause before that. `None` while the client makes progress.
    next: Mutex<Option<(Instant, Duration)>>,
}

impl Bootstrap {
    pub(crate) fn new(brokers: &str) -> Self {
        Self { brokers: CString::new(brokers).ok(), next: Mutex::default() }
    }

    /// The brokers, as librdkafka takes them.
    pub(crate) fn brokers(&self) -> Option<&CStr> {
        self.brokers.as_deref()
    }

    /// Whether the client has made no progress for long enough. The pause then doubles.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, pause) = *next.get_or_insert((now + PAUSE.0, PAUSE.0));
        let due = now >= at;
        if due {
            let pause = (pause * 2).min(PAUSE.1);
            *next = Some((now + pause, pause));
        }
        due
    }

    /// Notes that the client has made progress.
    pub(crate) fn progress(&self) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_start_again_after_progress() {
        let (bootstrap, begun) = (Bootstrap::new("h:1"), Instant::now());
        let at = |second| begun + Duration::from_secs(second);
        let due: Vec<u64> = (0..200).filter(|second| bootstrap.is_due(at(*second))).collect();
        assert_eq!(due, [2, 6, 14, 30, 62, 122, 182]);
        bootstrap.progress();
        assert!(!bootstrap.is_due(at(200)) && !bootstrap.is_due(at(201)) && bootstrap.is_due(at(202)));
    }
}
