use super::*;

fn table() -> TableName {
    TableName::new("d", "t")
}

fn fault(changes: Changes) -> TableFault {
    TableFault { reason: "plan".into(), cause: "c".into(), by: "apply".into(), changes }
}

fn offsets(changes: [i64; 2]) -> Offsets {
    Offsets::from([("p.changes".to_owned(), changes.to_vec())])
}

fn halted() -> TableState {
    halt(None, &table(), &fault(Changes::Wait), &offsets([5, 6]), 1).unwrap()
}

#[test]
fn a_table_halts_once_and_keeps_its_first_offsets() {
    let first = halted();
    assert_eq!((first.condition, first.incarnation), (TableCondition::Halted, 1));
    assert_eq!(first.from, offsets([5, 6]));
    assert_eq!(halt(Some(&first), &table(), &fault(Changes::Wait), &offsets([9, 9]), 2), None);
    assert!(!is_applied(Some(&first)) && !is_checked(Some(&first)) && !is_live(Some(&first)));
    assert!(is_captured(Some(&first)));
}

#[test]
fn a_table_that_halts_again_is_replayed_from_the_lower_offsets() {
    let replaying = resume(Some(&halted()), &table(), "cli", 2).unwrap();
    assert_eq!((replaying.condition, &replaying.from), (TableCondition::Replaying, &offsets([5, 6])));
    assert!(is_applied(Some(&replaying)) && !is_checked(Some(&replaying)) && !is_live(Some(&replaying)));
    let again = halt(Some(&replaying), &table(), &fault(Changes::Wait), &offsets([4, 9]), 3).unwrap();
    assert_eq!(again.from, offsets([4, 6]));
    // Once everything is replayed, only what is skipped from now on has to be.
    let verifying = replayed(Some(&replaying), replaying.incarnation, "apply", 3).unwrap();
    assert_eq!(verifying.condition, TableCondition::Verifying);
    let later = halt(Some(&verifying), &table(), &fault(Changes::Wait), &offsets([7, 9]), 4).unwrap();
    assert_eq!(later.from, offsets([7, 9]));
}

#[test]
fn a_replay_or_verification_of_an_earlier_state_does_not_count() {
    let replaying = resume(Some(&halted()), &table(), "cli", 2).unwrap();
    let again = halt(Some(&replaying), &table(), &fault(Changes::Wait), &offsets([5, 6]), 3).unwrap();
    assert_eq!(replayed(Some(&again), replaying.incarnation, "apply", 4), None);
    let second = resume(Some(&again), &table(), "cli", 4).unwrap();
    assert_eq!(replayed(Some(&second), replaying.incarnation, "apply", 5), None);
    let verifying = replayed(Some(&second), second.incarnation, "apply", 5).unwrap();
    assert_eq!(verified(Some(&verifying), second.incarnation, "verify", 6), None);
    let live = verified(Some(&verifying), verifying.incarnation, "verify", 6).unwrap();
    assert!(is_live(Some(&live)) && is_checked(Some(&live)));
    assert_eq!(verified(None, 1, "verify", 6), None);
}

#[test]
fn a_table_that_the_log_lacks_is_rebuilt_only() {
    let lost = halt(Some(&halted()), &table(), &fault(Changes::NotCaptured), &offsets([9, 9]), 2).unwrap();
    assert!(!is_captured(Some(&lost)) && lost.from.is_empty());
    assert_eq!(halt(Some(&lost), &table(), &fault(Changes::Wait), &offsets([9, 9]), 3), None);
    let refused = resume(Some(&lost), &table(), "cli", 3).unwrap_err();
    assert!(
        matches!(refused, TableOrderError::NotReplayable { .. }) && refused.retry() == Disposition::Refuse
    );
    let rebuilt = rebuild(Some(&lost), &table(), 77, "cli", "why", 4);
    assert_eq!((rebuilt.condition, rebuilt.copy_from), (TableCondition::Verifying, Some(77)));
    assert!(is_captured(Some(&rebuilt)) && !is_live(Some(&rebuilt)));
    let live = verified(Some(&rebuilt), rebuilt.incarnation, "verify", 5).unwrap();
    // Later copies still count from this order.
    assert_eq!(live.copy_from, Some(77));
    let again = halt(Some(&live), &table(), &fault(Changes::Wait), &offsets([1, 2]), 6).unwrap();
    assert_eq!(again.copy_from, Some(77));
}

#[test]
fn a_table_whose_changes_have_expired_is_captured_on_and_rebuilt_only() {
    let expired = halt(Some(&halted()), &table(), &fault(Changes::Expired), &offsets([9, 9]), 2).unwrap();
    assert!(is_captured(Some(&expired)) && expired.from.is_empty());
    assert!(matches!(resume(Some(&expired), &table(), "cli", 3), Err(TableOrderError::NotReplayable { .. })));
    assert_eq!(halt(Some(&expired), &table(), &fault(Changes::Wait), &offsets([9, 9]), 3), None);
    let rebuilt = rebuild(Some(&expired), &table(), 77, "cli", "why", 4);
    assert!(rebuilt.replayable);
    // A second order is another one, even at the same watermark.
    assert_eq!(rebuild(Some(&rebuilt), &table(), 77, "cli", "why", 5).copy_from, Some(78));
    assert_eq!(rebuild(Some(&rebuilt), &table(), 99, "cli", "why", 5).copy_from, Some(99));
}

#[test]
fn a_live_table_does_not_resume() {
    for current in [None, Some(rebuild(None, &table(), 1, "cli", "", 1))] {
        let refused = resume(current.as_ref(), &table(), "cli", 2).unwrap_err();
        assert!(matches!(refused, TableOrderError::NotHalted { .. }), "{refused}");
    }
}

#[test]
fn a_rewritten_table_is_verified_again() {
    let first = recheck(None, &table(), "ALTER TABLE", "capture", 5).unwrap();
    assert_eq!((first.condition, first.reason.as_str()), (TableCondition::Verifying, "alter-table"));
    assert!(first.captured && first.copy_from.is_none() && first.from.is_empty());
    assert!(is_redefined(&first));
    // A verification that began before the second statement does not count.
    let second = recheck(Some(&first), &table(), "TRUNCATE", "capture", 6).unwrap();
    assert_eq!(verified(Some(&second), first.incarnation, "verify", 7), None);
    assert!(is_redefined(&second) && is_rewritten(&second), "the definition was changed before");
    let truncated = recheck(None, &table(), "TRUNCATE", "capture", 6).unwrap();
    assert!(!is_redefined(&truncated) && is_rewritten(&truncated));
    let live = verified(Some(&second), second.incarnation, "verify", 7).unwrap();
    assert!(is_live(Some(&live)));
    // These end with a verification anyway.
    let replaying = resume(Some(&halted()), &table(), "cli", 2).unwrap();
    for current in [halted(), replaying] {
        assert_eq!(recheck(Some(&current), &table(), "TRUNCATE", "capture", 6), None);
    }
}
