//! Pauses between attempts.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Exponential pauses with jitter, for an unlimited number of attempts.
///
/// ```
/// use std::time::Duration;
/// use tandem_runtime::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
/// assert!(backoff.next() <= Duration::from_millis(200));
/// // After a success the pauses start again.
/// backoff.reset();
/// ```
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// The pauses double from `first` to `longest`. Jitter shortens each by up to a half, so that many clients do
    /// not retry at the same time.
    pub fn new(first: Duration, longest: Duration) -> Self {
        // The jitter of backon lengthens a pause, up to double.
        let builder = ExponentialBuilder::default()
            .with_min_delay(first / 2)
            .with_max_delay(longest / 2)
            .with_jitter()
            .without_max_times();
        Self { builder, pauses: builder.build(), longest }
    }

    /// Returns the next pause, at most the longest one.
    #[expect(clippy::should_implement_trait, reason = "the pauses never end, so this is not an iterator")]
    pub fn next(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.longest)
    }

    /// Waits for the next pause.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// Starts again with the first pause.
    pub fn reset(&mut self) {
        self.pauses = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_start_again_after_reset() {
        let (first, longest) = (Duration::from_millis(10), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        let pauses: Vec<Duration> = (0..100).map(|_| backoff.next()).collect();
        let mut expected = first;
        for pause in &pauses {
            assert!(*pause <= expected && *pause * 2 >= expected, "{pauses:?}");
            expected = (expected * 2).min(longest);
        }
        assert!(pauses.iter().collect::<std::collections::BTreeSet<_>>().len() > 10, "no jitter: {pauses:?}");
        backoff.reset();
        assert!(backoff.next() <= first);
    }
}
