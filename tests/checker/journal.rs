//! The clients' journals.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// An entity's name and a row's key, as the client spelled it.
pub(crate) type Key = (String, Vec<String>);

/// The kind of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Op {
    Write,
    Read,
}

/// The outcome of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It was acknowledged.
    Ok,
    /// It was refused: nothing changed.
    Failed,
    /// The client does not know.
    Unknown,
}

/// One line of a journal.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Operation {
    pub(crate) client: String,
    /// The times when the request was sent and when its response arrived or its connection ended, in
    /// microseconds of one clock.
    pub(crate) began_us: i64,
    pub(crate) ended_us: i64,
    pub(crate) entity: String,
    pub(crate) key: Vec<String>,
    pub(crate) op: Op,
    /// The value written or read; none: no row. Written values are unique, except for deletes.
    pub(crate) value: Option<String>,
    pub(crate) outcome: Outcome,
    /// The token of a write's response, or of a read's request.
    pub(crate) token: Option<String>,
    /// The store that answered a read.
    pub(crate) served_by: Option<String>,
}

impl Operation {
    pub(crate) fn row(&self) -> Key {
        (self.entity.clone(), self.key.clone())
    }
}

/// Reads journals.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Operation>> {
    let mut all = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        all.extend(parse(&text).with_context(|| format!("understand {}", path.display()))?);
    }
    ensure!(!all.is_empty(), "the journals are empty: they prove nothing");
    Ok(all)
}

fn parse(text: &str) -> Result<Vec<Operation>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let at = || format!("line {}", number + 1);
            let operation: Operation = serde_json::from_str(line).with_context(at)?;
            ensure!(operation.began_us < operation.ended_us, "{}: it ended before it began", at());
            Ok(operation)
        })
        .collect()
}

/// Every row that the journals name.
pub(crate) fn keys(operations: &[Operation]) -> BTreeSet<Key> {
    operations.iter().map(Operation::row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_operation() {
        let line = r#"{"client": "a", "began_us": 1, "ended_us": 2, "entity": "e", "key": ["1"], "op": "read",
                       "value": null, "outcome": "ok", "token": "t", "served_by": "mysql"}"#;
        let read = parse(&line.replace('\n', " ")).unwrap();
        assert_eq!((read.len(), read[0].op, read[0].row()), (1, Op::Read, ("e".into(), vec!["1".into()])));
    }

    #[test]
    fn what_is_no_operation_is_named_by_its_line() {
        for bad in [
            "{}",
            "nonsense",
            r#"{"client": "a", "began_us": 3, "ended_us": 2, "entity": "e", "key": [], "op": "read", "outcome": "ok"}"#,
        ] {
            let error = format!("{:#}", parse(&format!("\n{bad}")).unwrap_err());
            assert!(error.starts_with("line 2"), "{error}");
        }
    }
}
