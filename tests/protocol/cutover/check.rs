//! The check of the row while Cassandra decides, its repair, and the corruption that it is there to find.

use tandem_mapping::Difference;
use tandem_model::Version;
use tandem_protocol::cutover::check::{
    TargetRow, differing, judge_mysql, judge_targets, judge_unguarded, repair,
};
use tandem_protocol::cutover::guard::NativeWrite;
use tandem_protocol::row_check::{TargetDifference, Verdict};

use crate::cassandra::{Place, Put, Write};
use crate::cutover::action::Action;
use crate::cutover::bridge::{Guard, Img, PLACES, keys_of, nonce, plan, product, row, stored};
use crate::cutover::rules::{Cutover, Rule};
use crate::cutover::state::{Begun, Check, Kind, REPAIR, State, Wrong};

impl Cutover {
    pub(crate) fn check_actions(&self, state: &State, actions: &mut Vec<Action>) {
        match state.check {
            Check::Idle if state.left.checks > 0 && !state.record.is_mysqls() => {
                let guarded = self.guard_to_check(state).version > 0;
                let kinds = if guarded { &[Kind::Targets, Kind::Mysql][..] } else { &[Kind::Unguarded] };
                actions.extend(kinds.iter().map(|kind| Action::CheckBegins(*kind)));
            }
            Check::Guard(begun) => {
                let waits = begun.kind == Kind::Targets
                    && state.done[self.table_of(begun.epoch)] < begun.guard.version
                    && !self.broken(Rule::CheckWaitsForDone);
                if !waits {
                    actions.push(Action::CheckReads);
                }
            }
            Check::Half { .. } | Check::Targets { .. } => actions.push(Action::CheckReads),
            Check::Compared { .. } => actions.push(Action::CheckReadsTheGuardAgain),
            Check::Again { .. } => actions.push(Action::CheckEnds),
            Check::Idle | Check::Repair { .. } => {}
        }
        if state.left.corruptions > 0 && !state.record.is_mysqls() {
            let newest = state.newest_version();
            for place in 0..PLACES {
                match state.places[place].read() {
                    None => {
                        let write = Write::Upsert([Put::Value(3), Put::Unset]);
                        actions.push(Action::Corrupt { place, write, at: newest + 2 });
                    }
                    Some(cells) => {
                        let cell = usize::from(place == 0);
                        actions.push(Action::Corrupt { place, write: Write::Delete, at: newest });
                        for value in [3, cells[cell].unwrap_or(3)] {
                            let write = Write::Foreign(cell, value);
                            actions.push(Action::Corrupt { place, write, at: newest + 2 });
                        }
                    }
                }
            }
        }
    }

    /// The guard that a check reads: that of its epoch, or, where that rule is broken, the newest there is.
    fn guard_to_check(&self, state: &State) -> Guard {
        let own = state.guards[self.table_of(state.record.epoch)];
        if own.version == 0 && self.broken(Rule::CheckUsesItsEpochsGuards) { state.guards[0] } else { own }
    }

