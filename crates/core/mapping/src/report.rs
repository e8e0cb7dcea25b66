//! Collects the problems of a mapping.

use tandem_model::{ColumnType, TableDef};

use crate::error::{PlanError, PlanProblem, PlanProblemKind};

/// Collects problems with their locations.
pub(crate) struct Report {
    table: String,
    /// The current target.
    pub(crate) target: Option<String>,
    pub(crate) problems: Vec<PlanProblem>,
}

impl Report {
    pub(crate) fn new(table: String) -> Self {
        Self { table, target: None, problems: Vec::new() }
    }

    pub(crate) fn add(&mut self, kind: PlanProblemKind) {
        self.problems.push(PlanProblem { table: self.table.clone(), target: self.target.clone(), kind });
    }

    /// Returns the part, or adds its problems.
    pub(crate) fn keep<T>(&mut self, part: Result<T, Vec<PlanProblemKind>>) -> Option<T> {
        part.map_err(|problems| problems.into_iter().for_each(|kind| self.add(kind))).ok()
    }

    pub(crate) fn into_error(self) -> PlanError {
        PlanError { problems: self.problems }
    }

    pub(crate) fn finish<T>(self, plan: T) -> Result<T, PlanError> {
        if self.problems.is_empty() { Ok(plan) } else { Err(self.into_error()) }
    }
}

/// Checks the key of a target: no column may be NULL or floating point, and the key must contain the whole
/// primary key of the source.
///
/// Returns the index in the key of each column of that primary key.
pub(crate) fn check_key(table: &TableDef, key: &[usize], report: &mut Report) -> Vec<usize> {
    for &i in key {
        let column = &table.columns[i];
        if column.nullable {
            report.add(PlanProblemKind::NullableKey { column: column.name.clone() });
        }
        if matches!(column.ty, ColumnType::Float | ColumnType::Double) {
            report.add(PlanProblemKind::FloatKey { column: column.name.clone() });
        }
    }
    let place = |i: &usize| key.iter().position(|k| k == i);
    let missing: Vec<String> = table
        .primary_key
        .iter()
        .filter(|&i| place(i).is_none())
        .map(|&i| table.columns[i].name.clone())
        .collect();
    if !missing.is_empty() {
        report.add(PlanProblemKind::KeyLacksSourceKey { missing });
    }
    table.primary_key.iter().filter_map(place).collect()
}
