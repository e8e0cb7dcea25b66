//! Brings back a client that has no broker left.
//!
//! A metadata response may name no broker, for example while the only broker of a cluster is fenced after a pause.
//! librdkafka 2.10 to 2.13 then drops every broker that it knows. It connects to the bootstrap brokers once more, and drops
//! those at the next such response. After that it asks nobody any more, stays disconnected for ever, and reports no error
//! (confluentinc/librdkafka#5301).
//!
//! So a client that makes no progress is given its bootstrap brokers again. That does no harm to one that is connected: the
//! next metadata response drops them.

use std::ffi::CString;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::bindings::rd_kafka_brokers_add;
use rdkafka::client::Client;

use crate::connect::health::Health;

/// How long a client makes no progress before it is given its bootstrap brokers, and the longest pause until it is given
/// them again. librdkafka keeps a copy of the list each time.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));

/// The context of a client that is kept connected.
pub(crate) trait Watched: ClientContext {
    /// The client's health.
    fn health(&self) -> &Health;
}

/// Notes that a client waits for an answer and has none. Gives it its bootstrap brokers if it has waited for a while.
pub(crate) fn no_progress<C: Watched>(client: &Client<C>) {
    if client.context().health().bootstrap.is_due(Instant::now()) {
        rebootstrap(client);
    }
}

/// Gives a client its bootstrap brokers again.
#[expect(unsafe_code, reason = "rdkafka has no safe wrapper of this function of librdkafka")]
pub(crate) fn rebootstrap<C: Watched>(client: &Client<C>) {
    let Some(brokers) = &client.context().health().bootstrap.brokers else { return };
    tracing::debug!("Kafka does not answer a client: it is given its bootstrap brokers again");
    // SAFETY: the pointer is that of a live client, because `client` is borrowed, and the text ends with a zero byte.
    // librdkafka locks what it changes, and copies the text.
    unsafe {
        rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr());
    }
}

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

    /// Whether the client has made no progress for long enough. The pause then doubles.
    fn is_due(&self, now: Instant) -> bool {
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
