//! The intended differences. A rule applies only if one value follows exactly from the other.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::avro::Column;
use super::binlog::Ends;
use super::events::Event;
use crate::captures::{DEBEZIUM, TANDEM};

/// The field that names the table in the keys of a shared topic.
const TABLE_IDENTIFIER: &str = "__dbz__physicalTableIdentifier";

/// A rule's name and reason.
pub(super) type Rule = (&'static str, &'static str);

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    /// They differ, as this rule requires.
    Meant(Rule),
    Differs,
}

pub(super) const KEYLESS: Rule =
    ("table-without-key", "a table without a primary key has no place in Cassandra: it is not captured");
const RELEASE: Rule = ("source-version", "each names its own release");
const NAME: Rule = ("source-name", "each names its own topic prefix");
const IDENTIFIER: Rule = (
    "key-table-identifier",
    "in a shared topic, the key names the table's topic with each one's own topic prefix",
);
const POSITION: Rule = (
    "source-pos",
    "Debezium tells where the rows' event begins, Tandem where it ends: as a checkpoint would",
);
const ROW: Rule = (
    "source-row",
    "Debezium numbers the rows of an event, Tandem those of the transaction: the checkpoint of one that is partial",
);
const THREAD: Rule = ("source-thread", "Tandem does not read the connection's id");
const SNAPSHOT: Rule =
    ("source-snapshot", "Debezium leaves `false` out, as its schema's default; Tandem writes it");
const VERSION: Rule = ("source-tandem-version", "the version that the change's cells carry in Cassandra");
const PUBLISHED: Rule =
    ("envelope-ts", "Debezium's clock when it made the event; Tandem repeats when the change was committed");
const ORDER: Rule = ("transaction-table-order", "Tandem does not count the changes of each table");
const BIT: Rule =
    ("bit-as-number", "Debezium: BIT(1) is a boolean, BIT(n) bytes, lowest first. Tandem: a number");
const BOOLEAN: Rule = (
    "boolean-as-number",
    "Debezium: a column declared BOOLEAN is a boolean, even where it holds 2. Tandem: a TINYINT, as in MySQL",
);
const YEAR: Rule = ("year-0000", "Debezium reads YEAR 0000 as 1900; MySQL and Tandem say 0");
const DATETIME: Rule =
    ("datetime-in-microseconds", "Debezium: DATETIME up to (3) in milliseconds. Tandem: always microseconds");
const TIMESTAMP: Rule =
    ("timestamp-in-microseconds", "Debezium: text in UTC. Tandem: microseconds since 1970");
const NO_DATE: Rule = (
    "no-date-as-text",
    "zero and partial dates: null or 1970 at Debezium, MySQL's own text at Tandem, where nothing is lost",
);
const JSON: Rule = ("json-as-mysql-prints-it", "the same document, printed as SELECT prints it");
const GEOMETRY: Rule =
    ("geometry-as-bytes", "Debezium: a record of WKB and SRID. Tandem: bytes, SRID then WKB");
const VECTOR: Rule = ("vector-as-bytes", "Debezium: an array of numbers. Tandem: FLOATs of four bytes");

/// One comparison: the place in the event, both values, the verdict.
pub(super) type Compared<'a> = (String, &'a Json, &'a Json, Verdict);

/// Compares two events of a table, field by field.
pub(super) fn compare<'a>(theirs: &'a Event, ours: &'a Event, ends: &Ends) -> Vec<Compared<'a>> {
    let mut all = Vec::new();
    let (key_columns, columns) = &ours.columns;
    row("key", &theirs.key, &ours.key, key_columns, &mut all);
    identifier(&theirs.key, &ours.key, &mut all);
    let (them, us) = (&theirs.envelope, &ours.envelope);
    for name in fields(them, us) {
        match name {
            "before" | "after" => row(name, &them[name], &us[name], columns, &mut all),
            "source" | "transaction" => {
                let (t, u) = (&them[name], &us[name]);
                for field in fields(t, u) {
                    let verdict = if t[field] == u[field] && t.get(field).is_some() == u.get(field).is_some()
                    {
                        Verdict::Same
                    } else {
                        meta(name, field, them, us, ends)
                    };
                    all.push((format!("{name}.{field}"), &t[field], &u[field], verdict));
                }
                if t.is_object() != u.is_object() {
                    all.push((name.to_owned(), t, u, Verdict::Differs));
                }
            }
            "ts_ms" | "ts_us" | "ts_ns" => {
                let meant = us[name] == us["source"][name] && them[name].is_i64();
                let verdict = if meant { Verdict::Meant(PUBLISHED) } else { Verdict::Differs };
                all.push((name.to_owned(), &them[name], &us[name], verdict));
            }
            _ => {
                let same = them[name] == us[name];
                let verdict = if same { Verdict::Same } else { Verdict::Differs };
                all.push((name.to_owned(), &them[name], &us[name], verdict));
            }
        }
    }
    all
}

/// The names of the fields of both.
fn fields<'a>(theirs: &'a Json, ours: &'a Json) -> BTreeSet<&'a str> {
    [theirs, ours].into_iter().filter_map(Json::as_object).flatten().map(|(name, _)| name.as_str()).collect()
}

