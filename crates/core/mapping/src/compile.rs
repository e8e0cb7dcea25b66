//! Making a plan: every name is resolved and every refusal is found here.

use std::collections::BTreeMap;
use std::sync::Arc;

use tandem_model::{ClusteringOrder, CqlColumn, TableDef, TableName, TargetTable};

use crate::config::{TableConfig, TargetConfig};
use crate::convert::cql_type;
use crate::error::{PlanError, PlanProblemKind};
use crate::filter::Filter;
use crate::plan::{TablePlan, TargetPlan};
use crate::report::{Report, check_key};

/// Cassandra's limit for a table's name, in characters.
const TABLE_NAME_MAX: usize = 48;

/// Compiles the plans of all configured tables against their definitions, and refuses what is only
/// wrong with them together: a source or a target table used twice.
pub fn compile_all(configs: &[TableConfig], tables: &[Arc<TableDef>]) -> Result<Vec<TablePlan>, PlanError> {
    let mut problems = Vec::new();
    let mut plans = Vec::new();
    let mut filled_from: BTreeMap<&str, &str> = BTreeMap::new();
    for (i, config) in configs.iter().enumerate() {
        let mut report = Report::new(config.source.clone());
        if configs[..i].iter().any(|earlier| same_table(&earlier.source, &config.source)) {
            report.add(PlanProblemKind::SourceTwice);
        } else {
            let name = config.source.parse::<TableName>();
            match tables.iter().find(|table| name.as_ref() == Ok(&table.name)) {
                Some(table) => match TablePlan::compile(config, table) {
                    Ok(plan) => plans.push(plan),
                    Err(error) => report.problems = error.problems,
                },
                None if name.is_err() => report.add(PlanProblemKind::BadSource),
                None => report.add(PlanProblemKind::NoSuchTable),
            }
            for target in &config.target {
                let other = *filled_from.entry(&target.table).or_insert(&config.source);
                if other != config.source {
                    report.target = Some(target.table.clone());
                    report.add(PlanProblemKind::TargetTwice { other: other.to_owned() });
                }
            }
        }
        problems.append(&mut report.problems);
    }
    if problems.is_empty() { Ok(plans) } else { Err(PlanError { problems }) }
}

/// Whether two texts name the same table, with backticks or without.
fn same_table(a: &str, b: &str) -> bool {
    a == b || a.parse::<TableName>().is_ok_and(|a| b.parse() == Ok(a))
}

impl TablePlan {
    /// Compiles the plan of one table: every column that a target does not exclude_from_target is copied to it.
    /// The error holds every problem there is.
    pub fn compile(config: &TableConfig, table: &Arc<TableDef>) -> Result<Self, PlanError> {
        let mut report = Report::new(config.source.clone());
        match config.source.parse::<TableName>() {
            Err(_) => report.add(PlanProblemKind::BadSource),
            Ok(name) if name != table.name => {
                report.add(PlanProblemKind::OtherTable { found: table.name.clone() });
            }
            Ok(_) => {}
        }
        if table.primary_key.is_empty() {
            report.add(PlanProblemKind::NoPrimaryKey);
        }
        if config.target.is_empty() {
            report.add(PlanProblemKind::NoTarget);
        }
        let mut targets = Vec::with_capacity(config.target.len());
        for (i, target) in config.target.iter().enumerate() {
            report.target = Some(target.table.clone());
            if config.target[..i].iter().any(|earlier| earlier.table == target.table) {
                report.add(PlanProblemKind::TargetTwice { other: config.source.clone() });
            }
            targets.push(compile_target(target, table, &mut report));
        }
        report.finish(Self {
            source: Arc::clone(table),
            on_new_column: config.on_new_column,
            on_bad_row: config.on_bad_row,
            zero_dates: config.zero_dates,
            targets,
        })
    }
}

