//! Guards: the order of the native writes of a key.
//!
//! A key has one newest write, and every write before it is complete. The guard of a key is a row in a table
//! of Tandem's own, written only by compare-and-set (CAS). The CAS is the commit point of a native write. It
//! compares the nonce of the last CAS, so a write that was decided on an older guard is refused. Before a
//! writer replaces a guard or answers from it, it completes the effects of the write that the guard holds.
//!
//! The steps of a native write are:
//!
//! 1. Read the guard and ask [`next`].
//! 2. Do what it says: complete the predecessor and begin again, or decide what the row becomes.
//! 3. [`propose`] the new guard, and CAS it.
//! 4. Make the effects: publish [`Guard::record`], and write [`NativeRecord::mutations`].
//! 5. Mark the version as done, and answer.

use std::sync::Arc;

use tandem_mapping::{RowError, TablePlan};
pub use tandem_model::Nonce;
use tandem_model::{Change, Epoch, Mutation, NativeSource, Op, Row, SourceInfo, TargetKey, Version};

/// A write that a guard has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The request.
    pub nonce: Nonce,
    /// The version that it got.
    pub version: Version,
}

/// What the guard of a key holds. A guard is never deleted within its epoch, not even that of a deleted row.
#[derive(Debug, Clone, PartialEq)]
pub struct Guard {
    /// The version of the last write.
    pub version: Version,
    /// The nonce of the last CAS. The next CAS compares it.
    pub nonce: Nonce,
    /// The writes accepted lately, the last one included. A retry finds itself here.
    pub recent: Vec<Accepted>,
    /// The row before the last write, as the log shows it.
    pub before: Option<Row>,
    /// The row. `None` means that it is deleted.
    pub image: Option<Row>,
    /// The target keys that the row before had and this one has not, each with its target's index.
    pub stale: Vec<(usize, TargetKey)>,
    /// The write of a batch that is not settled yet. Until it is, `image` counts.
    pub tentative: Option<Tentative>,
}

/// A row of a batch, before the batch is committed or aborted.
#[derive(Debug, Clone, PartialEq)]
pub struct Tentative {
    /// The batch. Each attempt of a request has a batch of its own: a commit of an earlier attempt that arrives late
    /// must not commit the guards of a later one.
    pub batch: Nonce,
    /// The request.
    pub request: Nonce,
    /// What the row becomes if the batch is committed.
    pub image: Option<Row>,
    /// The target keys that are stale then.
    pub stale: Vec<(usize, TargetKey)>,
}

/// What a writer does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// The guard belongs to a batch. Settle the batch, then read the guard again.
    Settle(Nonce),
    /// The write of the guard may be incomplete. Make its effects and mark it as done, then read the guard
    /// again.
    Complete(Version),
    /// The request has happened, at this version. Its effects are complete: answer.
    Happened(Version),
    /// The request has happened in an earlier epoch: answer what is kept under its nonce.
    Answered,
    /// Decide what the row becomes, and propose it.
    Propose,
}

/// Decides what a writer does that has read a guard.
///
/// `done` is the newest version of this guard that is marked as done. `answered` is whether an answer is kept
/// under the request's nonce, from before this epoch.
///
/// The same function serves every answer that rests on a guard: 404, 409, 412, a write that changes nothing.
/// Only [`Next::Propose`] allows them. A reader has no nonce that a guard could hold, and is told the same.
pub fn next(guard: Option<&Guard>, done: Option<Version>, answered: bool, nonce: Nonce) -> Next {
    if let Some(guard) = guard {
        if let Some(tentative) = &guard.tentative {
            return Next::Settle(tentative.batch);
        }
        if done < Some(guard.version) {
            return Next::Complete(guard.version);
        }
        if let Some(accepted) = guard.recent.iter().find(|accepted| accepted.nonce == nonce) {
            return Next::Happened(accepted.version);
        }
    }
    if answered { Next::Answered } else { Next::Propose }
}

/// What a writer knows about its key: the guard, or, before the epoch's first write, the base target's row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Known<'a> {
    /// The guard.
    Guard(&'a Guard),
    /// There is no guard. The base target holds this row.
    Base(Option<&'a Row>),
}

impl<'a> Known<'a> {
    /// The row as it is.
    pub fn image(self) -> Option<&'a Row> {
        match self {
            Self::Guard(guard) => guard.image.as_ref(),
            Self::Base(row) => row,
        }
    }

    /// The guard, if there is one.
    pub fn guard(self) -> Option<&'a Guard> {
        match self {
            Self::Guard(guard) => Some(guard),
            Self::Base(_) => None,
        }
    }
}