/// Compares a field of `source` or `transaction`.
fn meta(record: &str, field: &str, theirs: &Json, ours: &Json, ends: &Ends) -> Verdict {
    let (t, u) = (&theirs[record][field], &ours[record][field]);
    let (rule, holds) = match (record, field) {
        ("source", "version") => (RELEASE, t.is_string() && u.is_string()),
        ("source", "name") => (NAME, t == DEBEZIUM && u == TANDEM),
        ("source", "pos") => {
            let file = theirs["source"]["file"].as_str().unwrap_or_default().to_owned();
            let end = t.as_u64().and_then(|begin| ends.get(&(file, begin)));
            (POSITION, end.is_some() && u.as_u64() == end.copied())
        }
        ("source", "row") => {
            let order = theirs["transaction"]["total_order"].as_i64();
            (ROW, order.is_some() && u.as_i64().map(|row| row + 1) == order)
        }
        ("source", "snapshot") => (SNAPSHOT, t.is_null() && u == "false"),
        ("source", "thread") => (THREAD, t.is_u64() && u.is_null()),
        ("source", "tandem_version") => (VERSION, t.is_null() && u.is_i64()),
        ("transaction", "data_collection_order") => (ORDER, t.is_u64() && u.is_null()),
        _ => return Verdict::Differs,
    };
    if holds { Verdict::Meant(rule) } else { Verdict::Differs }
}

/// Compares a row, or a key.
fn row<'a>(place: &str, theirs: &'a Json, ours: &'a Json, columns: &[Column], all: &mut Vec<Compared<'a>>) {
    if theirs.is_null() || ours.is_null() {
        let verdict = if theirs == ours { Verdict::Same } else { Verdict::Differs };
        all.push((place.to_owned(), theirs, ours, verdict));
        return;
    }
    for column in columns {
        let (t, u) = (&theirs[&column.name], &ours[&column.field]);
        let there = theirs.get(&column.name).is_some() && ours.get(&column.field).is_some();
        let verdict = if there { cell(&column.ty, t, u) } else { Verdict::Differs };
        all.push((format!("{place}.{}", column.name), t, u, verdict));
    }
    for (name, value) in theirs.as_object().into_iter().flatten() {
        if name != TABLE_IDENTIFIER && !columns.iter().any(|column| column.name == *name) {
            all.push((format!("{place}.{name}"), value, &Json::Null, Verdict::Differs));
        }
    }
}

/// Compares the names of the tables' topics in the keys of a shared topic.
fn identifier<'a>(theirs: &'a Json, ours: &'a Json, all: &mut Vec<Compared<'a>>) {
    let (t, u) = (&theirs[TABLE_IDENTIFIER], &ours[TABLE_IDENTIFIER]);
    if t.is_null() && u.is_null() {
        return;
    }
    let table = |value: &'a Json, prefix: &str| value.as_str()?.strip_prefix(prefix)?.strip_prefix('.');
    let meant = table(t, DEBEZIUM).is_some() && table(t, DEBEZIUM) == table(u, TANDEM);
    let verdict = if meant { Verdict::Meant(IDENTIFIER) } else { Verdict::Differs };
    all.push((format!("key.{TABLE_IDENTIFIER}"), t, u, verdict));
}

/// Compares a column's values.
fn cell(ty: &str, theirs: &Json, ours: &Json) -> Verdict {
    let name = ty.split(['(', ' ']).next().unwrap_or_default();
    let same = match name {
        // A FLOAT's decimal digits are those of a 32-bit number, not of the double in the JSON.
        "float" => theirs.as_f64().map(|v| v as f32) == ours.as_f64().map(|v| v as f32),
        "double" => theirs.as_f64() == ours.as_f64() && theirs.is_null() == ours.is_null(),
        _ => theirs == ours,
    };
    if same {
        return Verdict::Same;
    }
    let (rule, holds) = match name {
        "tinyint" => (BOOLEAN, theirs.as_bool() == ours.as_i64().map(|v| v != 0) && theirs.is_boolean()),
        "year" => (YEAR, theirs == 1900 && ours == 0),
        "bit" => (BIT, bit(ty, theirs, ours)),
        "date" | "datetime" | "timestamp" if ours.is_string() => (NO_DATE, no_date(theirs, ours)),
        "datetime" => {
            (DATETIME, theirs.as_i64().and_then(|ms| ms.checked_mul(1000)) == ours.as_i64() && ours.is_i64())
        }
        "timestamp" => (TIMESTAMP, instant(theirs) == ours.as_i64() && ours.is_i64()),
        "json" => (JSON, same_document(theirs, ours)),
        "geometry" => (GEOMETRY, geometry(theirs, ours)),
        "vector" => (VECTOR, vector(theirs, ours)),
        _ => return Verdict::Differs,
    };
    if holds { Verdict::Meant(rule) } else { Verdict::Differs }
}

fn bytes(value: &Json) -> Option<Vec<u8>> {
    STANDARD.decode(value.as_str()?).ok()
}

