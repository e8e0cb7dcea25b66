//! Connects to the servers, and runs the checks before a role starts.
//!
//! The checks collect every problem instead of stopping at the first one. `tandem check` shows all of them at once, and
//! the roles refuse to start with the same messages.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Result, bail};
use tandem_apply::read_mapping_in_use;
use tandem_cassandra::{TableLimits, Target};
use tandem_kafka::{Admin, ConsumeError, KafkaConfig, MissingAcl, SchemaStore, missing_acls};
use tandem_mapping::{OnNewColumn, TableConfig, TablePlan, TargetPlan, compile_all};
use tandem_model::{GtidSet, TableName, TargetTable};
use tandem_mysql::{Mysql, MysqlError, Severity, TableError};
use tandem_protocol::mapping_in_use::Layouts;
use tandem_protocol::table_state::is_live;
use tandem_table_states::{States, read_states};

use crate::config::Config;
use crate::connect::ownership::{self, Consent};
use crate::connect::privileges::{needs, needs_of_reverse};
use crate::connect::problem::CheckProblem;
use crate::role::Role;

/// The results of the checks. A part is `None` if it could not be reached or was not requested.
pub(crate) struct Inspection {
    pub(crate) problems: Vec<CheckProblem>,
    pub(crate) mysql: Option<Mysql>,
    pub(crate) admin: Option<Admin>,
    pub(crate) target: Option<Target>,
    pub(crate) plans: Vec<Arc<TablePlan>>,
    /// What MySQL had executed before its definitions were read.
    pub(crate) executed: GtidSet,
}

/// The connected servers and the compiled mapping, after all checks.
pub(crate) struct Servers {
    pub(crate) mysql: Mysql,
    pub(crate) kafka: KafkaConfig,
    pub(crate) admin: Admin,
    pub(crate) target: Option<Target>,
    pub(crate) plans: Vec<Arc<TablePlan>>,
    /// What MySQL had executed before the tables' definitions were read.
    pub(crate) executed: GtidSet,
    /// The layouts of all mapped tables.
    pub(crate) layouts: Layouts,
    /// The mapped tables without a plan: they have halted, and have problems.
    pub(crate) left_out: Vec<TableName>,
    /// The target tables that held rows before this migration wrote any. Known to roles that write or copy.
    pub(crate) held_rows: HashSet<String>,
}

impl Servers {
    /// Connects to what these roles need and checks it. Claims the target tables for roles that write or copy. The error
    /// names every problem. A table that has halted may have problems: it is left out of the plans.
    pub(crate) async fn connect(config: &Config, roles: &[Role]) -> Result<Self> {
        let mut found = Box::pin(inspect(config, roles)).await?;
        if roles.contains(&Role::Apply) && add_columns(&config.kafka()?, &found).await {
            found = Box::pin(inspect(config, roles)).await?;
        }
        let left_out = leave_out(&config.kafka()?, &mut found).await?;
        for warning in found.problems.iter().filter(|p| !p.fatal) {
            tracing::warn!(part = warning.part, what = warning.what, "{}", warning.cause);
        }
        let fatal: Vec<String> = found.problems.iter().filter(|p| p.fatal).map(ToString::to_string).collect();
        match (found.mysql, found.admin) {
            (Some(mysql), Some(admin)) if fatal.is_empty() => {
                let (kafka, target, plans) = (config.kafka()?, found.target, found.plans);
                let claims = |role: &Role| {
                    matches!(role, Role::Apply | Role::Backfill | Role::Reconcile | Role::Gateway)
                };
                let held_rows = match &target {
                    Some(target) if roles.iter().any(claims) => {
                        let tables = target_tables(&plans);
                        ownership::claim(target, &tables, &kafka.prefix, &Consent::default()).await?
                    }
                    _ => HashSet::new(),
                };
                let in_use = if left_out.is_empty() { None } else { read_mapping_in_use(&kafka).await? };
                let layouts = Layouts::of(&plans, &left_out, in_use.as_ref(), config.mapping());
                Ok(Self {
                    mysql,
                    kafka,
                    admin,
                    target,
                    plans,
                    executed: found.executed,
                    layouts,
                    left_out,
                    held_rows,
                })
            }
            _ => bail!("{}", fatal.join("\n")),
        }
    }
}

