//! When to try again, and saying so once.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Failure;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Pauses that double up to 2 seconds; each is cut by a random part of up to a half, so that many
/// writers do not come back at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST_PAUSE }
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }

    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }
}

/// Tries `request` until it succeeds, fails for good, or `patience` is over.
pub(crate) async fn bounded<T, F>(patience: Duration, mut request: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let deadline = Instant::now() + patience;
    let mut backoff = Backoff::new();
    loop {
        match request().await {
            Err(Failure::Transient(_)) if Instant::now() < deadline => backoff.pause().await,
            outcome => return outcome,
        }
    }
}

/// How many writes are being retried, over all writers of one target: trouble is reported when the
/// first one begins and when the last one is over.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    retrying: AtomicUsize,
}

impl Trouble {
    /// One more write has failed and will be tried again. Dropping the guard without
    /// [`Retrying::recovered`] (the writer was cancelled) says nothing.
    pub(crate) fn begin(&self, cause: &str) -> Retrying<'_> {
        if self.retrying.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(cause, "Cassandra does not take writes; retrying until it does");
        }
        Retrying { trouble: self, recovered: false }
    }
}

/// A write that is being retried.
#[derive(Debug)]
pub(crate) struct Retrying<'a> {
    trouble: &'a Trouble,
    recovered: bool,
}

impl Retrying<'_> {
    /// The write has been taken.
    pub(crate) fn recovered(mut self) {
        self.recovered = true;
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        if self.trouble.retrying.fetch_sub(1, Ordering::Relaxed) == 1 && self.recovered {
            tracing::info!("Cassandra takes writes again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new();
        let mut expected = FIRST_PAUSE;
        for _ in 0..20 {
            let pause = backoff.next_pause();
            assert!(pause <= expected && pause * 2 >= expected);
            expected = (expected * 2).min(LONGEST_PAUSE);
        }
    }

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
