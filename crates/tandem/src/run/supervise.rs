//! Keeps the roles of one process running.
//!
//! - A role that ends with an error or a panic is started again, with growing pauses. The other roles go on. Nothing is
//!   lost by a restart: each role resumes from what it has acknowledged, as after a kill -9.
//! - The failure is visible at once: in the log with its remedy, in `/readyz`, and in the metrics.
//! - A first start that cannot be made ends the process, for example because an address is in use. `retry_start` exempts
//!   the roles that wait for another one. A role that has started and then fails is started again, even if it fails at once.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tandem_runtime::Backoff;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::remedy;
use crate::role::Role;
use crate::run::role_states::RoleStates;

/// The first and the longest pause before a role is started again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// After a role has run for this long, its pauses start again with the first one.
const SETTLED: Duration = Duration::from_mins(2);

/// How long a role that was down must run until it counts as running.
const PROBATION: Duration = Duration::from_secs(5);

/// How often a role that stays down is reported again with the same cause.
const REPORT_EVERY: Duration = Duration::from_mins(10);

/// How long the rest of a unit may take to finish its work in progress.
const GRACE: Duration = Duration::from_secs(20);

/// A role and what it does until it ends.
pub(crate) type Work = (Role, BoxFuture<'static, Result<()>>);

/// Roles that are started and restarted together, because they share what they follow.
pub(crate) struct Unit<'a> {
    pub(crate) roles: Vec<Role>,
    /// Starts the roles. They end when the token is cancelled.
    pub(crate) start: Box<dyn Fn(CancellationToken) -> BoxFuture<'a, Result<Vec<Work>>> + Send + Sync + 'a>,
    /// Whether a first start that fails is tried again, instead of ending the process.
    pub(crate) retry_start: bool,
}

/// Runs a unit until `stop`, or until each of its roles has nothing left to do. `alone` says that the process has no other
/// role: nothing is started again then.
///
/// # Errors
///
/// Fails if the first start fails, if a role fails while it is being stopped, or if a role fails that is alone.
pub(crate) async fn supervise(
    unit: Unit<'_>,
    alone: bool,
    states: &RoleStates,
    stop: &CancellationToken,
) -> Result<()> {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut reported: Option<(String, Instant)> = None;
    let mut first = !unit.retry_start;
    loop {
        let began = Instant::now();
        let (role, error) = match attempt(&unit, states, stop).await {
            Attempt::Ended => return Ok(()),
            Attempt::NotStarted(error) if first || alone => return Err(error),
            Attempt::NotStarted(error) => (None, error),
            Attempt::Failed(role, error) => (Some(role), error),
        };
        first = false;
        if alone || stop.is_cancelled() {
            return Err(error);
        }
        if began.elapsed() > SETTLED {
            backoff.reset();
            reported = None;
        }
        let pause = backoff.next();
        let cause = format!("{error:#}");
        for one in &unit.roles {
            let cause = match role {
                Some(role) if role != *one => format!("{role} ended, which it runs with"),
                _ => cause.clone(),
            };
            states.down(*one, &cause, pause);
        }
        let repeated =
            reported.as_ref().is_some_and(|(known, at)| *known == cause && at.elapsed() < REPORT_EVERY);
        if !repeated {
            let roles: Vec<String> = unit.roles.iter().map(ToString::to_string).collect();
            tracing::error!(
                roles = roles.join(", "),
                error = cause,
                remedy = remedy::of(&error),
                next_try_seconds = pause.as_secs_f64(),
                "ended, and is started again"
            );
            reported = Some((cause, Instant::now()));
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Ok(()),
        }
        unit.roles.iter().for_each(|role| states.restarted(*role));
    }
}

/// The outcome of one start of a unit.
enum Attempt {
    /// Every role ended because it was asked to, or because nothing is left to do.
    Ended,
    NotStarted(anyhow::Error),
    Failed(Role, anyhow::Error),
}