/// The configured tables that have a plan, each with it.
pub(crate) fn planned<'a>(
    config: &'a Config,
    plans: &'a [Arc<TablePlan>],
) -> impl Iterator<Item = (&'a TableConfig, &'a Arc<TablePlan>)> {
    let plan = |table: &'a TableConfig| {
        let name: TableName = table.source.parse().ok()?;
        let plan = plans.iter().find(|plan| plan.source().name == name)?;
        Some((table, plan))
    };
    config.table.iter().filter_map(plan)
}

/// Adds missing columns to the targets of tables with `on_new_column = "add"`. Returns whether there were any. What could not be
/// added is a problem still.
async fn add_columns(kafka: &KafkaConfig, found: &Inspection) -> bool {
    let Some(target) = &found.target else { return false };
    let mut tables: Vec<TargetTable> = extensible(&found.plans).cloned().collect();
    // Another migration's table is not altered.
    let Ok(refused) = ownership::refused(target, &tables, &kafka.prefix, &Consent::default()).await else {
        return false;
    };
    tables.retain(|table| refused.iter().all(|(other, _)| *other != table.name));
    let missing = match target.check_schema(&tables).await {
        Ok(findings) => findings.into_iter().filter(|finding| finding.missing_column().is_some()),
        Err(_) => return false,
    };
    let statements: Vec<String> = missing.filter_map(|finding| finding.remedy).collect();
    for cql in &statements {
        match target.execute_ddl(cql).await {
            Ok(()) => tracing::info!(cql, "a target has a new column"),
            // Another process may have added it.
            Err(error) => tracing::warn!(cql, %error, "a target did not get a new column"),
        }
    }
    !statements.is_empty()
}

/// Leaves the columns that a target lacks out of the plans of tables with `on_new_column = "ignore"`.
async fn ignore_columns(config: &Config, target: &Target, plans: &mut [Arc<TablePlan>]) {
    for plan in plans.iter_mut().filter(|plan| plan.on_new_column() == OnNewColumn::Ignore) {
        let tables: Vec<TargetTable> = plan.targets().iter().map(|target| target.table().clone()).collect();
        // What cannot be read is a problem of its own.
        let Ok(findings) = target.check_schema(&tables).await else { return };
        let name = &plan.source().name;
        let Some(mut table) = config
            .table
            .iter()
            .find(|table| table.source.parse().is_ok_and(|n: TableName| n == *name))
            .cloned()
        else {
            continue;
        };
        let mut ignored = false;
        for finding in &findings {
            let of = table.target.iter_mut().find(|target| target.table == finding.table);
            if let (Some(column), Some(of)) = (finding.missing_column(), of) {
                let renamed = of.rename.iter().find(|(_, target)| *target == column);
                let source = renamed.map_or_else(|| column.to_owned(), |(source, _)| source.clone());
                tracing::warn!(table = %name, target = of.table, column, "a column that the target lacks is ignored");
                of.exclude_from_target.push(source);
                ignored = true;
            }
        }
        if ignored && let Ok(without) = TablePlan::compile(&table, plan.source()) {
            *plan = Arc::new(without);
        }
    }
}

/// The targets that get new columns.
fn extensible(plans: &[Arc<TablePlan>]) -> impl Iterator<Item = &TargetTable> {
    let extensible = plans.iter().filter(|plan| plan.on_new_column() == OnNewColumn::Add);
    extensible.flat_map(|plan| plan.targets()).map(TargetPlan::table)
}

/// Leaves the halted tables out that have problems. Returns them.
async fn leave_out(kafka: &KafkaConfig, found: &mut Inspection) -> Result<Vec<TableName>> {
    let mut left_out = Vec::new();
    let Some(admin) = &found.admin else { return Ok(left_out) };
    let broken: BTreeSet<TableName> =
        found.problems.iter().filter(|p| p.fatal).filter_map(|p| p.table.clone()).collect();
    if broken.is_empty() {
        return Ok(left_out);
    }
    let states = match admin.partitions(&kafka.topics().control()).await {
        Err(ConsumeError::NoTopic(_)) => States::default(),
        Err(error) => return Err(error.into()),
        Ok(_) => read_states(kafka).await?,
    };
    for table in &broken {
        // A table that is not live serves nothing. If it resumes too early, apply halts it again.
        let halted = !is_live(states.get(table));
        for problem in found.problems.iter_mut().filter(|p| p.table.as_ref() == Some(table)) {
            problem.fatal = !halted;
            if !halted {
                let halt = format!("start without the table: `tandem table halt {table}`");
                problem.remedy =
                    Some(problem.remedy.take().map_or(halt.clone(), |r| format!("{r} Or {halt}")));
            }
        }
        if halted {
            tracing::warn!(%table, "the table is not live and is left out");
            found.plans.retain(|plan| plan.source().name != *table);
            left_out.push(table.clone());
        }
    }
    Ok(left_out)
}

