//! The phase record, small, and the product's form of it.

use tandem_model::Version;
use tandem_protocol::cutover::switch::{Authority, Cutover, Epoch, Step};

const STEPS: [Step; 4] = [Step::Hold, Step::Fence, Step::Drain, Step::Close];
/// The phase record, small. Step 0 is none; 1 to 4 are hold, fence, drain, close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Record {
    pub(crate) epoch: u8,
    pub(crate) floor: u8,
    pub(crate) attempts: u8,
    pub(crate) step: u8,
}

impl Record {
    pub(crate) fn is_mysqls(self) -> bool {
        self.epoch.is_multiple_of(2)
    }
}

/// The product's form of a record.
pub(crate) fn authority(record: Record) -> Authority {
    let cutover = record.step.checked_sub(1).map(|step| Cutover {
        attempt: record.attempts.into(),
        step: STEPS[step as usize],
        deadline_us: 0,
        final_gtid: None,
        final_version: None,
    });
    Authority {
        epoch: Epoch(record.epoch.into()),
        floor: Version(record.floor.into()),
        attempts: record.attempts.into(),
        cutover,
    }
}

/// The small form of a record.
pub(crate) fn small(authority: &Authority) -> Record {
    let step = |cutover: &Cutover| STEPS.iter().position(|step| *step == cutover.step);
    Record {
        epoch: authority.epoch.0 as u8,
        floor: authority.floor.0 as u8,
        attempts: authority.attempts as u8,
        step: authority.cutover.as_ref().and_then(step).map_or(0, |step| step as u8 + 1),
    }
}