async fn attempt(unit: &Unit<'_>, states: &RoleStates, stop: &CancellationToken) -> Attempt {
    let stop = stop.child_token();
    let start = AssertUnwindSafe((unit.start)(stop.clone())).catch_unwind();
    let works = match stop.run_until_cancelled(start).await {
        None => return Attempt::Ended,
        Some(Ok(Ok(works))) => works,
        Some(Ok(Err(error))) => return Attempt::NotStarted(error),
        Some(Err(panic)) => return Attempt::NotStarted(panicked(&*panic)),
    };
    // A role that fails again at once has been down all the time.
    let probation = if states.is_down(&unit.roles) { PROBATION } else { Duration::ZERO };
    let mut probation = std::pin::pin!(tokio::time::sleep(probation));
    let mut on_probation: Vec<Role> = works.iter().map(|(role, _)| *role).collect();
    let mut running = JoinSet::new();
    for (role, work) in works {
        running.spawn(async move {
            let ended = AssertUnwindSafe(work).catch_unwind().await;
            (role, ended.unwrap_or_else(|panic| Err(panicked(&*panic))))
        });
    }
    let mut failed = None;
    loop {
        let joined = tokio::select! {
            biased;
            joined = running.join_next() => joined,
            () = &mut probation, if !on_probation.is_empty() => {
                for role in on_probation.drain(..) {
                    tracing::info!(%role, "runs");
                    states.running(role);
                }
                continue;
            }
        };
        let Some(joined) = joined else { break };
        // The task catches panics, and nobody aborts it.
        let Ok((role, ended)) = joined else { continue };
        on_probation.retain(|other| *other != role);
        match ended {
            Ok(()) if stop.is_cancelled() => {}
            // Alone, it ends when every row is copied.
            Ok(()) if role == Role::Backfill => states.done(role),
            Ok(()) => failed = failed.or(Some((role, anyhow!("it ended unexpectedly")))),
            Err(error) => failed = failed.or(Some((role, error))),
        }
        if let Some((role, error)) = &failed
            && !stop.is_cancelled()
        {
            states.down(*role, &format!("{error:#}"), Duration::ZERO);
            stop.cancel();
            // The rest finishes its work in progress. What it has not acknowledged is done again.
            let rest = async { while running.join_next().await.is_some() {} };
            if tokio::time::timeout(GRACE, rest).await.is_err() {
                running.shutdown().await;
            }
        }
    }
    match failed {
        None => Attempt::Ended,
        Some((role, error)) => Attempt::Failed(role, error.context(format!("{role} stopped"))),
    }
}

/// The error for a panic.
fn panicked(panic: &(dyn std::any::Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    anyhow!("it panicked: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A unit of apply and backfill. `run` says how the start with this number ends, once it has started.
    fn unit(
        retry_start: bool,
        starts: &Arc<AtomicUsize>,
        start: fn(usize) -> Result<()>,
        run: fn(usize) -> Option<Result<()>>,
    ) -> Unit<'static> {
        let starts = Arc::clone(starts);
        let start = move |stop: CancellationToken| -> BoxFuture<'static, Result<Vec<Work>>> {
            let number = starts.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                start(number)?;
                let until_stop = stop.clone();
                let apply: Work = (
                    Role::Apply,
                    Box::pin(async move {
                        let Some(ended) = run(number) else {
                            stop.cancelled().await;
                            return Ok(());
                        };
                        ended
                    }),
                );
                let backfill: Work = (
                    Role::Verify,
                    Box::pin(async move {
                        until_stop.cancelled().await;
                        Ok(())
                    }),
                );
                Ok(vec![apply, backfill])
            })
        };
        Unit { roles: vec![Role::Apply, Role::Verify], start: Box::new(start), retry_start }
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_fails_or_panics_is_started_again() {
        let (starts, states) = (Arc::new(AtomicUsize::new(0)), RoleStates::new(&[Role::Apply, Role::Verify]));
        let unit = unit(
            false,
            &starts,
            |_| Ok(()),
            |number| match number {
                0 => Some(Err(anyhow!("no"))),
                1 => panic!("a bug"),
                2 => Some(Ok(())),
                _ => None,
            },
        );
        let stop = CancellationToken::new();
        let watch = async {
            while starts.load(Ordering::SeqCst) < 4 || !states.not_ready().is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(supervise(unit, false, &states, &stop), watch);
        ended.unwrap();
        assert_eq!(starts.load(Ordering::SeqCst), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn the_cause_is_shown_while_a_role_is_down() {
        let (starts, states) = (Arc::new(AtomicUsize::new(0)), RoleStates::new(&[Role::Apply, Role::Verify]));
        let unit = unit(false, &starts, |_| Ok(()), |_| Some(Err(anyhow!("no node answers"))));
        let stop = CancellationToken::new();
        let watch = async {
            loop {
                let text = states.not_ready();
                if text.contains("apply has been down") {
                    assert!(text.contains("apply stopped: no node answers"), "{text}");
                    assert!(text.contains("apply ended, which it runs with"), "{text}");
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(supervise(unit, false, &states, &stop), watch);
        ended.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_start_that_fails_ends_the_process_unless_it_waits_for_another_role() {
        let (starts, states) = (Arc::new(AtomicUsize::new(0)), RoleStates::new(&[Role::Apply, Role::Verify]));
        let fails = |number: usize| if number == 0 { Err(anyhow!("address in use")) } else { Ok(()) };
        let stop = CancellationToken::new();
        let ended = supervise(unit(false, &starts, fails, |_| None), false, &states, &stop).await;
        assert_eq!(ended.unwrap_err().to_string(), "address in use");

        starts.store(0, Ordering::SeqCst);
        let watch = async {
            while !states.not_ready().is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            stop.cancel();
        };
        let (ended, ()) =
            tokio::join!(supervise(unit(true, &starts, fails, |_| None), false, &states, &stop), watch);
        ended.unwrap();
        assert_eq!(starts.load(Ordering::SeqCst), 2);
    }
}
