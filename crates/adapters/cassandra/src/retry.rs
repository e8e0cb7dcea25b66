//! Retries, and the log lines about them.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tandem_runtime::{Backoff, Hold, Waits};
use tokio::time::Instant;

use crate::error::Failure;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The name of the wait while Cassandra does not take writes.
const WAIT: &str = "writes to Cassandra";

/// The pauses between the attempts of a request.
pub(crate) fn backoff() -> Backoff {
    Backoff::new(FIRST_PAUSE, LONGEST_PAUSE)
}

/// Repeats `request` until it succeeds, fails permanently, or `timeout` has passed.
pub(crate) async fn bounded<T, F>(timeout: Duration, mut request: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let deadline = Instant::now() + timeout;
    let mut backoff = backoff();
    loop {
        match request().await {
            Err(Failure::Transient(_)) if Instant::now() < deadline => backoff.pause().await,
            outcome => return outcome,
        }
    }
}

/// Counts the writes that are being retried, over all writers of one target. Logs an outage when the first
/// retry begins, and its end when the last one succeeds. Meanwhile the process waits for Cassandra.
#[derive(Debug)]
pub(crate) struct Outage {
    retrying: AtomicUsize,
    waits: Waits,
}

impl Outage {
    pub(crate) fn reporting_to(waits: &Waits) -> Self {
        Self { retrying: AtomicUsize::new(0), waits: waits.clone() }
    }

    /// Counts one more write that failed and is retried. Dropping the guard without [`Retrying::recovered`]
    /// logs nothing: the writer was cancelled.
    pub(crate) fn begin(&self, cause: &str) -> Retrying<'_> {
        if self.retrying.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(cause, "Cassandra does not take writes; retrying until it does");
        }
        let hold = self.waits.begin(WAIT, cause.to_owned());
        Retrying { outage: self, recovered: false, hold }
    }
}

/// A write that is being retried.
#[derive(Debug)]
pub(crate) struct Retrying<'a> {
    outage: &'a Outage,
    recovered: bool,
    hold: Hold,
}

impl Retrying<'_> {
    /// The write has failed again, and is tried again after `pause`.
    pub(crate) fn failed(&self, cause: String, pause: Duration) {
        self.hold.failed(cause, pause);
    }

    /// Records that the write has succeeded.
    pub(crate) fn recovered(mut self) {
        self.recovered = true;
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        if self.outage.retrying.fetch_sub(1, Ordering::Relaxed) == 1 && self.recovered {
            tracing::info!("Cassandra takes writes again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bounded_retries_end() {
        let mut tries = 0;
        let outcome: Result<(), _> = bounded(Duration::from_millis(100), || {
            tries += 1;
            async { Err(Failure::Transient("down".into())) }
        })
        .await;
        assert_eq!(outcome, Err(Failure::Transient("down".into())));
        assert!(tries > 1);

        let mut tries = 0;
        let outcome = bounded(Duration::from_mins(1), || {
            tries += 1;
            let now = tries;
            async move { if now < 3 { Err(Failure::Transient("down".into())) } else { Ok(now) } }
        })
        .await;
        assert_eq!(outcome, Ok(3));
    }
}
