//! Waiting for an event, with a deadline.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// The deadline of most waits. Every event in these tests comes within seconds on an idle machine.
pub(crate) const MINUTE: Duration = Duration::from_mins(1);

/// The time between two probes.
const INTERVAL: Duration = Duration::from_millis(20);

/// The result of one probe.
pub(crate) enum Probe<T = ()> {
    /// The event has happened.
    Done(T),
    /// It has not happened yet. The observed state is for the message if the deadline passes.
    Pending(String),
}

impl Probe {
    /// Done if the condition holds.
    pub(crate) fn when(condition: bool, seen: impl Display) -> Self {
        Probe::some(condition.then_some(()), seen)
    }
}

impl<T> Probe<T> {
    /// Done if there is a value.
    pub(crate) fn some(value: Option<T>, seen: impl Display) -> Self {
        value.map_or_else(|| Self::Pending(seen.to_string()), Self::Done)
    }
}

/// Waits until `probe` is done, and returns its value. The probe runs at least once.
///
/// # Errors
///
/// An error of the probe ends the wait at once. Once the deadline has passed, the error has the event, the
/// time and the state that the last probe saw.
pub(crate) async fn eventually<T>(
    event: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> anyhow::Result<Probe<T>>,
) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        let seen = match probe().await {
            Ok(Probe::Done(value)) => return Ok(value),
            Ok(Probe::Pending(seen)) => seen,
            Err(error) => return Err(error.context(format!("while waiting for {event}"))),
        };
        let waited = began.elapsed();
        anyhow::ensure!(
            waited < deadline,
            "waited {:.1} s for {event}; last seen: {seen}",
            waited.as_secs_f64()
        );
        tokio::time::sleep(INTERVAL).await;
    }
}

#[tokio::test]
async fn an_expired_deadline_reports_the_event_the_time_and_the_last_state() {
    let mut probes = 0;
    let never = eventually("a fourth wheel", Duration::from_millis(50), async || {
        probes += 1;
        Ok(Probe::<()>::Pending(format!("{probes} probes")))
    });
    let error = never.await.unwrap_err().to_string();
    assert!(
        error.starts_with("waited 0.") && error.contains(" s for a fourth wheel; last seen: "),
        "{error}"
    );
    assert!(probes > 1 && error.ends_with(&format!("{probes} probes")), "{error}");

    let mut left = 3;
    let counted = eventually("three probes", MINUTE, async || {
        left -= 1;
        Ok(Probe::some((left == 0).then_some("value"), left))
    });
    assert_eq!(counted.await.unwrap(), "value");

    let failed =
        eventually("a value", MINUTE, async || anyhow::Result::<Probe>::Err(anyhow::anyhow!("broken")));
    assert_eq!(format!("{:#}", failed.await.unwrap_err()), "while waiting for a value: broken");
}
