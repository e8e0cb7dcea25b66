use super::*;
use Outcome::{Failed, Ok, Unknown};

/// A write of row 1 at these times. Its token is its value.
fn write(began_us: i64, ended_us: i64, value: &str, outcome: Outcome) -> Operation {
    Operation {
        client: "c".into(),
        began_us,
        ended_us,
        entity: "e".into(),
        key: vec!["1".into()],
        op: Op::Write,
        value: (value != "gone").then(|| value.to_owned()),
        outcome,
        token: (outcome == Ok).then(|| value.to_owned()),
        served_by: None,
    }
}

fn read(began_us: i64, value: Option<&str>, token: Option<&str>) -> Operation {
    Operation {
        op: Op::Read,
        value: value.map(str::to_owned),
        token: token.map(str::to_owned),
        served_by: Some("cassandra".into()),
        ..write(began_us, began_us + 1, "", Ok)
    }
}

fn table(name: &str, value: Option<&str>) -> Table {
    let rows = value.map(|value| (vec!["1".to_owned()], vec![Some(value.to_owned())]));
    Table { entity: "e".into(), name: name.into(), rows: rows.into_iter().collect() }
}

/// The numbers of lost, stale and impossible, with `value` in both stores.
fn counts(operations: &[Operation], value: Option<&str>) -> (usize, usize, usize) {
    let verdict = judge(operations, &[table("mysql", value), table("cassandra", value)]);
    (verdict.lost(), verdict.stale(), verdict.impossible())
}

#[test]
fn a_lost_write_is_caught_in_either_store() {
    let history = [write(1, 2, "a", Ok), write(3, 4, "b", Ok)];
    assert_eq!(counts(&history, Some("b")), (0, 0, 0));
    assert_eq!(counts(&history, Some("a")), (2, 0, 0));
    assert_eq!(counts(&history, None), (2, 0, 0));
    // A value that no journal contains is the initial state.
    assert_eq!(counts(&history, Some("elder")), (2, 0, 0));
    let verdict = judge(&history, &[table("mysql", Some("b")), table("cassandra", Some("a"))]);
    assert_eq!((verdict.lost(), verdict.impossible()), (1, 1));
    let said: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
    assert!(said[0].starts_with("LOST WRITE: cassandra holds \"a\" of e/1"), "{said:?}");
}

#[test]
fn a_row_left_at_its_old_key_is_caught() {
    let mut twice = table("cassandra", Some("b"));
    twice.rows.get_mut(&vec!["1".to_owned()]).unwrap().push(Some("a".into()));
    let verdict = judge(&[write(1, 2, "a", Ok), write(3, 4, "b", Ok)], &[twice]);
    assert_eq!((verdict.lost(), verdict.impossible()), (1, 0));
}

#[test]
fn an_unknown_outcome_may_have_come_or_not_until_a_later_write() {
    let history = [write(1, 2, "a", Ok), write(3, 4, "b", Unknown)];
    for value in ["a", "b"] {
        assert_eq!(counts(&history, Some(value)), (0, 0, 0), "{value}");
    }
    let settled = [&history[..], &[write(5, 6, "c", Ok)]].concat();
    assert_eq!(counts(&settled, Some("c")), (0, 0, 0));
    assert_eq!(counts(&settled, Some("b")), (2, 0, 0));
    let reads = |value| [&history[..], &[read(5, Some(value), Some("a"))]].concat();
    for value in ["a", "b"] {
        assert_eq!(counts(&reads(value), Some("b")), (0, 0, 0), "{value}");
    }
}

#[test]
fn a_refused_write_is_never_seen() {
    let history = [write(1, 2, "a", Ok), write(3, 4, "b", Failed)];
    assert_eq!(counts(&history, Some("a")), (0, 0, 0));
    assert_eq!(counts(&history, Some("b")), (0, 0, 2));
    assert_eq!(counts(&[&history[..], &[read(5, Some("b"), None)]].concat(), Some("a")), (0, 0, 1));
}

#[test]
fn a_stale_read_is_caught_under_its_token() {
    let history = |read| [write(1, 2, "a", Ok), write(3, 4, "b", Ok), read];
    assert_eq!(counts(&history(read(5, Some("b"), Some("b"))), Some("b")), (0, 0, 0));
    assert_eq!(counts(&history(read(5, Some("a"), Some("b"))), Some("b")), (0, 1, 0));
    assert_eq!(counts(&history(read(5, None, Some("b"))), Some("b")), (0, 1, 0));
    assert_eq!(counts(&history(read(5, Some("elder"), Some("b"))), Some("b")), (0, 1, 0));
    // Without the token, or with the token of the older write, this value is allowed.
    assert_eq!(counts(&history(read(5, Some("a"), None)), Some("b")), (0, 0, 0));
    assert_eq!(counts(&history(read(5, Some("a"), Some("a"))), Some("b")), (0, 0, 0));
    // A token that no write returned.
    assert_eq!(counts(&history(read(5, Some("b"), Some("x"))), Some("b")), (0, 0, 1));
}

/// A token covers everything acknowledged before its write began, of other rows as well.
#[test]
fn a_token_covers_the_writes_before_it() {
    let other = |began, ended| Operation { key: vec!["2".into()], ..write(began, ended, "z", Ok) };
    let history = |other, read| [write(1, 4, "a", Ok), other, read];
    let end = [table("mysql", Some("a"))];
    let stale = |operations: &[Operation]| judge(operations, &end).stale();
    assert_eq!(stale(&history(other(5, 6), read(7, None, Some("z")))), 1);
    assert_eq!(stale(&history(other(5, 6), read(7, Some("a"), Some("z")))), 0);
    // Concurrent writes: either order.
    assert_eq!(stale(&history(other(3, 6), read(7, None, Some("z")))), 0);
}

#[test]
fn writes_at_the_same_time_may_come_in_either_order() {
    let history = [write(1, 4, "a", Ok), write(2, 3, "b", Ok)];
    for value in ["a", "b"] {
        assert_eq!(counts(&history, Some(value)), (0, 0, 0), "{value}");
    }
    assert_eq!(counts(&history, None), (2, 0, 0));
}

#[test]
fn a_delete_is_a_write_of_nothing() {
    let history = [write(1, 2, "a", Ok), write(3, 4, "gone", Ok)];
    assert_eq!(counts(&history, None), (0, 0, 0));
    assert_eq!(counts(&history, Some("a")), (2, 0, 0));
    let again = [&history[..], &[write(5, 6, "b", Ok), read(7, None, Some("b"))]].concat();
    assert_eq!(counts(&again, Some("b")), (0, 1, 0));
}

#[test]
fn a_value_from_the_future_or_of_another_row_is_impossible() {
    assert_eq!(counts(&[read(1, Some("a"), None), write(5, 6, "a", Ok)], Some("a")), (0, 0, 1));
    // The initial state may be read until a write is acknowledged.
    assert_eq!(counts(&[read(1, Some("elder"), None)], Some("elder")), (0, 0, 0));
}
