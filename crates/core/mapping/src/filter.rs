//! Filters: which rows of a MySQL table a target holds.
//!
//! A filter is true or false for every row. It is a CEL expression over the row's columns by name, and it is
//! checked against the columns' types when the plan is compiled. See [`check`] for the allowed expressions
//! and [`Form`] for the types. The crate `cel` parses and evaluates filters.

mod check;
mod env;
mod form;
mod problem;

use std::fmt;
use std::sync::Arc;

use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, Program};
use tandem_model::{Row, TableDef};

use crate::error::PlanProblemKind;
use check::Checker;
use env::ENV;
use form::{Form, cel_value};

pub use problem::FilterProblem;

/// A compiled filter.
#[derive(Clone)]
pub(crate) struct Filter {
    text: Arc<str>,
    program: Arc<Program>,
    /// The columns that the expression uses.
    columns: Vec<Column>,
}

#[derive(Debug, Clone)]
struct Column {
    name: Arc<str>,
    /// Its index in the row.
    index: usize,
    form: Form,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter")
            .field("text", &self.text)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

impl Filter {
    /// Compiles `text` for rows of `table`.
    ///
    /// # Errors
    ///
    /// The text is not CEL, or the check refuses it.
    pub(crate) fn compile(text: &str, table: &TableDef) -> Result<Self, Vec<PlanProblemKind>> {
        let program = ENV.compile(text).map_err(|errors| {
            let problems = errors.errors.iter().map(|error| {
                let (line, column) = error.pos;
                let at = format!("{line}:{column}");
                filter_problem(text, at, FilterProblem::Syntax { message: error.msg.clone() })
            });
            problems.collect::<Vec<_>>()
        })?;
        Self { text: text.into(), program: Arc::new(program), columns: Vec::new() }.resolved(table)
    }

    /// Adapts the filter from the definition `was` to another definition of the table.
    ///
    /// # Errors
    ///
    /// A column of the filter no longer exists, or its values now mean something else. The same rule holds
    /// for mapped columns.
    pub(crate) fn adapt(&self, was: &TableDef, table: &TableDef) -> Result<Self, Vec<PlanProblemKind>> {
        let problems = self.columns.iter().filter_map(|used| {
            let column = used.name.to_string();
            let Some(now) = table.column(&column) else { return Some(PlanProblemKind::Vanished { column }) };
            let now = &table.columns[now].ty;
            let was = &was.columns[used.index].ty;
            (Form::of(now) != Some(used.form)).then(|| PlanProblemKind::FilterColumnChanged {
                column,
                was: was.clone(),
                now: now.clone(),
            })
        });
        let problems: Vec<PlanProblemKind> = problems.collect();
        if problems.is_empty() { self.clone().resolved(table) } else { Err(problems) }
    }

    /// Resolves the columns of the expression in `table` and checks their types.
    fn resolved(mut self, table: &TableDef) -> Result<Self, Vec<PlanProblemKind>> {
        let checker = Checker::check(&self.program, table);
        if !checker.problems.is_empty() {
            let problems = checker.problems.into_iter();
            return Err(problems.map(|(at, problem)| filter_problem(&self.text, at, problem)).collect());
        }
        let columns = checker.columns.into_iter().filter_map(|index| {
            let column = &table.columns[index];
            Some(Column { name: column.name.as_str().into(), index, form: Form::of(&column.ty)? })
        });
        self.columns = columns.collect();
        Ok(self)
    }

    /// The expression as configured.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the filter admits `row`. The row must have as many values as its table has columns.
    ///
    /// # Errors
    ///
    /// The reason why the filter cannot be evaluated, without values of the row.
    pub(crate) fn admits(&self, row: &Row) -> Result<bool, String> {
        for column in &self.columns {
            if let Err(found) = column.form.check(&row[column.index]) {
                return Err(format!("its column `{}` holds a {found}", column.name));
            }
        }
        let names = Names { columns: &self.columns, row };
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(&names);
        match self.program.execute(&context) {
            Ok(cel::Value::Bool(admitted)) => Ok(admitted),
            // The evaluator's own message would contain values of the row.
            _ => Err("the expression is neither true nor false for it".to_owned()),
        }
    }
}

fn filter_problem(expression: &str, at: String, problem: FilterProblem) -> PlanProblemKind {
    PlanProblemKind::Filter { expression: expression.to_owned(), at, problem }
}

/// The columns of one row, by name.
struct Names<'a> {
    columns: &'a [Column],
    row: &'a Row,
}

impl VariableResolver for Names<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let column = self.columns.iter().find(|column| *column.name == *variable)?;
        cel_value(&self.row[column.index])
    }
}
