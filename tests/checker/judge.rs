//! The judgement: a pure function of the journals and the rows in the stores.
//!
//! A write X comes before a write Y of the same row if X had ended when Y began. This also holds if the
//! outcome of X is unknown: a server holds the row's lock until it has decided, so an abandoned write cannot
//! take effect after a later one was acknowledged. Concurrent writes may take effect in either order. Each
//! rule below requires certain acknowledged writes. A value is too old if its own write had ended before the
//! last of these began.
//!
//! - The last state of a row must not be older than any acknowledged write, in any table.
//! - A read that carries a write's token must not be older than that write, nor than those that were
//!   acknowledged before that write began.
//! - No value may be seen whose write was refused, had not begun, or is of another row. A value that no
//!   journal contains is the initial state, and older than every write.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde_json::{Value as Json, json};

use crate::journal::{Key, Op, Operation, Outcome};
use crate::stores::Table;

/// A violation of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A store has neither an acknowledged write nor a later one.
    Lost(String),
    /// A read was older than its token.
    Stale(String),
    /// A value that no client wrote to the row, or stores that differ.
    Impossible(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(what) => write!(f, "LOST WRITE: {what}"),
            Self::Stale(what) => write!(f, "STALE READ: {what}"),
            Self::Impossible(what) => write!(f, "IMPOSSIBLE: {what}"),
        }
    }
}

/// The result for all journals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) operations: usize,
    pub(crate) rows: usize,
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
    pub(crate) reads: usize,
    pub(crate) reads_under_token: usize,
    /// Reads by the store that answered.
    pub(crate) served_by: BTreeMap<String, usize>,
    pub(crate) violations: Vec<Violation>,
}

impl Verdict {
    fn count(&self, which: fn(&Violation) -> bool) -> usize {
        self.violations.iter().filter(|violation| which(violation)).count()
    }

    pub(crate) fn lost(&self) -> usize {
        self.count(|violation| matches!(violation, Violation::Lost(_)))
    }

    pub(crate) fn stale(&self) -> usize {
        self.count(|violation| matches!(violation, Violation::Stale(_)))
    }

    pub(crate) fn impossible(&self) -> usize {
        self.count(|violation| matches!(violation, Violation::Impossible(_)))
    }