fn bit(ty: &str, theirs: &Json, ours: &Json) -> bool {
    // In JSON, BIT(64) is a decimal: bytes, highest first.
    let ours = match ours {
        Json::String(_) => {
            bytes(ours).and_then(|b| b.iter().try_fold(0_u128, |v, b| Some(v << 8 | u128::from(*b))))
        }
        number => number.as_u64().map(u128::from),
    };
    let theirs = match theirs {
        Json::Bool(set) if ty == "bit(1)" => Some(u128::from(*set)),
        other => {
            bytes(other).and_then(|b| b.iter().rev().try_fold(0_u128, |v, b| Some(v << 8 | u128::from(*b))))
        }
    };
    theirs.is_some() && theirs == ours
}

/// Whether Tandem's text is a date whose month or day is zero.
fn no_date(theirs: &Json, ours: &Json) -> bool {
    let text = ours.as_str().unwrap_or_default();
    let zero = text.get(4..10).is_some_and(|rest| rest.starts_with("-00-") || rest.ends_with("-00"));
    let nothing = theirs.is_null() || theirs == 0 || theirs == "1970-01-01T00:00:00Z";
    zero && nothing
}

/// Microseconds since 1970 of a text in UTC.
fn instant(value: &Json) -> Option<i64> {
    let at = OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1000).ok()
}

fn same_document(theirs: &Json, ours: &Json) -> bool {
    let parse = |value: &Json| serde_json::from_str::<Json>(value.as_str()?).ok();
    parse(theirs).is_some() && parse(theirs) == parse(ours)
}

fn geometry(theirs: &Json, ours: &Json) -> bool {
    let (Some(wkb), Some(ours)) = (bytes(&theirs["wkb"]), bytes(ours)) else { return false };
    let srid = theirs["srid"].as_u64().unwrap_or_default() as u32;
    ours == [&srid.to_le_bytes()[..], &wkb].concat()
}

fn vector(theirs: &Json, ours: &Json) -> bool {
    let (Some(numbers), Some(ours)) = (theirs.as_array(), bytes(ours)) else { return false };
    let bytes: Vec<u8> =
        numbers.iter().filter_map(Json::as_f64).flat_map(|n| (n as f32).to_le_bytes()).collect();
    bytes == ours
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Each rule accepts the difference that it is for, and nothing close to it.
    #[test]
    fn rules_are_narrow() {
        for (ty, theirs, ours, wrong) in [
            ("tinyint", json!(true), json!(2), json!(0)),
            ("year", json!(1900), json!(0), json!(1901)),
            ("bit(1)", json!(true), json!(1), json!(0)),
            ("bit(33)", json!("eFY0EgA="), json!(0x1234_5678), json!(0x7856_3412)),
            ("bit(64)", json!("AAAAAAAAAIA="), json!("AIAAAAAAAAAA"), json!("gAAAAAAAAAA")),
            ("datetime", json!(1500), json!(1_500_000), json!(1_500_001)),
            ("timestamp(6)", json!("1970-01-01T00:00:01.5Z"), json!(1_500_000), json!(1_500_001)),
            ("date", json!(null), json!("0000-00-00"), json!("2024-01-01")),
            ("date", json!(0), json!("2024-02-00"), json!(0.5)),
            ("datetime", json!(null), json!("2024-00-01 00:00:00"), json!("2024-01-01 00:00:00")),
            ("json", json!("{\"a\":1}"), json!("{\"a\": 1}"), json!("{\"a\": 2}")),
            ("geometry", json!({"wkb": "AQI=", "srid": 7}), json!("BwAAAAEC"), json!("CAAAAAEC")),
            ("vector", json!([1.0]), json!("AACAPw=="), json!("AACAPg==")),
        ] {
            assert!(matches!(cell(ty, &theirs, &ours), Verdict::Meant(_)), "{ty} {theirs} {ours}");
            assert_eq!(cell(ty, &theirs, &wrong), Verdict::Differs, "{ty} {theirs} {wrong}");
        }
        for (ty, theirs, ours) in [("int", json!(1), json!(2)), ("text", json!("a"), json!(null))] {
            assert_eq!(cell(ty, &theirs, &ours), Verdict::Differs);
        }
        assert_eq!(cell("float", &json!(0.1), &json!(f64::from(0.1_f32))), Verdict::Same);
        assert_eq!(cell("float", &json!(null), &json!(0.0)), Verdict::Differs);
    }

    #[test]
    fn fields_of_one_side_are_differences() {
        let event = |envelope: Json| Event { key: json!(null), envelope, columns: (Vec::new(), Vec::new()) };
        let theirs = event(json!({"op": "c", "source": {"connector": "mysql", "more": 1}, "extra": 1}));
        let ours = event(json!({"op": "u", "source": {"connector": "mysql"}}));
        let differing: Vec<String> = compare(&theirs, &ours, &Ends::new())
            .into_iter()
            .filter(|(_, _, _, verdict)| *verdict == Verdict::Differs)
            .map(|(place, ..)| place)
            .collect();
        assert_eq!(differing, ["extra", "op", "source.more"]);
    }
}