    pub(crate) fn check(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::CheckBegins(kind) => {
                state.left.checks -= 1;
                state.check = Check::Guard(Begun {
                    kind,
                    epoch: state.record.epoch,
                    guard: self.guard_to_check(state),
                    after_the_corruption: state.corrupted,
                });
            }
            Action::CheckReads => state.check = self.check_reads(state)?,
            Action::CheckReadsTheGuardAgain => {
                let Check::Compared { begun, kept, differ, places, newest } = state.check else {
                    return None;
                };
                let again = if self.broken(Rule::CheckReadsTheGuardAgain) {
                    begun.guard
                } else if begun.guard == state.guards[0] {
                    state.guards[0]
                } else {
                    state.guards[self.table_of(begun.epoch)]
                };
                state.check = Check::Again { begun, kept, differ, places, newest, again };
            }
            Action::CheckEnds => self.check_ends(state)?,
            Action::Corrupt { place, write, at } => {
                state.left.corruptions -= 1;
                state.places[place].apply(at.into(), write);
                state.corrupted = true;
            }
            _ => return None,
        }
        Some(())
    }

    fn check_reads(&self, state: &State) -> Option<Check> {
        let mysql_differs = |begun: Begun, mysql: Img, kept: u8| Check::Compared {
            begun,
            kept,
            differ: mysql != begun.guard.image,
            places: 0,
            newest: 0,
        };
        Some(match state.check {
            Check::Guard(begun) => match begun.kind {
                Kind::Targets => Check::Half { begun, mysql: state.mysql },
                Kind::Mysql if self.broken(Rule::CheckReadsOneSnapshot) => {
                    Check::Half { begun, mysql: state.mysql }
                }
                Kind::Mysql => mysql_differs(begun, state.mysql, state.kept),
                Kind::Unguarded => Check::Targets { begun, places: state.places },
            },
            Check::Half { begun, mysql } if begun.kind == Kind::Mysql => {
                mysql_differs(begun, mysql, state.kept)
            }
            Check::Half { begun, .. } => {
                let newest = Version(begun.guard.version.into());
                self.compared(begun, begun.guard.image, &state.places, newest)
            }
            Check::Targets { begun, places } => {
                let below = Version(i64::from(state.floors[self.table_of(begun.epoch)]) - 1);
                self.compared(begun, state.mysql, &places, below)
            }
            _ => return None,
        })
    }

    /// Compares the targets by the product's functions.
    fn compared(&self, begun: Begun, image: Img, places: &[Place; PLACES], newest: Version) -> Check {
        let newest = if self.broken(Rule::CheckComparesWritetimes) { Version(i64::MAX) } else { newest };
        let found = found(image, places, newest);
        let ignored = |d: &TargetDifference| {
            d.difference == Difference::Extra && self.broken(Rule::CheckComparesExtraRows)
        };
        let found: Vec<TargetDifference> = found.into_iter().filter(|d| !ignored(d)).collect();
        let differs = |place: &usize| {
            let key = keys_of(1 << place);
            found.iter().any(|d| {
                let named =
                    d.difference == Difference::Extra || !self.broken(Rule::RepairNamesAllThatDiffered);
                named && key.contains(&(d.target, d.key.clone()))
            })
        };
        let writetimes = found.iter().flat_map(|d| &d.writetimes).max();
        Check::Compared {
            begun,
            kept: 0,
            differ: !found.is_empty(),
            places: (0..PLACES).filter(differs).fold(0, |bits, place| bits | 1 << place),
            newest: writetimes.map_or(0, |at| *at as u8),
        }
    }

    fn check_ends(&self, state: &mut State) -> Option<()> {
        let Check::Again { begun, kept, differ, places, newest, again } = state.check else { return None };
        let same_epoch = state.record.epoch == begun.epoch || self.broken(Rule::CheckAsksForTheEpoch);
        let again = product(again);
        let verdict = match (begun.kind, product(begun.guard)) {
            (Kind::Targets, Some(guard)) => {
                let done = if self.broken(Rule::CheckWaitsForDone) {
                    guard.version
                } else {
                    Version(state.done[self.table_of(begun.epoch)].into())
                };
                judge_targets(&guard, Some(done), again.as_ref(), differ, same_epoch)
            }
            (Kind::Mysql, Some(guard)) => {
                let kept = Version(kept.into());
                let kept = if self.broken(Rule::CheckComparesTheKeptVersion) { guard.version } else { kept };
                judge_mysql(&guard, Some(kept), differ, same_epoch)
            }
            _ => judge_unguarded(again.as_ref(), differ, same_epoch),
        };
        state.check = Check::Idle;
        match verdict {
            Verdict::Mismatch if !state.corrupted => state.wrong = Some(Wrong::FalseAlarm),
            Verdict::Mismatch if begun.kind == Kind::Targets => {
                state.check = Check::Repair { places, newest }
            }
            // The guard has not changed since, so what is wrong now was wrong then.
            Verdict::Match if begun.after_the_corruption && begun.kind == Kind::Targets => {
                let version = Version(begun.guard.version.into());
                if !found(begun.guard.image, &state.places, version).is_empty() {
                    state.wrong = Some(Wrong::Missed);
                }
            }
            _ => {}
        }
        Some(())
    }

    /// The product's repair of what a check has found, as a native write.
    pub(crate) fn repair(&self, image: Img, places: u8, newest: u8) -> NativeWrite {
        let writetimes = Some(newest.into()).filter(|_| !self.broken(Rule::RepairIsAboveTheWritetimes));
        let difference = |(target, key)| TargetDifference {
            target,
            key,
            difference: Difference::Extra,
            writetimes: writetimes.into_iter().collect(),
        };
        // The base target's row is there for its writetime: the image has its key.
        let places = if self.broken(Rule::RepairNamesAllThatDiffered) { places | 1 } else { places };
        let found: Vec<TargetDifference> = keys_of(places).into_iter().map(difference).collect();
        let guard = product(Guard { version: 1, image, ..Guard::default() });
        let guard = guard.unwrap_or_else(|| unreachable!("its version is not 0"));
        let mut write = NativeWrite { image: row(image), ..repair(&guard, &found, nonce(REPAIR + 1)) };
        if self.broken(Rule::RepairDeletesExtraRows) {
            write.extra.clear();
        }
        write
    }
}

/// The target rows that are not what they must be, by the product's function.
fn found(image: Img, places: &[Place; PLACES], newest: Version) -> Vec<TargetDifference> {
    let keys = keys_of(0b111).into_iter().enumerate();
    let rows = keys.map(|(place, (target, key))| TargetRow { target, key, stored: stored(place, places) });
    differing(plan(), row(image).as_ref(), &rows.collect::<Vec<_>>(), newest).unwrap()
}

#[test]
fn what_the_model_calls_right_the_product_calls_equal() {
    use crate::cutover::bridge::{is_right, native_writes};
    for (image, other) in (0..=8).flat_map(|image| (0..=8).map(move |other| (Img(image), Img(other)))) {
        let mut places = [Place::default(); PLACES];
        for (place, write) in native_writes(image, 0) {
            places[*place].apply(1, *write);
        }
        let right = (0..PLACES).all(|place| is_right(place, other, &places));
        assert_eq!(right, found(other, &places, Version(1)).is_empty(), "{image:?} {other:?}");
        assert_eq!(right, image == other);
    }
}
