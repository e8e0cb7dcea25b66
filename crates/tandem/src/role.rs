//! The roles that a process can run.

use std::fmt;

/// A part of the migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Capture,
    Apply,
    Backfill,
    Verify,
    Reconcile,
    Reverse,
    Gateway,
    Controller,
}

impl Role {
    /// The roles that `tandem run` always runs, whatever the configuration says.
    pub(crate) const OF_EVERY_RUN: [Self; 5] =
        [Self::Capture, Self::Apply, Self::Backfill, Self::Verify, Self::Reconcile];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Capture => "capture",
            Self::Apply => "apply",
            Self::Backfill => "backfill",
            Self::Verify => "verify",
            Self::Reconcile => "reconcile",
            Self::Reverse => "reverse",
            Self::Gateway => "gateway",
            Self::Controller => "controller",
        })
    }
}