/// Connects to everything that these roles need and checks everything that can be reached. An error means that the
/// configuration itself is wrong.
pub(crate) async fn inspect(config: &Config, roles: &[Role]) -> Result<Inspection> {
    let cassandra =
        roles.iter().any(|role| !matches!(role, Role::Capture | Role::Reverse | Role::Controller));
    let (mysql, kafka) = (config.mysql()?, config.kafka()?);
    let cassandra = if cassandra { Some(config.cassandra()?) } else { None };
    let mut found = Inspection {
        problems: Vec::new(),
        mysql: None,
        admin: None,
        target: None,
        plans: Vec::new(),
        executed: GtidSet::default(),
    };
    let target = async {
        match &cassandra {
            Some(cassandra) => Target::connect(cassandra).await.map(Some),
            None => Ok(None),
        }
    };
    let registry = inspect_registry(config, &kafka);
    let (mysql, admin, target, registry) =
        tokio::join!(Mysql::connect(&mysql), Admin::connect(&kafka), target, registry);
    match mysql {
        Ok(mysql) => {
            match executed(&mysql).await {
                Ok(executed) => found.executed = executed,
                Err(error) => found.problems.push(CheckProblem::fatal("mysql", "", error)),
            }
            inspect_mysql(config, roles, &mysql, &mut found).await?;
            found.mysql = Some(mysql);
        }
        Err(error) => found.problems.push(CheckProblem::fatal("mysql", "", error)),
    }
    match admin {
        Ok(admin) => found.admin = Some(admin),
        Err(error) => found.problems.push(CheckProblem::fatal("kafka", "", error)),
    }
    found.problems.extend(registry?);
    match target {
        Ok(Some(target)) => {
            ignore_columns(config, &target, &mut found.plans).await;
            inspect_cassandra(&kafka, &target, &mut found).await;
            found.target = Some(target);
        }
        Ok(None) => {}
        Err(error) => found.problems.push(CheckProblem::fatal("cassandra", "", error)),
    }
    Ok(found)
}

/// The ACLs that the brokers do not grant. Only `tandem check` asks for them: it takes some seconds, and a role reports
/// a missing ACL itself.
pub(crate) async fn inspect_acls(kafka: &KafkaConfig) -> Vec<CheckProblem> {
    let report = missing_acls(kafka).await;
    let principal = kafka.security.sasl.as_ref().map_or("PRINCIPAL", |sasl| &sasl.username);
    let problem = |acl: MissingAcl| CheckProblem {
        remedy: Some(format!(
            "kafka-acls --bootstrap-server {} --command-config admin.properties --add --allow-principal \
             'User:{principal}' --operation {} --{} {}. --resource-pattern-type prefixed",
            kafka.brokers, acl.operation, acl.resource, kafka.prefix
        )),
        ..CheckProblem::fatal(
            "kafka",
            format!("ACL {} on {} {}.*", acl.operation, acl.resource, kafka.prefix),
            format!("the account does not have it: {}", acl.without),
        )
    };
    let missing = report.missing.into_iter().map(problem);
    missing.chain(report.errors.iter().map(|error| CheckProblem::fatal("kafka", "", error))).collect()
}

/// The problem of the schema registry, if one is configured. It is not fatal: a compatibility level stops capture only
/// at an ALTER TABLE that the level does not allow.
async fn inspect_registry(config: &Config, kafka: &KafkaConfig) -> Result<Option<CheckProblem>> {
    let topics = kafka.topics();
    let subjects: Vec<String> =
        config.tables()?.iter().flat_map(|table| topics.value_subjects(table)).collect();
    let held = match SchemaStore::check(kafka, &subjects).await {
        Ok(held) => held,
        Err(error) => return Ok(Some(CheckProblem::fatal("schema_registry", "", error))),
    };
    Ok(held.first().map(|first| CheckProblem {
        part: "schema_registry",
        what: format!("subject {}", first.subject),
        cause: format!(
            "its compatibility level is {}, and that of {} others is not NONE either: an ALTER TABLE that the level does \
             not allow, such as a new NOT NULL column, would stop capture",
            first.level,
            held.len() - 1
        ),
        remedy: Some(format!(
            "PUT /config/{} with {{\"compatibility\": \"NONE\"}} for each, or /config for all (Tandem's own readers \
             accept every schema)",
            first.subject
        )),
        fatal: false,
        table: None,
    }))
}