fn compile_target(config: &TargetConfig, table: &TableDef, report: &mut Report) -> TargetPlan {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !(1..=TABLE_NAME_MAX).contains(&config.table.len()) || !config.table.chars().all(word) {
        report.add(PlanProblemKind::TableName);
    }
    let filter = config.r#where.as_ref().and_then(|text| report.keep(Filter::compile(text, table)));
    check_omit_and_rename(config, table, report);

    let mut key = Vec::new();
    let mut resolve = |option: &'static str, name: &str, report: &mut Report| -> Option<usize> {
        let Some(i) = table.column(name) else {
            report.add(PlanProblemKind::UnknownColumn { option, column: name.to_owned() });
            return None;
        };
        if key.contains(&i) {
            report.add(PlanProblemKind::KeyTwice { column: name.to_owned() });
            return None;
        }
        if config.exclude_from_target.iter().any(|o| o == name) {
            report.add(PlanProblemKind::OmittedKey { column: name.to_owned() });
        }
        key.push(i);
        Some(i)
    };
    if config.partition_key.is_empty() {
        report.add(PlanProblemKind::EmptyPartitionKey);
    }
    let partition: Vec<usize> =
        config.partition_key.iter().filter_map(|name| resolve("partition_key", name, report)).collect();
    let mut clustering = Vec::with_capacity(config.clustering_key.len());
    for entry in &config.clustering_key {
        match clustering_entry(entry, table) {
            Some((name, order)) => {
                clustering.extend(resolve("clustering_key", name, report).map(|i| (i, order)));
            }
            None => report.add(PlanProblemKind::BadOrder { entry: entry.clone() }),
        }
    }
    let source_key = check_key(table, &key, report);

    let regular: Vec<usize> = (0..table.columns.len())
        .filter(|i| !key.contains(i) && !config.exclude_from_target.contains(&table.columns[*i].name))
        .collect();
    check_names(config, table, key.iter().chain(&regular), report);
    let column = |i: usize| CqlColumn {
        name: target_name(config, table, i).to_owned(),
        ty: cql_type(&table.columns[i].ty),
    };
    TargetPlan {
        name: config.table.as_str().into(),
        table: Arc::new(TargetTable {
            name: config.table.clone(),
            partition_key: partition.into_iter().map(column).collect(),
            clustering: clustering.into_iter().map(|(i, order)| (column(i), order)).collect(),
            regular: regular.iter().copied().map(column).collect(),
        }),
        key,
        regular,
        source_key,
        exclude_from_target: config.exclude_from_target.clone().into(),
        filter,
    }
}

fn target_name<'a>(config: &'a TargetConfig, table: &'a TableDef, column: usize) -> &'a str {
    let name = &table.columns[column].name;
    config.rename.get(name).unwrap_or(name)
}

fn check_omit_and_rename(config: &TargetConfig, table: &TableDef, report: &mut Report) {
    let names = config.exclude_from_target.iter().map(|name| ("exclude_from_target", name));
    for (option, column) in names.chain(config.rename.keys().map(|name| ("rename", name))) {
        if table.column(column).is_none() {
            report.add(PlanProblemKind::UnknownColumn { option, column: column.clone() });
        }
    }
    for (column, name) in &config.rename {
        if name.is_empty() {
            report.add(PlanProblemKind::EmptyName { column: column.clone() });
        }
        if config.exclude_from_target.contains(column) {
            report.add(PlanProblemKind::RenamedAndOmitted { column: column.clone() });
        }
    }
}

fn check_names<'a>(
    config: &TargetConfig,
    table: &TableDef,
    columns: impl Iterator<Item = &'a usize>,
    report: &mut Report,
) {
    let mut owners: BTreeMap<&str, usize> = BTreeMap::new();
    for &i in columns {
        let name = target_name(config, table, i);
        if let Some(first) = owners.insert(name, i) {
            report.add(PlanProblemKind::SameName {
                name: name.to_owned(),
                first: table.columns[first].name.clone(),
                second: table.columns[i].name.clone(),
            });
        }
    }
}

/// `column`, `column asc` or `column desc`.
fn clustering_entry<'a>(entry: &'a str, table: &TableDef) -> Option<(&'a str, ClusteringOrder)> {
    let entry = entry.trim();
    // A column's name may itself have a space in it.
    let split = if table.column(entry).is_some() { None } else { entry.rsplit_once(char::is_whitespace) };
    match split {
        None => Some((entry, ClusteringOrder::Ascending)),
        Some((name, order)) if order.eq_ignore_ascii_case("asc") => {
            Some((name.trim_end(), ClusteringOrder::Ascending))
        }
        Some((name, order)) if order.eq_ignore_ascii_case("desc") => {
            Some((name.trim_end(), ClusteringOrder::Descending))
        }
        Some(_) => None,
    }
}