    pub(crate) fn json(&self) -> Json {
        json!({
            "operations": self.operations,
            "rows": self.rows,
            "writes": {
                "acknowledged": self.acknowledged, "refused": self.refused, "unknown": self.unknown,
            },
            "reads": self.reads,
            "reads_under_token": self.reads_under_token,
            "reads_served_by": self.served_by,
            "lost_writes": self.lost(),
            "stale_reads": self.stale(),
            "impossible": self.impossible(),
            "violations": self.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes acknowledged, {} unknown, {} refused; {} reads, {} of them under a token; {} rows: {} lost \
             writes, {} stale reads, {} impossible values",
            self.acknowledged,
            self.unknown,
            self.refused,
            self.reads,
            self.reads_under_token,
            self.rows,
            self.lost(),
            self.stale(),
            self.impossible()
        )
    }
}

/// The writes of one row.
type Writes<'a> = Vec<&'a Operation>;

/// The age of a value among the writes of its row.
#[derive(Debug, PartialEq, Eq)]
enum Age {
    Allowed,
    TooOld,
    Impossible,
}

/// Judges a value seen at `seen_us`. It must not be older than a write that began at `newest_us`.
fn age(value: Option<&str>, writes: &[&Operation], newest_us: Option<i64>, seen_us: i64) -> Age {
    let of_value = || writes.iter().filter(|write| write.value.as_deref() == value);
    let possible =
        || of_value().filter(|write| write.outcome != Outcome::Failed && write.began_us <= seen_us);
    // The initial state is like a write that ended before all others.
    let initial = value.is_none() || of_value().next().is_none();
    if possible().any(|write| newest_us.is_none_or(|newest| write.ended_us >= newest))
        || initial && newest_us.is_none()
    {
        Age::Allowed
    } else if initial || possible().next().is_some() {
        Age::TooOld
    } else {
        Age::Impossible
    }
}

/// The time when the newest acknowledged write that `counts` accepts began.
fn newest(writes: &[&Operation], counts: impl Fn(&Operation) -> bool) -> Option<i64> {
    let acknowledged = writes.iter().filter(|write| write.outcome == Outcome::Ok && counts(write));
    acknowledged.map(|write| write.began_us).max()
}

fn shown(value: Option<&str>) -> String {
    value.map_or("no row".to_owned(), |value| format!("{value:?}"))
}

fn named((entity, key): &Key) -> String {
    format!("{entity}/{}", key.join("/"))
}

/// Judges the journals, and the last rows in the stores against them.
pub(crate) fn judge(operations: &[Operation], tables: &[Table]) -> Verdict {
    let mut rows: BTreeMap<Key, Writes<'_>> = BTreeMap::new();
    let mut tokens: HashMap<&str, &Operation> = HashMap::new();
    let mut verdict = Verdict { operations: operations.len(), ..Verdict::default() };
    for operation in operations {
        let writes = rows.entry(operation.row()).or_default();
        if operation.op == Op::Read {
            continue;
        }
        match operation.outcome {
            Outcome::Ok => verdict.acknowledged += 1,
            Outcome::Failed => verdict.refused += 1,
            Outcome::Unknown => verdict.unknown += 1,
        }
        writes.push(operation);
        if let (Outcome::Ok, Some(token)) = (operation.outcome, &operation.token) {
            // Several writes can have one token. It stands for the newest of them.
            let known = tokens.entry(token).or_insert(operation);
            if known.began_us < operation.began_us {
                *known = operation;
            }
        }
    }
    verdict.rows = rows.len();
    for read in operations.iter().filter(|o| o.op == Op::Read && o.outcome == Outcome::Ok) {
        verdict.reads += 1;
        verdict.reads_under_token += usize::from(read.token.is_some());
        *verdict.served_by.entry(read.served_by.clone().unwrap_or("?".into())).or_default() += 1;
        verdict.violations.extend(judge_read(read, &rows[&read.row()], &tokens));
    }
    for table in tables {
        for (row, writes) in rows.iter().filter(|(row, _)| row.0 == table.entity) {
            verdict.violations.extend(judge_end(table, row, writes));
        }
    }
    verdict.violations.extend(differing(tables, rows.keys()));
    verdict
}

fn judge_read(
    read: &Operation,
    writes: &[&Operation],
    tokens: &HashMap<&str, &Operation>,
) -> Option<Violation> {
    let what = || {
        let by = read.served_by.as_deref().unwrap_or("?");
        let value = shown(read.value.as_deref());
        format!(
            "client {} read {value} of {} from {by} at {}",
            read.client,
            named(&read.row()),
            read.ended_us
        )
    };
    let newest_us = match read.token.as_deref() {
        None => None,
        Some(token) => {
            let Some(of) = tokens.get(token) else {
                return Some(Violation::Impossible(format!("{}, under a token that no write had", what())));
            };
            newest(writes, |write| std::ptr::eq(write, *of) || write.ended_us < of.began_us)
        }
    };
    match age(read.value.as_deref(), writes, newest_us, read.ended_us) {
        Age::Allowed => None,
        Age::TooOld => Some(Violation::Stale(format!(
            "{}, older than the write under its token that began at {}",
            what(),
            newest_us.unwrap_or_default()
        ))),
        Age::Impossible => {
            Some(Violation::Impossible(format!("{}, whose write was refused or came later", what())))
        }
    }
}

fn judge_end(table: &Table, row: &Key, writes: &[&Operation]) -> Option<Violation> {
    let found = table.rows.get(&row.1).map_or(&[][..], Vec::as_slice);
    if found.len() > 1 {
        let what = format!("{} has {} rows of {}", table.name, found.len(), named(row));
        return Some(Violation::Lost(format!("{what}: its former place was not cleared")));
    }
    let value = found.first().and_then(Option::as_deref);
    let newest_us = newest(writes, |_| true);
    let what = || format!("{} holds {} of {}", table.name, shown(value), named(row));
    match age(value, writes, newest_us, i64::MAX) {
        Age::Allowed => None,
        Age::TooOld => Some(Violation::Lost(format!(
            "{}; a write that began at {} was acknowledged",
            what(),
            newest_us.unwrap_or_default()
        ))),
        Age::Impossible => Some(Violation::Impossible(format!("{}, whose write was refused", what()))),
    }
}

/// Rows for which the tables of one entity hold different values.
fn differing<'a>(tables: &[Table], rows: impl Iterator<Item = &'a Key>) -> Vec<Violation> {
    let differs = |row: &Key| {
        let mut of = tables.iter().filter(|table| table.entity == row.0);
        let first = of.next()?;
        let other = of.find(|table| table.rows.get(&row.1) != first.rows.get(&row.1))?;
        Some(Violation::Impossible(format!(
            "{} and {} do not hold the same of {}",
            first.name,
            other.name,
            named(row)
        )))
    };
    rows.filter_map(differs).collect()
}

#[cfg(test)]
mod tests;
