//! Plans: a table's configuration with every name resolved.

use std::fmt::Write as _;
use std::sync::Arc;

use tandem_model::{TableDef, TargetTable};

use crate::config::{OnBadRow, OnNewColumn, ZeroDates};
use crate::convert::stored_alike;
use crate::error::{PlanError, PlanProblemKind};
use crate::filter::Filter;
use crate::report::{Report, check_key};

/// Converts rows of a MySQL table, under one definition of it, to rows of its targets.
#[derive(Debug, Clone)]
pub struct TablePlan {
    pub(crate) source: Arc<TableDef>,
    pub(crate) on_new_column: OnNewColumn,
    pub(crate) on_bad_row: OnBadRow,
    pub(crate) zero_dates: ZeroDates,
    pub(crate) targets: Vec<TargetPlan>,
}

/// One target of a [`TablePlan`].
#[derive(Debug, Clone)]
pub struct TargetPlan {
    /// The target table's name in mutations.
    pub(crate) name: Arc<str>,
    pub(crate) table: Arc<TargetTable>,
    /// The source column of each key column.
    pub(crate) key: Vec<usize>,
    /// The source column of each regular column.
    pub(crate) regular: Vec<usize>,
    /// The index in the target's key of each column of the source's primary key.
    pub(crate) source_key: Vec<usize>,
    /// The names of source columns that are excluded. They may be added and dropped freely.
    pub(crate) exclude_from_target: Arc<[String]>,
    /// The rows that the target holds. Without a filter, all.
    pub(crate) filter: Option<Filter>,
}

impl TargetPlan {
    /// The target table. Keys and cells are in the order of its columns.
    pub fn table(&self) -> &TargetTable {
        &self.table
    }
}

impl TablePlan {
    /// The definition of the MySQL table that rows must match.
    pub fn source(&self) -> &Arc<TableDef> {
        &self.source
    }

    /// What to do when MySQL gets a column that the plan does not know.
    pub fn on_new_column(&self) -> OnNewColumn {
        self.on_new_column
    }

    /// What to do with a row that cannot be converted or that Cassandra refuses.
    pub fn on_bad_row(&self) -> OnBadRow {
        self.on_bad_row
    }

    /// The targets, in the order of the configuration.
    pub fn targets(&self) -> &[TargetPlan] {
        &self.targets
    }

    /// The layout of the target tables as a text: their names, keys, columns, types and filters, and what zero dates
    /// become in them.
    ///
    /// If the layout differs from that of the copy, then the copy did not fill some columns, rows or targets.
    pub fn layout(&self) -> String {
        let mut text = String::new();
        for target in &self.targets {
            let table = target.table();
            let _ = write!(text, "{:?}(", table.name);
            // Writing to a String cannot fail.
            for column in &table.partition_key {
                let _ = write!(text, "{:?} {},", column.name, column.ty);
            }
            text.push(';');
            for (column, order) in &table.clustering {
                let _ = write!(text, "{:?} {} {order:?},", column.name, column.ty);
            }
            text.push(';');
            for column in &table.regular {
                let _ = write!(text, "{:?} {},", column.name, column.ty);
            }
            text.push(')');
            if let Some(filter) = &target.filter {
                let _ = write!(text, " where {:?}", filter.text());
            }
        }
        if self.zero_dates != ZeroDates::default() {
            let _ = write!(text, " zero dates: {}", self.zero_dates.name());
        }
        text
    }

    /// Adapts the plan to another definition of the same table, such as after an ALTER. The target tables
    /// stay the same.
    ///
    /// A column that is new in `table` follows `on_new_column`, unless every target excludes it.
    ///
    /// # Errors
    ///
    /// A mapped column no longer exists or would be stored in another form; a column of a filter no longer
    /// exists or its values now mean something else; or a new column is not allowed.
    pub fn adapt(&self, table: &Arc<TableDef>) -> Result<Self, PlanError> {
        let mut report = Report::new(self.source.name.to_string());
        if table.name != self.source.name {
            report.add(PlanProblemKind::OtherTable { found: table.name.clone() });
            return Err(report.into_error());
        }
        let targets =
            self.targets.iter().map(|target| self.adapt_target(target, table, &mut report)).collect();
        report.target = None;
        if self.on_new_column != OnNewColumn::Ignore {
            for column in &table.columns {
                let omitted = || self.targets.iter().all(|t| t.exclude_from_target.contains(&column.name));
                if self.source.column(&column.name).is_none() && !omitted() {
                    report.add(PlanProblemKind::NewColumn { column: column.name.clone() });
                }
            }
        }
        report.finish(Self { source: Arc::clone(table), targets, ..self.clone() })
    }

    fn adapt_target(&self, target: &TargetPlan, table: &TableDef, report: &mut Report) -> TargetPlan {
        report.target = Some(target.table.name.clone());
        let mut resolve = |columns: &[usize]| -> Vec<usize> {
            let resolved = columns.iter().filter_map(|&i| {
                let was = &self.source.columns[i];
                let Some(now) = table.column(&was.name) else {
                    report.add(PlanProblemKind::Vanished { column: was.name.clone() });
                    return None;
                };
                let ty = &table.columns[now].ty;
                if !stored_alike(&was.ty, ty) {
                    report.add(PlanProblemKind::Changed {
                        column: was.name.clone(),
                        was: was.ty.clone(),
                        now: ty.clone(),
                    });
                }
                Some(now)
            });
            resolved.collect()
        };
        let (key, regular) = (resolve(&target.key), resolve(&target.regular));
        let source_key = check_key(table, &key, report);
        let filter = target.filter.as_ref().map(|filter| filter.adapt(&self.source, table));
        let filter = filter.and_then(|filter| report.keep(filter));
        TargetPlan {
            name: Arc::clone(&target.name),
            table: Arc::clone(&target.table),
            key,
            regular,
            source_key,
            exclude_from_target: Arc::clone(&target.exclude_from_target),
            filter,
        }
    }
}