async fn executed(mysql: &Mysql) -> Result<GtidSet, MysqlError> {
    mysql.reader().await?.executed().await
}

async fn inspect_mysql(config: &Config, roles: &[Role], mysql: &Mysql, found: &mut Inspection) -> Result<()> {
    let needs = needs(config, roles)?;
    let of_reverse = if roles.contains(&Role::Reverse) {
        Some((config.reverse()?.0, needs_of_reverse(config)?))
    } else {
        None
    };
    let findings = async {
        let mut all = mysql.preflight().await?;
        all.extend(mysql.missing_privileges(&needs).await?);
        if let Some((account, needs)) = &of_reverse {
            let reverse = Mysql::connect(account).await?;
            all.extend(reverse.missing_privileges(needs).await?);
        }
        Ok::<_, MysqlError>(all)
    };
    match findings.await {
        Ok(findings) => found.problems.extend(findings.into_iter().map(|f| CheckProblem {
            part: "mysql",
            what: f.setting,
            cause: f.problem,
            remedy: Some(f.remedy),
            fatal: f.severity == Severity::Error,
            table: None,
        })),
        Err(error) => {
            found.problems.push(CheckProblem::fatal("mysql", "", error));
            return Ok(());
        }
    }
    let (mut configs, mut tables) = (Vec::new(), Vec::new());
    for (name, table) in config.tables()?.iter().zip(&config.table) {
        match mysql.missing_excluded(name).await {
            Ok(missing) => found.problems.extend(missing.into_iter().map(|column| CheckProblem {
                part: "mysql",
                what: format!("table {name}"),
                cause: format!("it has no column `{column}`, which `exclude_from_capture` names"),
                remedy: Some("correct the name, unless the column will be added later".into()),
                fatal: false,
                table: None,
            })),
            Err(error) => found.problems.push(CheckProblem::fatal("mysql", format!("table {name}"), error)),
        }
        match mysql.table_def(name).await {
            Ok(def) => {
                configs.push(table.clone());
                tables.push(Arc::new(def));
            }
            Err(TableError::Refused { problems, .. }) => {
                found.problems.extend(problems.iter().map(|p| CheckProblem::of_table("mysql", name, p)));
            }
            Err(TableError::Mysql(error)) if error.concerns_table() => {
                found.problems.push(CheckProblem::of_table("mysql", name, error));
            }
            Err(error) => found.problems.push(CheckProblem::fatal("mysql", format!("table {name}"), error)),
        }
    }
    let compiled = compile_all(&configs, &tables).or_else(|error| {
        let wrong: BTreeSet<String> = error.problems.iter().map(|p| p.table.clone()).collect();
        found.problems.extend(error.problems.into_iter().map(|p| CheckProblem {
            table: p.table.parse().ok(),
            ..CheckProblem::fatal("mapping", String::new(), &p)
        }));
        // The plans of the others are checked, too.
        configs.retain(|config| !wrong.contains(&config.source));
        compile_all(&configs, &tables)
    });
    found.plans = compiled.unwrap_or_default().into_iter().map(Arc::new).collect();
    Ok(())
}

