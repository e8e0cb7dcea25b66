//! Batches: several native writes that count together or not at all.
//!
//! Whoever meets a row of a batch comes to the same outcome. The batch has a row of its own, which is written
//! before any guard names it and has no TTL. One CAS takes it from pending to committed, with the version of
//! all its writes: that is the commit point. Another one takes it to aborted. Guards hold the writes as
//! tentative until then.

use tandem_mapping::{RowError, TablePlan};
use tandem_model::Version;

use super::guard::{Accepted, Guard, Known, Limits, NativeWrite, Nonce, Proposal, Tentative};
use super::guard::{remembered, stale_keys, version_above};

/// The row of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not decided. From the deadline on, anybody may abort it.
    Pending {
        /// In microseconds since the epoch.
        deadline_us: i64,
    },
    /// All of its writes count, at this version.
    Committed(Version),
    /// None of them counts.
    Aborted,
}

/// What one does that met a tentative guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// Wait, then ask the batch again.
    Wait,
    /// CAS the batch from pending to aborted, then ask it again.
    Abort,
    /// Roll the guards of all its keys forward, at this version.
    Forward(Version),
    /// Take the tentative write back.
    Back,
}

/// Decides what one does that met a guard of a batch. `None` means that the batch has no row.
///
/// The row is written before any guard names the batch, and removed once the batch is settled and no guard names
/// it. So a guard without a row is one of an aborted batch, set late by a writer that had paused: nobody else can
/// settle it any more. If the guard that was read is out of date, the CAS that takes it back fails.
pub fn settle(batch: Option<Outcome>, now_us: i64) -> Settle {
    match batch {
        Some(Outcome::Committed(version)) => Settle::Forward(version),
        Some(Outcome::Pending { deadline_us }) if now_us >= deadline_us => Settle::Abort,
        Some(Outcome::Pending { .. }) => Settle::Wait,
        Some(Outcome::Aborted) | None => Settle::Back,
    }
}

/// Makes the guard that holds a batch's write as tentative. What the row is does not change yet.
///
/// A key without a guard gets one with the base target's row, at the epoch's floor at least. `batch` names the
/// batch, `cas` is the nonce of this CAS alone, and `write.nonce` is the request.
///
/// # Errors
///
/// The mapping cannot convert the row. The batch is aborted then.
pub fn tentative(
    plan: &TablePlan,
    known: Known<'_>,
    write: NativeWrite,
    batch: Nonce,
    cas: Nonce,
    limits: Limits,
) -> Result<Proposal, RowError> {
    let stale = stale_keys(plan, known.image(), &write)?;
    let tentative = Some(Tentative { batch, request: write.nonce, image: write.image, stale });
    let guard = match known {
        Known::Guard(guard) => {
            Guard { nonce: cas, recent: remembered(guard, limits), tentative, ..guard.clone() }
        }
        Known::Base(row) => Guard {
            version: version_above(None, limits),
            nonce: cas,
            recent: Vec::new(),
            before: row.cloned(),
            image: row.cloned(),
            stale: Vec::new(),
            tentative,
        },
    };
    Ok(Proposal { expected: known.guard().map(|guard| guard.nonce), guard })
}

/// The version with which a batch is committed: above the guards of all its keys.
pub fn commit_version<'a>(guards: impl IntoIterator<Item = &'a Guard>, limits: Limits) -> Version {
    version_above(guards.into_iter().map(|guard| guard.version).max(), limits)
}

/// Makes the guard of a settled batch out of its tentative one. `cas` is the nonce of this CAS. `None` if the
/// guard does not belong to the batch, or the batch is not settled.
pub fn settled(guard: &Guard, batch: Nonce, outcome: Outcome, cas: Nonce) -> Option<Proposal> {
    let tentative = guard.tentative.as_ref().filter(|tentative| tentative.batch == batch)?;
    let next = match outcome {
        Outcome::Pending { .. } => return None,
        Outcome::Aborted => Guard { nonce: cas, tentative: None, ..guard.clone() },
        Outcome::Committed(version) => {
            let mut recent = guard.recent.clone();
            recent.push(Accepted { nonce: tentative.request, version });
            Guard {
                version,
                nonce: cas,
                recent,
                before: guard.image.clone(),
                image: tentative.image.clone(),
                stale: tentative.stale.clone(),
                tentative: None,
            }
        }
    };
    Some(Proposal { expected: Some(guard.nonce), guard: next })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: Nonce = Nonce(9);
    const REQUEST: Nonce = Nonce(10);

    fn guard() -> Guard {
        Guard {
            version: Version(5),
            nonce: Nonce(1),
            recent: vec![Accepted { nonce: Nonce(1), version: Version(5) }],
            before: None,
            image: Some(Vec::new()),
            stale: Vec::new(),
            tentative: Some(Tentative {
                batch: BATCH,
                request: REQUEST,
                image: None,
                stale: vec![(0, Vec::new())],
            }),
        }
    }

    #[test]
    fn only_a_pending_batch_past_its_deadline_is_aborted() {
        for (outcome, now_us, expected) in [
            (None, 0, Settle::Back),
            (Some(Outcome::Pending { deadline_us: 10 }), 9, Settle::Wait),
            (Some(Outcome::Pending { deadline_us: 10 }), 10, Settle::Abort),
            (Some(Outcome::Aborted), 0, Settle::Back),
            (Some(Outcome::Committed(Version(7))), 99, Settle::Forward(Version(7))),
        ] {
            assert_eq!(settle(outcome, now_us), expected);
        }
    }

    #[test]
    fn a_guard_becomes_what_its_batch_has_decided_and_each_cas_has_its_own_nonce() {
        let guard = guard();
        let pending = Outcome::Pending { deadline_us: 10 };
        assert_eq!(settled(&guard, BATCH, pending, Nonce(3)), None);
        assert_eq!(settled(&guard, Nonce(8), Outcome::Aborted, Nonce(3)), None);
        let back = settled(&guard, BATCH, Outcome::Aborted, Nonce(3)).unwrap();
        assert_eq!(back.expected, Some(Nonce(1)));
        assert_eq!(back.guard, Guard { nonce: Nonce(3), tentative: None, ..guard.clone() });
        let forward = settled(&guard, BATCH, Outcome::Committed(Version(7)), Nonce(4)).unwrap();
        assert_eq!(forward.expected, Some(Nonce(1)));
        assert_eq!((forward.guard.version, forward.guard.nonce), (Version(7), Nonce(4)));
        // The log shows the row before, and carries the request: neither the batch nor the CAS.
        assert_eq!(forward.guard.before, Some(Vec::new()));
        assert_eq!(forward.guard.record().nonce, Some(REQUEST));
        assert_eq!(back.guard.record().nonce, Some(Nonce(1)));
        assert_eq!(
            (forward.guard.image, forward.guard.stale.len(), forward.guard.tentative),
            (None, 1, None)
        );
        assert_eq!(forward.guard.recent.last(), Some(&Accepted { nonce: REQUEST, version: Version(7) }));
    }

    #[test]
    fn a_batch_is_above_each_of_its_guards() {
        let limits = |now_us| Limits { now_us, floor: Version(2), remember_us: 0 };
        let guards = [4, 8, 6].map(|version| Guard { version: Version(version), ..guard() });
        assert_eq!(commit_version(&guards, limits(3)), Version(9));
        assert_eq!(commit_version(&guards, limits(30)), Version(30));
        assert_eq!(commit_version(&[], limits(0)), Version(2));
    }
}
