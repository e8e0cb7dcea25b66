//! Leases: for how long a gateway acts on the phase record that it knows.
//!
//! Once the controller has waited for a lease, its gateway starts nothing on the old record, and it completes
//! nothing that it started before. The lease counts from before the gateway asked for the control topic's
//! end. The controller counts from later and waits longer. Both clocks run through a suspended machine
//! (`CLOCK_BOOTTIME`).

/// A lease. Each lapse ends its incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lease {
    incarnation: u64,
    /// Until when the gateway may act, by its own clock.
    until_us: i64,
}

/// The incarnation of a lease under which a write began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation(u64);

impl Lease {
    /// The lease after the gateway has found nothing newer on the control topic, or has followed what it
    /// found. `asked_us` is the clock *before* it asked.
    #[must_use]
    pub fn renewed(self, asked_us: i64, now_us: i64, lease_us: i64) -> Self {
        let lapsed = now_us >= self.until_us;
        Self { incarnation: self.incarnation + u64::from(lapsed), until_us: asked_us + lease_us }
    }

    /// The incarnation for a write that begins now. `None` if the lease has lapsed: nothing may begin.
    pub fn begin(self, now_us: i64) -> Option<Incarnation> {
        (now_us < self.until_us).then_some(Incarnation(self.incarnation))
    }

    /// Whether a write that began under `began` may make its effects.
    ///
    /// A write that lived through a lapse is abandoned, even if the lease was renewed meanwhile: the guard
    /// may belong to an epoch that is over.
    pub fn may_go_on(self, began: Incarnation, now_us: i64) -> bool {
        self.begin(now_us) == Some(began)
    }
}

/// Whether the lease of a gateway that was last heard at `heard_us` has lapsed, by the controller's clock.
pub fn has_lapsed(heard_us: i64, now_us: i64, lease_us: i64, margin_us: i64) -> bool {
    now_us - heard_us > lease_us + margin_us
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_goes_on_only_under_the_lease_that_it_began_with() {
        let lease = Lease::default().renewed(100, 110, 50);
        let began = lease.begin(149).unwrap();
        assert_eq!(lease.begin(150), None);
        assert!(lease.may_go_on(began, 149) && !lease.may_go_on(began, 150));
        // Renewed in time: the same incarnation.
        let in_time = lease.renewed(140, 149, 50);
        assert!(in_time.may_go_on(began, 189) && !in_time.may_go_on(began, 190));
        // Renewed after a lapse: another one, though the request was asked for before it.
        let late = lease.renewed(149, 150, 50);
        assert!(!late.may_go_on(began, 151) && late.begin(151).is_some());
    }

    #[test]
    fn the_controller_waits_longer_than_the_gateway() {
        assert!(!has_lapsed(100, 160, 50, 10) && has_lapsed(100, 161, 50, 10));
    }
}
