//! Plans for changes from before an ALTER.

use std::sync::Arc;

use tandem_model::{Change, ColumnDef, ColumnType, TableDef, Value};

use crate::config::OnNewColumn;
use crate::convert::stored_alike;
use crate::plan::{TablePlan, TargetPlan};

/// Converts changes that lack columns of the targets, or hold them in another form.
///
/// Such a column is NULL for it, so a change leaves the cell as it is, or writes NULL. A target whose key was not there gets
/// no write, and a filter that cannot be evaluated admits every row. So this is for changes alone that a later copy of the
/// table overwrites, NULLs and rows outside a filter included. Until then it keeps what the change does hold, and its deletes.
#[derive(Debug)]
pub struct FormerPlan {
    /// The definition of the changes, with the columns that it lacks behind its own.
    plan: Arc<TablePlan>,
    /// The columns whose values mean nothing to the targets.
    hidden: Vec<usize>,
}

impl TablePlan {
    /// The plan for changes under a former definition of the table that [`Self::adapt`] refuses. `None` if the rows are
    /// identified in another way there.
    pub fn former(&self, table: &TableDef) -> Option<FormerPlan> {
        let mut extended = table.clone();
        let mut hidden = Vec::new();
        for column in &self.source.columns {
            let unknown = ColumnDef { nullable: true, ..column.clone() };
            match extended.column(&column.name) {
                None => {
                    hidden.push(extended.columns.len());
                    extended.columns.push(unknown);
                }
                Some(i) if !stored_alike(&column.ty, &extended.columns[i].ty) => {
                    hidden.push(i);
                    extended.columns[i] = unknown;
                }
                Some(_) => {}
            }
        }
        let key = |table: &TableDef| -> Vec<String> {
            let mut names: Vec<_> =
                table.primary_key.iter().map(|&i| table.columns[i].name.clone()).collect();
            names.sort_unstable();
            names
        };
        let is_hidden_key = extended.primary_key.iter().any(|i| hidden.contains(i));
        if table.name != self.source.name || is_hidden_key || key(table) != key(&self.source) {
            return None;
        }
        let has_key = |target: &&TargetPlan| {
            target.key.iter().all(|&i| {
                extended.column(&self.source.columns[i].name).is_some_and(|now| {
                    let column = &extended.columns[now];
                    !column.nullable && !matches!(column.ty, ColumnType::Float | ColumnType::Double)
                })
            })
        };
        let without_unknown = |target: &TargetPlan| TargetPlan {
            filter: target.filter.clone().filter(|filter| filter.adapt(&self.source, table).is_ok()),
            ..target.clone()
        };
        let targets = self.targets.iter().filter(has_key).map(without_unknown).collect();
        let fitting = Self { targets, on_new_column: OnNewColumn::Ignore, ..self.clone() };
        let plan = Arc::new(fitting.adapt(&Arc::new(extended)).ok()?);
        Some(FormerPlan { plan, hidden })
    }
}

impl FormerPlan {
    /// The plan for what [`Self::change`] returns.
    pub fn plan(&self) -> &Arc<TablePlan> {
        &self.plan
    }

    /// Brings a change under the former definition into the plan's form.
    pub fn change(&self, mut change: Change) -> Change {
        let columns = self.plan.source().columns.len();
        for row in [&mut change.before, &mut change.after].into_iter().flatten() {
            row.resize(columns, Value::Null);
            for &i in &self.hidden {
                row[i] = Value::Null;
            }
        }
        change.table = Arc::clone(self.plan.source());
        change
    }
}
