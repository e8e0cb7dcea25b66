//! The switch and the switch back: who decides, and the steps by which that changes.
//!
//! One store at a time decides what a row is, and a crash at any step leaves the old authority or the new one.
//! Each step is a record of the active controller. The last record is the commit point: it begins the next
//! epoch. Until then every record can be taken back. Only a record releases writers, never the passing of
//! time.
//!
//! | from | the next record needs |
//! |---|---|
//! | nothing, MySQL decides | preflight: [`Authority::begin`] writes `Hold` |
//! | `Hold` | every gateway has acknowledged this attempt or lost its lease |
//! | `Fence` | MySQL refuses writes, and F is read: `gtid_executed` after that |
//! | `Drain` | everything up to F is applied |
//! | `Close` | capture is fenced, and V is read after that: epoch + 1 |
//! | nothing, Cassandra decides | a sweep: [`Authority::begin`] writes `Hold` |
//! | `Hold` | every gateway has acknowledged this attempt, and none has lapsed since the sweep began |
//! | `Drain` | reverse has reached the log's end, without a dead letter: epoch + 1 |

pub use tandem_model::{Epoch, Store};
use tandem_model::{GtidSet, Version};

/// A step of a cutover, as the record names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Gateways start no write and finish those under way.
    Hold,
    /// MySQL is closed to writes.
    Fence,
    /// The log is followed to its end.
    Drain,
    /// Capture is fenced. A capture that reads this record publishes nothing.
    Close,
}

/// A cutover under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Cutover {
    /// Rises with each attempt. Acknowledgements name it.
    pub attempt: u32,
    /// The step.
    pub step: Step,
    /// When the controller takes the cutover back, in microseconds since the epoch.
    pub deadline_us: i64,
    /// F: what MySQL had executed when it was closed to writes.
    pub final_gtid: Option<GtidSet>,
    /// V: the last version of the epoch that ends.
    pub final_version: Option<Version>,
}

/// The part of the phase record that says which store decides.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Authority {
    /// The epoch.
    pub epoch: Epoch,
    /// No version of this epoch is below it. Every version of an earlier epoch is.
    pub floor: Version,
    /// The number of the last attempt at a cutover.
    pub attempts: u32,
    /// The cutover under way.
    pub cutover: Option<Cutover>,
}

/// What the controller has seen since the present record was written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// [`held`] is true of the gateways.
    pub held: bool,
    /// A sweep has completed every guard, and no gateway has lapsed since it began.
    pub swept: bool,
    /// F, read after MySQL was closed to writes.
    pub fenced: Option<GtidSet>,
    /// Everything up to F is applied; or reverse has reached the log's end.
    pub drained: bool,
    /// V, read after no writer of the epoch was left.
    pub last: Option<Last>,
}

/// The end of an epoch's versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Last {
    /// The last version: of the log, or of any guard.
    pub version: Version,
    /// The greatest writetime that the last full verification has seen.
    pub writetime: i64,
    /// The greatest clock of gateways, MySQL and Cassandra, with the skew allowed.
    pub clock_us: i64,
}

impl Last {
    /// The floor of the next epoch: above everything that stands in a cell, and above every clock.
    pub fn floor(self) -> Version {
        Version(self.version.0.max(self.writetime).max(self.clock_us) + 1)
    }
}

/// What a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// No cutover is under way.
    NotBegun,
    /// Gateways have not acknowledged.
    Gateways,
    /// A gateway lapsed since the sweep began. The cutover has to be taken back, and the sweep repeated.
    Sweep,
    /// MySQL still accepts writes.
    Fence,
    /// The log is not applied, or not in MySQL.
    Drain,
    /// The last version is not known.
    LastVersion,
}

impl Authority {
    /// The record that begins a cutover. `None` if one is under way.
    pub fn begin(&self, deadline_us: i64) -> Option<Self> {
        let attempt = self.attempts + 1;
        let cutover =
            Cutover { attempt, step: Step::Hold, deadline_us, final_gtid: None, final_version: None };
        self.cutover.is_none().then(|| Self { attempts: attempt, cutover: Some(cutover), ..self.clone() })
    }

    /// The record that takes a cutover back. The number of its attempt is not used again.
    #[must_use]
    pub fn taken_back(&self) -> Self {
        Self { cutover: None, ..self.clone() }
    }

    /// The record of the next step. After the last step it is that of the next epoch.
    ///
    /// # Errors
    ///
    /// What the present step waits for.
    pub fn advanced(&self, facts: &Facts) -> Result<Self, Waiting> {
        let cutover = self.cutover.as_ref().ok_or(Waiting::NotBegun)?;
        let to = |step| Self { cutover: Some(Cutover { step, ..cutover.clone() }), ..self.clone() };
        let when = |met: bool, waiting| if met { Ok(()) } else { Err(waiting) };
        match (self.epoch.decides(), cutover.step) {
            (Store::Mysql, Step::Hold) => {
                when(facts.held, Waiting::Gateways)?;
                Ok(to(Step::Fence))
            }
            (Store::Mysql, Step::Fence) => {
                let fenced = facts.fenced.clone().ok_or(Waiting::Fence)?;
                let mut next = to(Step::Drain);
                next.cutover.iter_mut().for_each(|c| c.final_gtid = Some(fenced.clone()));
                Ok(next)
            }
            (Store::Mysql, Step::Drain) => {
                when(facts.drained, Waiting::Drain)?;
                Ok(to(Step::Close))
            }
            (Store::Cassandra, Step::Hold) => {
                when(facts.swept, Waiting::Sweep)?;
                when(facts.held, Waiting::Gateways)?;
                Ok(to(Step::Drain))
            }
            (Store::Mysql, Step::Close) => self.committed(facts),
            (Store::Cassandra, Step::Fence | Step::Drain | Step::Close) => {
                // A gateway that lapses now has nothing under way: it has acknowledged the hold.
                when(facts.drained, Waiting::Drain)?;
                self.committed(facts)
            }
        }
    }

