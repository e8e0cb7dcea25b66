//! XA transactions are published at XA COMMIT, whatever happens between XA PREPARE and XA COMMIT.

use super::*;

const XID: &str = "X'61',X'',1";
const OTHER: &str = "X'62',X'',1";

fn xa(number: u64, xid: &str) -> BinlogEvent {
    BinlogEvent::Begin {
        gtid: gtid(number),
        commit_us: 2000,
        server_id: SERVER,
        origin: Origin::Other,
        xa: Some(xid.into()),
    }
}

fn prepared(pos: u64) -> BinlogEvent {
    BinlogEvent::Prepared { position: at(pos) }
}

fn decided(number: u64, xid: &str, committed: bool, pos: u64) -> BinlogEvent {
    BinlogEvent::Decided {
        gtid: gtid(number),
        commit_us: 3000,
        server_id: SERVER,
        xid: xid.into(),
        committed,
        position: at(pos),
    }
}

fn without(set: &GtidSet, number: u64) -> GtidSet {
    let mut one = GtidSet::default();
    one.insert(&gtid(number));
    set.minus(&one)
}

/// The row ids of a prepared transaction that exceeds the memory limit.
const MANY: [i64; 40] = {
    let mut ids = [0; 40];
    let mut i = 0;
    while i < 40 {
        ids[i] = i as i64;
        i += 1;
    }
    ids
};

#[test]
fn rows_are_out_at_the_commit_and_the_checkpoint_lacks_the_prepare_until_then() {
    let t = table("t");
    let mut assembler = assembler();
    feed(&mut assembler, [xa(2, XID), insert(&t, &[1, 2]), prepared(1100)]);
    feed(&mut assembler, [begin(3, 2500), insert(&t, &[3]), commit(1200)]);
    let (batch, before) = assembler.take(None);
    assert_eq!(brief(&batch), [("c", None, Some(3))]);
    assert_eq!(
        (&before.gtid_set, &before.position, &before.partial),
        (&without(&upto(3), 2), &at(1200), &None)
    );

    feed(&mut assembler, [decided(4, XID, true, 1300)]);
    let (batch, after) = assembler.take(None);
    assert_eq!(brief(&batch), [("c", None, Some(1)), ("c", None, Some(2))]);
    assert_eq!(versions(&batch), [3000, 3001], "minted at the commit");
    let Content::Row(change) = Decoder::new().content(&batch.records[1]) else { panic!() };
    assert_eq!(
        (change.source.gtid, change.source.pos, change.source.row),
        (Some(gtid(4).to_string()), 1300, 1)
    );
    assert_eq!((after.gtid_set, after.position), (upto(4), at(1300)));

    // MySQL sends the prepared transaction again to a capture that resumes from the watermark in between.
    let mut replay = Assembler::resume(config(), &before);
    feed(&mut replay, [xa(2, XID), insert(&t, &[1, 2]), prepared(1100), decided(4, XID, true, 1300)]);
    let (repeated, _) = replay.take(None);
    let same = |batch: &Batch| batch.records.iter().map(|r| (r.value.clone(), r.version)).collect::<Vec<_>>();
    assert_eq!(same(&repeated), same(&batch));
}

#[test]
fn a_rollback_publishes_nothing() {
    let t = table("t");
    let mut assembler = assembler();
    feed(&mut assembler, [xa(2, XID), insert(&t, &[1]), prepared(1100)]);
    feed(&mut assembler, [xa(3, OTHER), insert(&t, &[2]), prepared(1200)]);
    feed(&mut assembler, [decided(4, XID, false, 1300), decided(5, OTHER, true, 1400)]);
    // The xid may be used again.
    feed(&mut assembler, [xa(6, XID), insert(&t, &[3]), prepared(1500), decided(7, XID, true, 1600)]);
    // A rollback of a transaction prepared before the log began needs nothing.
    feed(&mut assembler, [decided(8, "X'63',X'',1", false, 1700)]);
    let (batch, watermark) = assembler.take(None);
    assert_eq!(brief(&batch), [("c", None, Some(2)), ("c", None, Some(3))]);
    assert_eq!(watermark.gtid_set, upto(8));
    let refused = refusal(&start(), [decided(2, XID, true, 1100)]);
    assert!(matches!(refused, AssembleError::NotPrepared { .. }), "{refused}");
}

#[test]
fn one_phase_is_a_transaction_like_any_other() {
    let t = table("t");
    let mut assembler = assembler();
    feed(&mut assembler, [xa(2, XID), insert(&t, &[1]), commit(1100)]);
    let (batch, watermark) = assembler.take(None);
    assert_eq!((brief(&batch).len(), versions(&batch)[0], watermark.gtid_set), (1, 2000, upto(2)));
    let partial = partial_at(1, 2000);
    let found = refusal(&partial, [xa(3, XID), insert(&t, &[1]), commit(1100)]);
    assert!(matches!(found, AssembleError::PartialMissing { .. }), "{found}");
}

#[test]
fn rows_beyond_the_limit_are_read_again() {
    let t = table("t");
    let mut assembler = assembler();
    feed(&mut assembler, [xa(2, XID), insert(&t, &MANY), prepared(1100)]);
    assert_eq!(assembler.rows_needed(), None);
    feed(&mut assembler, [decided(3, XID, true, 1200)]);
    assert_eq!(assembler.rows_needed(), Some(&gtid(2)));
    // Other transactions may come with it. A batch may end inside it.
    feed(&mut assembler, [idle(4), begin(9, 9), insert(&t, &[99]), commit(90), xa(2, XID)]);
    feed(&mut assembler, [insert(&t, &MANY[..30])]);
    let (first, partial) = assembler.take(None);
    assert_eq!(
        (&partial.gtid_set, &partial.partial),
        (&upto(1), &Some(PartialTransaction { gtid: gtid(3), rows: 30 }))
    );
    feed(&mut assembler, [insert(&t, &MANY[30..]), prepared(1100)]);
    assert_eq!(assembler.rows_needed(), None);
    let (second, whole) = assembler.take(None);
    assert_eq!((whole.gtid_set, whole.position, whole.partial), (upto(3), at(1200), None));
    assert_eq!((first.rows, second.rows), (30, 10));

    // A capture that resumes from the partial watermark publishes the same rows once.
    let mut replay = Assembler::resume(config(), &partial);
    feed(&mut replay, [xa(2, XID), insert(&t, &MANY), prepared(1100), decided(3, XID, true, 1200)]);
    assert_eq!(replay.take(None).1.partial, partial.partial, "it is still partial");
    feed(&mut replay, [xa(2, XID), insert(&t, &MANY), prepared(1100)]);
    let (repeated, _) = replay.take(None);
    assert_eq!(brief(&repeated), brief(&second));
}

/// One limit applies to all pending XA transactions together.
#[test]
fn pending_transactions_share_one_limit() {
    let t = table("t");
    let mut assembler = assembler();
    feed(&mut assembler, [xa(2, XID), insert(&t, &[1, 2, 3]), prepared(1100)]);
    feed(&mut assembler, [xa(3, OTHER), insert(&t, &[4, 5, 6]), prepared(1200)]);
    feed(&mut assembler, [decided(4, XID, true, 1300)]);
    assert_eq!(assembler.rows_needed(), None);
    feed(&mut assembler, [decided(5, OTHER, true, 1400)]);
    assert_eq!(assembler.rows_needed(), Some(&gtid(3)));
}
