//! What each role of this process does: for `/readyz`, for the metrics and for the log.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::discriminant;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tandem_runtime::now_us;
use tandem_wire::control::ProcessRole;

use crate::role::Role;

/// The state of a role.
#[derive(Debug, Clone)]
enum RoleState {
    Starting,
    Running,
    /// It ended with an error, and is started again.
    Down {
        /// When it ended first. A role that fails again at once has been down all the time.
        since: Instant,
        cause: String,
        next_try: Instant,
    },
    /// It has nothing left to do.
    Done,
}

/// The labels of the metrics of a role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: String,
}

/// A state, and since when the role is in it, in microseconds since the epoch.
type Since = (RoleState, i64);

/// The states of the roles of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoleStates {
    states: Arc<Mutex<BTreeMap<Role, Since>>>,
    up: Family<RoleLabel, Gauge<i64, AtomicI64>>,
    restarts: Family<RoleLabel, Counter<u64, AtomicU64>>,
}

impl RoleStates {
    /// The states of these roles, none of which has started.
    pub(crate) fn new(roles: &[Role]) -> Self {
        let states = Self::default();
        for role in roles {
            states.set(*role, RoleState::Starting);
            // The counter is on the metrics page from the start.
            drop(states.restarts.get_or_create(&label(*role)));
        }
        states
    }

    /// Registers the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tandem_role");
        registry.register("up", "1 while the role runs or has nothing left to do", self.up.clone());
        registry.register("restarts", "Restarts of a role that ended with an error", self.restarts.clone());
    }

    pub(crate) fn running(&self, role: Role) {
        self.set(role, RoleState::Running);
    }

    pub(crate) fn done(&self, role: Role) {
        self.set(role, RoleState::Done);
    }

    /// Whether the role runs now.
    pub(crate) fn runs(&self, role: Role) -> bool {
        matches!(self.lock().get(&role), Some((RoleState::Running, _)))
    }

    /// Whether one of the roles runs now or has run before.
    pub(crate) fn any_has_run(&self) -> bool {
        self.lock().values().any(|(state, _)| !matches!(state, RoleState::Starting))
    }

    /// Notes that a role ended with an error. Returns for how long it has been down.
    pub(crate) fn down(&self, role: Role, cause: &str, pause: Duration) -> Duration {
        let now = Instant::now();
        // A start that fails leaves the role as it was.
        let since = match self.lock().get(&role) {
            Some((RoleState::Down { since, .. }, _)) => *since,
            _ => now,
        };
        self.set(role, RoleState::Down { since, cause: cause.to_owned(), next_try: now + pause });
        now - since
    }

    /// Counts a start of a role that was down.
    pub(crate) fn restarted(&self, role: Role) {
        self.restarts.get_or_create(&label(role)).inc();
    }

    /// Whether one of these roles is down.
    pub(crate) fn is_down(&self, roles: &[Role]) -> bool {
        let states = self.lock();
        roles.iter().any(|role| matches!(states.get(role), Some((RoleState::Down { .. }, _))))
    }

    /// Why this process is not ready, a line for each role. Empty if every role runs.
    pub(crate) fn not_ready(&self) -> String {
        let now = Instant::now();
        let mut text = String::new();
        for (role, (state, _)) in &*self.lock() {
            // Writing to a String cannot fail.
            let _ = match state {
                RoleState::Running | RoleState::Done => Ok(()),
                RoleState::Starting => writeln!(text, "{role} is starting"),
                RoleState::Down { since, cause, next_try } => writeln!(
                    text,
                    "{role} has been down for {} s: {cause}; the next try is in {} s",
                    (now - *since).as_secs(),
                    next_try.saturating_duration_since(now).as_secs(),
                ),
            };
        }
        text
    }

    /// What each role does, for the other processes. `standby` says that capture stands by.
    pub(crate) fn report(&self, standby: bool) -> Vec<ProcessRole> {
        let (now, now_us) = (Instant::now(), now_us());
        let of = |(role, (state, since_us)): (&Role, &Since)| {
            let (name, cause, next_try_us) = match state {
                RoleState::Starting => ("starting", "", None),
                RoleState::Running if standby && *role == Role::Capture => ("standby", "", None),
                RoleState::Running => ("running", "", None),
                RoleState::Done => ("done", "", None),
                RoleState::Down { cause, next_try, .. } => {
                    let left = next_try.saturating_duration_since(now).as_micros();
                    ("down", cause.as_str(), Some(now_us + i64::try_from(left).unwrap_or(0)))
                }
            };
            ProcessRole {
                role: role.to_string(),
                state: name.to_owned(),
                since_us: *since_us,
                cause: cause.to_owned(),
                next_try_us,
            }
        };
        self.lock().iter().map(of).collect()
    }

    fn set(&self, role: Role, state: RoleState) {
        let up = matches!(state, RoleState::Running | RoleState::Done);
        self.up.get_or_create(&label(role)).set(i64::from(up));
        let mut states = self.lock();
        let since_us = match states.get(&role) {
            Some((known, since_us)) if discriminant(known) == discriminant(&state) => *since_us,
            _ => now_us(),
        };
        states.insert(role, (state, since_us));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Role, Since>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn label(role: Role) -> RoleLabel {
    RoleLabel { role: role.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_is_down_says_since_when_and_why() {
        let states = RoleStates::new(&[Role::Apply, Role::Backfill]);
        assert_eq!(states.not_ready(), "apply is starting\nbackfill is starting\n");
        states.running(Role::Apply);
        states.done(Role::Backfill);
        assert_eq!(states.not_ready(), "");
        states.down(Role::Apply, "no node answers", Duration::from_secs(9));
        std::thread::sleep(Duration::from_millis(20));
        // It is down since it ended first.
        assert!(
            states.down(Role::Apply, "no node answers", Duration::from_secs(9)) >= Duration::from_millis(20)
        );
        let text = states.not_ready();
        assert!(
            text.starts_with("apply has been down for 0 s: no node answers; the next try is in "),
            "{text}"
        );
        let report = states.report(false);
        let short: Vec<_> =
            report.iter().map(|r| (r.role.as_str(), r.state.as_str(), r.cause.as_str())).collect();
        assert_eq!(short, [("apply", "down", "no node answers"), ("backfill", "done", "")]);
        assert!(report[0].next_try_us.is_some_and(|next| next > report[0].since_us + 8_000_000));
        states.restarted(Role::Apply);
        states.restarted(Role::Apply);
        let mut registry = Registry::default();
        states.register(&mut registry);
        let mut metrics = String::new();
        prometheus_client::encoding::text::encode(&mut metrics, &registry).unwrap();
        for line in [
            "tandem_role_up{role=\"apply\"} 0",
            "tandem_role_up{role=\"backfill\"} 1",
            "tandem_role_restarts_total{role=\"apply\"} 2",
            "tandem_role_restarts_total{role=\"backfill\"} 0",
        ] {
            assert!(metrics.contains(line), "{line} is not in {metrics}");
        }
    }
}
