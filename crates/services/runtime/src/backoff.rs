//! Pauses between attempts.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Exponential pauses with jitter between attempts that may go on for ever.
///
/// ```
/// use std::time::Duration;
/// use tandem_runtime::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
/// assert!(backoff.next() >= Duration::from_millis(200));
/// // After a success the pauses begin anew.
/// backoff.reset();
/// ```
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// The pauses grow from `first` to `longest`, each up to doubled by jitter while it grows.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let builder = ExponentialBuilder::default()
            .with_min_delay(first)
            .with_max_delay(longest)
            .with_jitter()
            .without_max_times();
        Self { builder, pauses: builder.build(), longest }
    }

    /// The next pause, at most twice the longest one.
    #[expect(clippy::should_implement_trait, reason = "the pauses never end, so this is no iterator")]
    pub fn next(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.longest)
    }

    /// Waits for the next pause.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// Begins again with the first pause.
    pub fn reset(&mut self) {
        self.pauses = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_begin_anew() {
        let (first, longest) = (Duration::from_millis(10), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        let pauses: Vec<Duration> = (0..100).map(|_| backoff.next()).collect();
        assert!(pauses.iter().all(|pause| (first..=2 * longest).contains(pause)), "{pauses:?}");
        assert!(pauses[99] >= longest);
        backoff.reset();
        assert!(backoff.next() <= 2 * first);
    }
}