/// A native write, decided.
#[derive(Debug, Clone, PartialEq)]
pub struct NativeWrite {
    /// The request.
    pub nonce: Nonce,
    /// What the row becomes. `None` deletes it.
    pub image: Option<Row>,
    /// Target keys that must not exist, whoever wrote them. A repair names the rows that it found there.
    pub extra: Vec<(usize, TargetKey)>,
    /// A version that this write must be above. A repair names the newest writetime that it found.
    pub above: Option<Version>,
}

/// The clock and the limits of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The writer's clock, in microseconds since the epoch.
    pub now_us: i64,
    /// The epoch's floor.
    pub floor: Version,
    /// How long a guard remembers a nonce: the longest deadline of a request and a margin.
    pub remember_us: i64,
}

/// A guard to be set, if the present one is still the one that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The nonce that the CAS compares: `IF nonce = …`. `None` is `IF nonce = null`, for a first write.
    pub expected: Option<Nonce>,
    /// The new guard.
    pub guard: Guard,
}

/// Makes the guard of a write.
///
/// Its version is above the last one and not below the floor, whatever the writer's clock does. So the write
/// replaces everything that an earlier write, or any write of an earlier epoch, has left in a cell.
///
/// # Errors
///
/// The mapping cannot convert the row. Nothing may be written then.
pub fn propose(
    plan: &TablePlan,
    known: Known<'_>,
    write: NativeWrite,
    limits: Limits,
) -> Result<Proposal, RowError> {
    let stale = stale_keys(plan, known.image(), &write)?;
    let last = known.guard().map(|guard| guard.version);
    let version = version_above(last.max(write.above), limits);
    let mut recent = known.guard().map_or(Vec::new(), |guard| remembered(guard, limits));
    recent.push(Accepted { nonce: write.nonce, version });
    let before = known.image().cloned();
    let guard =
        Guard { version, nonce: write.nonce, recent, before, image: write.image, stale, tentative: None };
    Ok(Proposal { expected: known.guard().map(|guard| guard.nonce), guard })
}

/// The writes of a guard that may still be retried, and the last one.
pub(super) fn remembered(guard: &Guard, limits: Limits) -> Vec<Accepted> {
    // A version is not below the clock at its CAS. So none is forgotten too early.
    let oldest = limits.now_us.saturating_sub(limits.remember_us);
    let kept = |accepted: &&Accepted| accepted.version.0 >= oldest || accepted.version == guard.version;
    guard.recent.iter().filter(kept).copied().collect()
}

/// `max(now, last + 1, floor)`.
pub(super) fn version_above(last: Option<Version>, limits: Limits) -> Version {
    let above = last.map_or(i64::MIN, |last| last.0 + 1);
    Version(limits.now_us.max(above).max(limits.floor.0))
}

/// The keys of the row before, and the extra ones, that the row after does not have.
///
/// A guard whose row cannot be converted could never be completed, and would hold up its key for ever. So the whole row
/// after is converted here, before the CAS.
pub(super) fn stale_keys(
    plan: &TablePlan,
    before: Option<&Row>,
    write: &NativeWrite,
) -> Result<Vec<(usize, TargetKey)>, RowError> {
    write.image.as_ref().map(|row| plan.expected(row)).transpose()?;
    let after = write.image.as_ref().map_or(Ok(Vec::new()), |row| plan.target_keys(row))?;
    let before = before.map_or(Vec::new(), |row| plan.possible_keys(row));
    let mut stale = Vec::new();
    for key in before.into_iter().chain(write.extra.iter().cloned()) {
        if !after.contains(&key) && !stale.contains(&key) {
            stale.push(key);
        }
    }
    Ok(stale)
}

/// A native write on the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NativeRecord<'a> {
    /// The version.
    pub version: Version,
    /// The request. Whoever makes the effects of a write for another carries its nonce on. `None` for the guard
    /// that a batch has given a key, before anything was written.
    pub nonce: Option<Nonce>,
    /// The row before.
    pub before: Option<&'a Row>,
    /// The row.
    pub image: Option<&'a Row>,
    /// The target keys that must not exist any more.
    pub stale: &'a [(usize, TargetKey)],
}

