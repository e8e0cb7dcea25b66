//! The judgement, a plain function of journals and what the stores hold.
//!
//! A write X comes before a write Y of the same row if it had ended when Y began. That holds for a write
//! of unknown outcome too: a server holds the row's lock until it has made up its mind, so a write that
//! was given up cannot come about after a later one was acknowledged. Writes at the same time may have
//! come in either order. So a value is older than the acknowledged writes that it must not be older than
//! if its own write had ended before the last of them began.
//!
//! - The last state of a row must not be older than any acknowledged write, in any table.
//! - A read that carries a write's token must not be older than that write, nor than those that were
//!   acknowledged before that write began.
//! - No value may be seen whose write was refused, had not begun, or is of another row. A value that no
//!   journal knows is what was there before, and is older than every write.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde_json::{Value as Json, json};

use crate::journal::{Key, Op, Operation, Outcome};
use crate::stores::Table;

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// An acknowledged write is not in a store, nor is one after it.
    Lost(String),
    /// A read was older than its token.
    Stale(String),
    /// A value that nobody wrote there, or stores that differ.
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

/// What the journals say.
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

/// How a value looks beside the writes of its row.
#[derive(Debug, PartialEq, Eq)]
enum Looks {
    Right,
    Old,
    Never,
}

/// Judges a value seen at `seen_us`. It must not be older than a write that began at `newest_us`.
fn look(value: Option<&str>, writes: &[&Operation], newest_us: Option<i64>, seen_us: i64) -> Looks {
    let of_value = || writes.iter().filter(|write| write.value.as_deref() == value);
    let possible =
        || of_value().filter(|write| write.outcome != Outcome::Failed && write.began_us <= seen_us);
    // The state of before is like a write that ended before all others.
    let initial = value.is_none() || of_value().next().is_none();
    if possible().any(|write| newest_us.is_none_or(|newest| write.ended_us >= newest))
        || initial && newest_us.is_none()
    {
        Looks::Right
    } else if initial || possible().next().is_some() {
        Looks::Old
    } else {
        Looks::Never
    }
}

/// When the newest of the acknowledged writes began that `counts` lets in.
fn newest(writes: &[&Operation], counts: impl Fn(&Operation) -> bool) -> Option<i64> {
    let acknowledged = writes.iter().filter(|write| write.outcome == Outcome::Ok && counts(write));
    acknowledged.map(|write| write.began_us).max()
}

fn said(value: Option<&str>) -> String {
    value.map_or("no row".to_owned(), |value| format!("{value:?}"))
}

fn named((entity, key): &Key) -> String {
    format!("{entity}/{}", key.join("/"))
}

/// Judges journals by themselves and by what the stores hold of their rows in the end.
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
            // A token that stands for several writes stands for the newest of them.
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
        let value = said(read.value.as_deref());
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
    match look(read.value.as_deref(), writes, newest_us, read.ended_us) {
        Looks::Right => None,
        Looks::Old => Some(Violation::Stale(format!(
            "{}, older than the write under its token that began at {}",
            what(),
            newest_us.unwrap_or_default()
        ))),
        Looks::Never => {
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
    let what = || format!("{} holds {} of {}", table.name, said(value), named(row));
    match look(value, writes, newest_us, i64::MAX) {
        Looks::Right => None,
        Looks::Old => Some(Violation::Lost(format!(
            "{}; a write that began at {} was acknowledged",
            what(),
            newest_us.unwrap_or_default()
        ))),
        Looks::Never => Some(Violation::Impossible(format!("{}, whose write was refused", what()))),
    }
}

/// Rows of which the tables of one entity hold different values.
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
