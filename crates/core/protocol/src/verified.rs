//! What a full verification proves.
//!
//! It compares every row of both stores once, at some time after it began. It proves nothing about a table that was copied
//! later, nor about a row whose change was discarded later. A table that is copied again or replayed is verified by itself
//! before it is live again.

use tandem_wire::control::{BackfillProgress, FullScan, TableState};

use crate::table_state::is_live;

/// Whether the verification has found both stores equal, and no change was discarded since it began.
pub fn found_equal(scan: &FullScan, discarded_us: Option<i64>) -> bool {
    scan.mismatches == 0 && scan.undecided == 0 && discarded_us.is_none_or(|at| at <= scan.started_at_us)
}

/// Whether the table was verified after its copy: by the full verification, or by itself when it became live.
///
/// `copy` is the progress of the copy that counts.
pub fn is_covered(scan: &FullScan, state: Option<&TableState>, copy: Option<&BackfillProgress>) -> bool {
    let verified_us = state.map_or(i64::MIN, |state| state.since_us).max(scan.started_at_us);
    is_live(state) && copy.is_some_and(|copy| copy.done && copy.updated_at_us <= verified_us)
}