    fn committed(&self, facts: &Facts) -> Result<Self, Waiting> {
        let last = facts.last.ok_or(Waiting::LastVersion)?;
        Ok(Self { epoch: self.epoch.next(), floor: last.floor(), attempts: self.attempts, cutover: None })
    }

    /// Whether a gateway that knows this record may start a write, and in which store.
    pub fn writes_to(&self) -> Option<Store> {
        self.cutover.is_none().then(|| self.epoch.decides())
    }

    /// Whether MySQL may answer a read: as a fallback, or where the stores differ. From the hold on it may not.
    /// A gateway may still act on the hold when native writes have begun.
    pub fn mysql_may_answer(&self) -> bool {
        self.writes_to() == Some(Store::Mysql)
    }

    /// Whether a capture that reads this record, after it has fenced every other one, may publish.
    pub fn capture_may_publish(&self) -> bool {
        let closing = self.cutover.as_ref().is_some_and(|cutover| cutover.step == Step::Close);
        self.epoch.decides() == Store::Mysql && !closing
    }

    /// Whether MySQL may be opened to writes: only once a record says that it decides and nothing is under
    /// way.
    pub fn fence_may_be_lifted(&self) -> bool {
        self.mysql_may_answer()
    }
}

/// What the controller knows of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The newest attempt for which the gateway has said that nothing is under way.
    pub acknowledged: Option<u32>,
    /// Whether its lease has lapsed since it was last heard.
    pub lapsed: bool,
}

/// Whether no gateway writes any more: each has acknowledged this attempt, or has lost its lease.
pub fn held(gateways: impl IntoIterator<Item = Heard>, attempt: u32) -> bool {
    gateways.into_iter().all(|gateway| gateway.acknowledged == Some(attempt) || gateway.lapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_waits_for_its_own_fact_and_the_epochs_alternate() {
        let mut now = Authority::default();
        let everything = Facts {
            held: true,
            swept: true,
            fenced: Some(GtidSet::default()),
            drained: true,
            last: Some(Last { version: Version(41), ..Last::default() }),
        };
        let without = |step: usize| {
            let mut facts = everything.clone();
            match step {
                0 => facts.held = false,
                1 => facts.fenced = None,
                2 => facts.drained = false,
                3 => facts.last = None,
                _ => facts.swept = false,
            }
            facts
        };
        assert_eq!(now.advanced(&everything), Err(Waiting::NotBegun));
        now = now.begin(9).unwrap();
        assert_eq!(now.begin(9), None);
        let waits = [Waiting::Gateways, Waiting::Fence, Waiting::Drain, Waiting::LastVersion];
        for (step, waiting) in waits.into_iter().enumerate() {
            assert_eq!(now.advanced(&without(step)), Err(waiting));
            assert!(now.writes_to().is_none() && !now.mysql_may_answer() && !now.fence_may_be_lifted());
            assert_eq!(now.capture_may_publish(), step < 3);
            now = now.advanced(&everything).unwrap();
        }
        assert_eq!((now.epoch, now.floor, now.writes_to()), (Epoch(1), Version(42), Some(Store::Cassandra)));
        assert!(!now.capture_may_publish() && !now.fence_may_be_lifted());
        now = now.begin(9).unwrap();
        assert_eq!(now.advanced(&without(4)), Err(Waiting::Sweep));
        for (step, waiting) in [(0, Waiting::Gateways), (2, Waiting::Drain)] {
            assert_eq!(now.advanced(&without(step)), Err(waiting));
            now = now.advanced(&everything).unwrap();
        }
        assert_eq!((now.epoch, now.writes_to()), (Epoch(2), Some(Store::Mysql)));
        assert!(now.capture_may_publish() && now.fence_may_be_lifted());
    }

    #[test]
    fn an_attempt_that_was_taken_back_is_not_counted_again() {
        let first = Authority::default().begin(9).unwrap();
        let second = first.taken_back().begin(9).unwrap();
        assert_eq!(second.cutover.as_ref().unwrap().attempt, 2);
        let heard = |acknowledged, lapsed| Heard { acknowledged, lapsed };
        assert!(!held([heard(Some(2), false), heard(Some(1), false)], 2));
        assert!(held([heard(Some(2), false), heard(None, true)], 2));
    }

    #[test]
    fn the_floor_is_above_versions_writetimes_and_clocks() {
        for (version, writetime, clock_us) in [(9, 1, 2), (1, 9, 2), (1, 2, 9)] {
            assert_eq!(Last { version: Version(version), writetime, clock_us }.floor(), Version(10));
        }
    }
}
