//! The lease of this process, on the clock that runs through a suspended machine.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tandem_protocol::cutover::lease::{Incarnation, Lease};
use tandem_runtime::boot_us;

/// The lease under which a gateway acts on the phase record that it knows.
///
/// Whoever follows the control topic renews it. Every write asks it.
#[derive(Debug, Default)]
pub struct HeldLease(Mutex<Lease>);

/// A piece of work that has begun under a lease.
#[derive(Debug, Clone, Copy)]
pub struct Began<'a> {
    lease: &'a HeldLease,
    incarnation: Incarnation,
}

impl HeldLease {
    /// Renews the lease: the control topic was read to its end, and nothing newer was there. `asked_us` is
    /// [`boot_us`] from *before* its end was asked for.
    pub fn renew(&self, asked_us: i64, lease: Duration) {
        let mut held = self.lock();
        *held = held.renewed(asked_us, boot_us(), lease.as_micros() as i64);
    }

    /// Begins a piece of work. `None` if the lease has lapsed: nothing may begin.
    pub fn begin(&self) -> Option<Began<'_>> {
        let incarnation = self.lock().begin(boot_us())?;
        Some(Began { lease: self, incarnation })
    }

    fn lock(&self) -> MutexGuard<'_, Lease> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Began<'_> {
    /// Whether the work may go on: the lease has not lapsed since it began, even if it was renewed after that.
    pub fn may_go_on(&self) -> bool {
        self.lease.lock().may_go_on(self.incarnation, boot_us())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_ends_with_its_lease_though_that_is_renewed() {
        let lease = HeldLease::default();
        assert!(lease.begin().is_none());
        lease.renew(boot_us(), Duration::from_mins(1));
        let began = lease.begin().unwrap();
        assert!(began.may_go_on());
        lease.renew(boot_us() - 2_000_000, Duration::from_secs(1));
        assert!(!began.may_go_on() && lease.begin().is_none());
        lease.renew(boot_us(), Duration::from_mins(1));
        assert!(!began.may_go_on() && lease.begin().is_some());
    }
}