async fn inspect_cassandra(kafka: &KafkaConfig, target: &Target, found: &mut Inspection) {
    let tables = target_tables(&found.plans);
    let sources: HashMap<String, TableName> = found
        .plans
        .iter()
        .flat_map(|plan| plan.targets().iter().map(|t| (t.table().name.clone(), plan.source().name.clone())))
        .collect();
    let mut missing = 0;
    match target.check_schema(&tables).await {
        Ok(findings) => {
            missing = findings.iter().filter(|f| f.is_absence() && !f.table.is_empty()).count();
            found.problems.extend(findings.into_iter().map(|f| CheckProblem {
                remedy: f.remedy.as_ref().map(|cql| {
                    format!("{cql};{}", if f.is_absence() { " (`tandem schema create` does it)" } else { "" })
                }),
                table: sources.get(&f.table).cloned(),
                fatal: true,
                part: "cassandra",
                what: if f.table.is_empty() { String::new() } else { format!("table {}", f.table) },
                cause: f.problem,
            }));
        }
        Err(error) => found.problems.push(CheckProblem::fatal("cassandra", "", error)),
    }
    match ownership::refused(target, &tables, &kafka.prefix, &Consent::default()).await {
        Ok(refused) => found.problems.extend(
            refused
                .into_iter()
                .map(|(target, problem)| CheckProblem { table: sources.get(&target).cloned(), ..problem }),
        ),
        Err(error) => found.problems.push(CheckProblem::fatal("cassandra", "", error)),
    }
    match target.table_limits().await {
        Ok(limits) => found.problems.extend(too_many_tables(limits, missing)),
        Err(error) => found.problems.push(CheckProblem::fatal("cassandra", "", error)),
    }
    for table in &tables {
        match target.gc_grace(&table.name).await {
            Ok(Some(grace)) if grace <= kafka.retention => found.problems.push(CheckProblem {
                part: "cassandra",
                what: format!("table {}", table.name),
                cause: format!(
                    "gc_grace_seconds is {}, not above the {} s for which Kafka keeps changes: a change that is \
                     replayed after its row's tombstone is gone would bring a deleted row back",
                    grace.as_secs(),
                    kafka.retention.as_secs()
                ),
                remedy: Some(format!(
                    "ALTER TABLE \"{}\".\"{}\" WITH gc_grace_seconds = {}",
                    target.keyspace(),
                    table.name,
                    gc_grace_seconds(kafka)
                )),
                fatal: true,
                table: sources.get(&table.name).cloned(),
            }),
            Ok(_) => {}
            Err(error) => found.problems.push(CheckProblem::fatal("cassandra", "", error)),
        }
    }
}

/// The number of tables in a cluster from which on each node's heap must be planned for them.
const MANY_TABLES: usize = 200;

/// The problem that Cassandra would have with so many tables. `missing` are to be created.
fn too_many_tables(limits: TableLimits, missing: usize) -> Option<CheckProblem> {
    let total = limits.existing + missing;
    let problem = |cause: String, remedy: &str, fatal: bool| {
        let what = format!("{total} tables, with the {missing} that are missing");
        Some(CheckProblem {
            part: "cassandra",
            what,
            cause,
            remedy: Some(remedy.to_owned()),
            fatal,
            table: None,
        })
    };
    if let Some(limit) = limits.fail.filter(|limit| total > *limit && missing > 0) {
        return problem(
            format!("its guardrail tables_fail_threshold allows {limit}, so it would refuse to create them"),
            "raise the guardrail on every node, or map fewer tables or targets",
            true,
        );
    }
    if total > limits.warn.unwrap_or(MANY_TABLES) {
        return problem(
            "each table takes about a megabyte of every node's heap and slows schema changes and restarts: a node with 1 GiB \
             of heap did not survive 401"
                .to_owned(),
            "give every node several GiB of heap, or map fewer tables or targets",
            false,
        );
    }
    None
}

/// Every Cassandra table of the mapping.
pub(crate) fn target_tables(plans: &[Arc<TablePlan>]) -> Vec<TargetTable> {
    plans.iter().flat_map(|p| p.targets()).map(|t| t.table().clone()).collect()
}

/// The `gc_grace_seconds` of target tables: three days above Kafka's retention. Tombstones must outlive every older
/// write in flight, including chunks and repairs that were read earlier and are written late.
pub(crate) fn gc_grace_seconds(kafka: &KafkaConfig) -> u32 {
    (kafka.retention.as_secs() + 3 * 24 * 3600) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_tables_are_a_warning_and_a_guardrail_is_an_error() {
        let limits = |existing, warn, fail| TableLimits { existing, warn, fail };
        let fatal = |limits, missing| too_many_tables(limits, missing).map(|problem| problem.fatal);
        assert_eq!(fatal(limits(40, None, None), 100), None);
        assert_eq!(fatal(limits(40, None, None), 200), Some(false));
        assert_eq!(fatal(limits(40, Some(100), None), 100), Some(false));
        assert_eq!(fatal(limits(40, Some(1000), None), 500), None);
        assert_eq!(fatal(limits(40, None, Some(120)), 100), Some(true));
        // What is there already is not refused.
        assert_eq!(fatal(limits(140, None, Some(120)), 0), None);
    }
}