impl Guard {
    /// The record of the guard's write. Everybody who makes the effects of the write publishes the same one.
    pub fn record(&self) -> NativeRecord<'_> {
        let last = self.recent.iter().rfind(|accepted| accepted.version == self.version);
        NativeRecord {
            version: self.version,
            nonce: last.map(|accepted| accepted.nonce),
            before: self.before.as_ref(),
            image: self.image.as_ref(),
            stale: &self.stale,
        }
    }
}

impl NativeRecord<'_> {
    /// The change that the log holds. It is the same whoever publishes it, and its time is its version. `None` if there
    /// was no row and is none.
    pub fn change(&self, plan: &TablePlan, epoch: Epoch) -> Option<Change> {
        let op = match (self.before, self.image) {
            (None, None) => return None,
            (None, Some(_)) => Op::Create,
            (Some(_), Some(_)) => Op::Update,
            (Some(_), None) => Op::Delete,
        };
        let native = Some(NativeSource { epoch, request: self.nonce });
        Some(Change {
            table: Arc::clone(plan.source()),
            op,
            before: self.before.cloned(),
            after: self.image.cloned(),
            version: self.version,
            source: SourceInfo { ts_us: self.version.0, native, ..SourceInfo::default() },
        })
    }

    /// What the write leaves in the targets: the row with explicit NULLs, and a row tombstone under each
    /// stale key. Apply writes the same, and so completes what a gateway left half written.
    ///
    /// # Errors
    ///
    /// The mapping cannot convert the row.
    pub fn mutations(&self, plan: &TablePlan) -> Result<Vec<Mutation>, RowError> {
        plan.repair(self.image, self.stale, self.version)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tandem_mapping::{TargetConfig, same_shape};
    use tandem_model::{ColumnDef, TableDef, TableName, Value, Write};

    /// A table `(id, account)` with one target, whose rows move when `account` changes.
    fn plan() -> TablePlan {
        plan_of(&[("id", "int"), ("account", "int")])
    }

    /// The same with a date.
    fn noted_plan() -> TablePlan {
        plan_of(&[("id", "int"), ("account", "int"), ("note", "date")])
    }

    fn plan_of(columns: &[(&str, &str)]) -> TablePlan {
        let column = |&(name, ty): &(&str, &str)| ColumnDef {
            name: name.into(),
            ty: ty.parse().unwrap(),
            nullable: false,
        };
        let table = TableDef {
            name: TableName::new("shop", "orders"),
            columns: columns.iter().map(column).collect(),
            primary_key: vec![0],
        };
        let mut config = same_shape(&table);
        config.target = vec![TargetConfig {
            table: "by_account".into(),
            partition_key: vec!["account".into()],
            clustering_key: vec!["id".into()],
            ..TargetConfig::default()
        }];
        TablePlan::compile(&config, &Arc::new(table)).unwrap()
    }

    fn row(account: i64) -> Row {
        vec![Value::Int(1), Value::Int(account)]
    }

    fn write(nonce: u128, image: Option<Row>) -> NativeWrite {
        NativeWrite { nonce: Nonce(nonce), image, extra: Vec::new(), above: None }
    }

    fn limits(now_us: i64, floor: i64) -> Limits {
        Limits { now_us, floor: Version(floor), remember_us: 100 }
    }

    fn after(known: Known<'_>, write: NativeWrite, limits: Limits) -> Proposal {
        propose(&plan(), known, write, limits).unwrap()
    }

    #[test]
    fn a_version_is_above_the_last_one_the_floor_and_the_clock() {
        let first = after(Known::Base(None), write(1, Some(row(1))), limits(7, 50));
        assert_eq!((first.expected, first.guard.version), (None, Version(50)));
        let known = Known::Guard(&first.guard);
        for (now, above, version) in [(7, None, 51), (90, None, 90), (7, Some(70), 71), (7, Some(20), 51)] {
            let write = NativeWrite { above: above.map(Version), ..write(2, Some(row(1))) };
            let second = after(known, write, limits(now, 50));
            assert_eq!((second.expected, second.guard.version), (Some(Nonce(1)), Version(version)));
        }
    }

    #[test]
    fn a_row_that_moves_or_goes_leaves_its_old_key_stale() {
        let first = after(Known::Base(Some(&row(1))), write(1, Some(row(2))), limits(7, 0)).guard;
        let tombstones = |guard: &Guard| {
            let mutations = guard.record().mutations(&plan()).unwrap();
            assert!(mutations.iter().all(|m| m.version == guard.version));
            let deleted = mutations.iter().filter(|m| m.write == Write::DeleteRow);
            deleted.map(|m| m.key[0].clone()).collect::<Vec<_>>()
        };
        assert_eq!(tombstones(&first), [1_i32.to_be_bytes()]);
        let deleted = after(Known::Guard(&first), write(2, None), limits(7, 0)).guard;
        assert_eq!(tombstones(&deleted), [2_i32.to_be_bytes()]);
        // A key that the row has now is never stale, whoever names it.
        let keys = |account| plan().target_keys(&row(account)).unwrap();
        let extra = NativeWrite { extra: [keys(2), keys(3)].concat(), ..write(3, Some(row(2))) };
        let mended = after(Known::Guard(&deleted), extra, limits(7, 0)).guard;
        assert_eq!(tombstones(&mended), [3_i32.to_be_bytes()]);
    }

    #[test]
    fn the_log_holds_what_was_and_what_is_and_apply_writes_what_the_gateway_writes() {
        let plan = plan();
        let first = after(Known::Base(Some(&row(1))), write(1, Some(row(2))), limits(7, 0)).guard;
        let second = after(Known::Guard(&first), write(2, None), limits(7, 0)).guard;
        for (guard, op, request) in [(&first, Op::Update, 1), (&second, Op::Delete, 2)] {
            let change = guard.record().change(&plan, Epoch(3)).unwrap();
            assert_eq!(
                (change.op, change.version, change.source.ts_us),
                (op, guard.version, guard.version.0)
            );
            let native = NativeSource { epoch: Epoch(3), request: Some(Nonce(request)) };
            assert_eq!(change.source.native, Some(native));
            let mut applied = Vec::new();
            plan.mutations(&change, &mut applied).unwrap();
            assert_eq!(applied, guard.record().mutations(&plan).unwrap());
        }
        let third = after(Known::Guard(&second), write(3, None), limits(7, 0)).guard;
        assert_eq!(third.record().change(&plan, Epoch(3)), None);
    }

    #[test]
    fn a_row_that_cannot_be_written_is_refused_before_the_cas() {
        let refused = |known| propose(&plan(), known, write(2, Some(row(i64::MAX))), limits(7, 0)).is_err();
        assert!(refused(Known::Base(None)));
        // Not only a key: `note` is in no key.
        let bad = vec![Value::Int(1), Value::Int(1), Value::InvalidDate("0000-00-00".into())];
        assert!(propose(&noted_plan(), Known::Base(None), write(2, Some(bad)), limits(7, 0)).is_err());
    }

    #[test]
    fn nothing_rests_on_a_guard_before_its_write_is_done() {
        let guard = after(Known::Base(None), write(1, Some(row(1))), limits(7, 0)).guard;
        let at = guard.version;
        for (done, nonce, expected) in [
            (None, 1, Next::Complete(at)),
            (Some(at.0 - 1), 2, Next::Complete(at)),
            (Some(at.0), 1, Next::Happened(at)),
            (Some(at.0), 2, Next::Propose),
        ] {
            assert_eq!(next(Some(&guard), done.map(Version), false, Nonce(nonce)), expected);
        }
        assert_eq!(next(Some(&guard), Some(at), true, Nonce(2)), Next::Answered);
        assert_eq!(next(None, None, false, Nonce(1)), Next::Propose);
        assert_eq!(next(None, None, true, Nonce(1)), Next::Answered);
    }

    #[test]
    fn a_nonce_is_remembered_for_as_long_as_its_request_may_live() {
        let first = after(Known::Base(None), write(1, Some(row(1))), limits(1000, 0)).guard;
        let second = after(Known::Guard(&first), write(2, None), limits(1001, 0)).guard;
        let nonces = |now| {
            let third = after(Known::Guard(&second), write(3, None), limits(now, 0)).guard;
            third.recent.iter().map(|accepted| accepted.nonce.0).collect::<Vec<_>>()
        };
        assert_eq!((nonces(1100), nonces(1101)), (vec![1, 2, 3], vec![2, 3]));
    }
}
