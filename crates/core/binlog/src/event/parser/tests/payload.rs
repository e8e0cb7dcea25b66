//! Compressed transactions, intact and damaged, and XA transactions.

use super::*;

const XA_PREPARE: u8 = 38;

fn event(kind: u8, body: &[u8]) -> Vec<u8> {
    let size = (body.len() as u32 + 19).to_le_bytes();
    [&[0, 0, 0, 0, kind, 9, 0, 0, 0][..], &size, &[0; 6], body].concat()
}

/// The events of a transaction without its GTID event.
fn events() -> Vec<u8> {
    let write = [&rows_head(1, &[0x1f]), ROW].concat();
    [
        event(QUERY, &query("BEGIN")),
        event(TABLE_MAP, &table_map(1, "wanted")),
        event(WRITE, &write),
        event(WRITE, &write),
        event(XID, &[0; 8]),
    ]
    .concat()
}

fn body(compression: u8, size: usize, bytes: &[u8]) -> Vec<u8> {
    let sized = |kind: u8, n: usize| [&[kind, 9, 254][..], &(n as u64).to_le_bytes()].concat();
    [&[2, 3, 252, compression, 0][..], &sized(3, size), &sized(1, bytes.len()), &[0], bytes].concat()
}

fn compressed(events: &[u8]) -> Vec<u8> {
    body(0, events.len(), &zstd::encode_all(events, 3).unwrap())
}

/// All events of a compressed transaction.
fn inflate(body: &[u8]) -> Result<Vec<BinlogEvent>, DecodeError> {
    let mut parser = parser();
    feed(&mut parser, GTID, 100, &gtid())?;
    let mut out: Vec<_> = feed(&mut parser, PAYLOAD, 900, body)?.into_iter().collect();
    while let Some(event) = parser.more()? {
        out.push(event);
    }
    Ok(out)
}

#[test]
fn a_compressed_transaction_yields_the_same_events() {
    let stored = body(255, events().len(), &events());
    for body in [compressed(&events()), stored] {
        let found = inflate(&body).unwrap();
        let [BinlogEvent::Begin { commit_us: 7, .. }, BinlogEvent::Rows(one), BinlogEvent::Rows(two), commit] =
            &found[..]
        else {
            panic!("{found:?}")
        };
        assert_eq!(values(one), [(None, Some(row()))]);
        // All its events have its end as their position.
        assert_eq!((one.end, two.end), (900, 900));
        assert_eq!(*commit, BinlogEvent::Commit { position: at("binlog.000001", 900) });
    }
}

#[test]
fn a_damaged_payload_is_an_error_with_the_position() {
    let whole = compressed(&events());
    let refused = |body: &[u8], text: &str| {
        let error = inflate(body).unwrap_err().to_string();
        assert!(error.contains("binlog.000001:900") && error.contains(text), "{error}");
    };
    // A payload without a commit, an empty one, one with an event after the commit, and one with another
    // transaction.
    let events = events();
    refused(&compressed(&events[..events.len() - 27]), "inside a transaction");
    refused(&compressed(&[]), "inside a transaction");
    refused(&compressed(&[&events[..], &event(XID, &[0; 8])].concat()), "has not begun");
    refused(&compressed(&event(GTID, &gtid())), "inside a compressed transaction");
    refused(&compressed(&event(PAYLOAD, &whole)), "inside a compressed transaction");
    // A truncated payload, sizes too small and too large, and an event longer than the payload.
    let inner = zstd::encode_all(&events[..], 3).unwrap();
    for end in 0..inner.len() {
        refused(&body(0, events.len(), &inner[..end]), "its payload");
    }
    refused(&body(0, events.len() - 1, &inner), "more than it says");
    refused(&body(0, events.len() + 1, &inner), "too early");
    let mut huge = events.clone();
    huge[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    refused(&compressed(&huge), "too early");
    refused(&body(7, events.len(), &inner), "not known");
    for end in 0..whole.len() {
        assert!(inflate(&whole[..end]).is_err(), "{end}");
    }
    // Inverting any single byte yields an error or rows that can be decoded.
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        for event in inflate(&damaged).into_iter().flatten() {
            if let BinlogEvent::Rows(rows) = event {
                values(&rows);
            }
        }
    }
}

#[test]
fn xa_transactions_are_decoded() {
    let prepare = |one_phase: u8| [&[one_phase][..], &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], b"a"].concat();
    let begin = |parser: &mut EventParser| {
        feed(parser, GTID, 100, &gtid()).unwrap();
        let begun = feed(parser, QUERY, 200, &query("XA START X'61',X'',1")).unwrap();
        assert!(matches!(begun, Some(BinlogEvent::Begin { xa: Some(xid), .. }) if xid == "X'61',X'',1"));
        assert_eq!(feed(parser, QUERY, 300, &query("XA END X'61',X'',1")), Ok(None));
    };
    let mut parser = parser();
    begin(&mut parser);
    let position = at("binlog.000001", 400);
    assert_eq!(
        feed(&mut parser, XA_PREPARE, 400, &prepare(0)),
        Ok(Some(BinlogEvent::Prepared { position: position.clone() }))
    );
    for (sql, commits) in [("XA COMMIT X'61',X'',1", true), ("XA ROLLBACK X'61',X'',1", false)] {
        feed(&mut parser, GTID, 400, &gtid()).unwrap();
        let event = feed(&mut parser, QUERY, 400, &query(sql)).unwrap().unwrap();
        let BinlogEvent::Decided { xid, committed, position: end, commit_us: 7, .. } = event else {
            panic!("{event:?}")
        };
        assert_eq!((xid.as_str(), committed, &end), ("X'61',X'',1", commits, &position));
    }
    begin(&mut parser);
    assert_eq!(feed(&mut parser, XA_PREPARE, 400, &prepare(1)), Ok(Some(BinlogEvent::Commit { position })));
    begin(&mut parser);
    assert!(feed(&mut parser, XID, 400, &[]).is_err(), "an XID event does not end an XA transaction");
}
