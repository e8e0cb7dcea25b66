//! The plans for the schemas that records were written with.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tandem_kafka::{KafkaConfig, SchemaStore};
use tandem_mapping::{FormerPlan, OnNewColumn, PlanError, PlanProblemKind, TablePlan};
use tandem_model::{Change, TableDef, TableName, Version};
use tandem_protocol::mapping_in_use::{is_overwritten, since};
use tandem_protocol::table_state::{self, NEW_COLUMN};
use tandem_table_states::States;
use tandem_watermarks::NewestWatermark;

use crate::error::ApplyError;
use crate::membership::read_mapping_in_use;

/// The reason of a table that halts because the mapping does not fit its definition any more.
const PLAN: &str = "mapping-does-not-fit";

/// The reason of a table that halts again because this process has started without it.
pub(crate) const LEFT_OUT: &str = "left-out-at-start";

/// How the mapping fits a definition of a table.
enum Fit {
    Plan(Arc<TablePlan>),
    /// It fits only changes that a later copy overwrites. For others this is the error.
    Former(FormerPlan, PlanError),
    Not(PlanError),
}

impl Fit {
    fn of(base: &Arc<TablePlan>, table: &Arc<TableDef>) -> Self {
        if base.source() == table {
            return Self::Plan(Arc::clone(base));
        }
        match base.adapt(table) {
            Ok(adapted) => Self::Plan(Arc::new(adapted)),
            Err(error) => match base.former(table) {
                Some(former) => Self::Former(former, error),
                None => Self::Not(error),
            },
        }
    }
}

/// Finds the plan of a change. The plan of a table is compiled from its definition when the process starts. A record
/// written under another definition, before or after an ALTER, gets a plan of its own.
pub struct Plans {
    kafka: KafkaConfig,
    schemas: SchemaStore,
    by_table: HashMap<TableName, Arc<TablePlan>>,
    /// The mapped tables that this process has no plan for.
    left_out: HashSet<TableName>,
    /// By schema id.
    by_schema: HashMap<u32, Fit>,
    /// From which version on each of these tables is copied for the mapping in use.
    since: HashMap<TableName, Option<Version>>,
    /// The version of a watermark at which each of these tables is not captured any more.
    retired: HashMap<TableName, Version>,
}

impl Plans {
    /// Creates the set from the plans of the mapped tables. `left_out` are those without one, which had halted when this
    /// process started.
    pub fn new(
        kafka: KafkaConfig,
        schemas: SchemaStore,
        plans: impl IntoIterator<Item = Arc<TablePlan>>,
        left_out: impl IntoIterator<Item = TableName>,
    ) -> Self {
        let by_table = plans.into_iter().map(|p| (p.source().name.clone(), p)).collect();
        let left_out = left_out.into_iter().collect();
        Self {
            kafka,
            schemas,
            by_table,
            left_out,
            by_schema: HashMap::new(),
            since: HashMap::new(),
            retired: HashMap::new(),
        }
    }

    /// Decodes a record of a change topic and finds the plan for the schema that it was written with.
    ///
    /// `None` means that the change is not applied: its table has halted, or was taken out of the mapping. A shared topic
    /// keeps such records.
    ///
    /// # Errors
    ///
    /// Fails if the record cannot be decoded, if the mapping does not fit its schema, or if its table is not mapped here
    /// although capture still publishes it. Skipping the record would lose a change then.
    pub async fn decode(
        &mut self,
        value: &[u8],
        version: Option<Version>,
        states: &States,
    ) -> Result<Option<(Change, Arc<TablePlan>)>, ApplyError> {
        let id = tandem_wire::schema_id(value)?;
        let schema = self.schemas.get(id).await?;
        let table = schema.table();
        if !table_state::is_applied(states.get(&table.name)) {
            return Ok(None);
        }
        let Some(base) = self.by_table.get(&table.name) else {
            if self.left_out.contains(&table.name) {
                return Err(ApplyError::LeftOut { table: table.name.clone() });
            }
            self.skip(&table.name, version).await?;
            return Ok(None);
        };
        let fit = self.by_schema.entry(id).or_insert_with(|| Fit::of(base, table));
        match fit {
            Fit::Plan(plan) => Ok(Some((schema.decode(value)?, Arc::clone(plan)))),
            Fit::Former(former, error) => {
                let since = copied_since(&self.kafka, &mut self.since, &table.name).await?;
                if !is_overwritten(version, since) {
                    return Err(misfit(base, error));
                }
                Ok(Some((former.change(schema.decode(value)?), Arc::clone(former.plan()))))
            }
            Fit::Not(error) => Err(misfit(base, error)),
        }
    }

    /// Skips a record that is older than a watermark at which its table is retired.
    ///
    /// A later record may come from a capture that took the table up again. Skipping it would lose a change.
    async fn skip(&mut self, table: &TableName, version: Option<Version>) -> Result<(), ApplyError> {
        let skipped = |retired: &HashMap<TableName, Version>| {
            retired.get(table).is_some_and(|at| version.is_some_and(|version| version < *at))
        };
        if skipped(&self.retired) {
            return Ok(());
        }
        let newest = NewestWatermark::read(&self.kafka).await?;
        if let Some(NewestWatermark { watermark, .. }) = newest
            && watermark.tables.retired.contains(table)
        {
            tracing::warn!(%table, "records of a table that is not captured any more are skipped");
            self.retired.insert(table.clone(), watermark.version);
        }
        if skipped(&self.retired) { Ok(()) } else { Err(ApplyError::NotMapped { table: table.clone() }) }
    }
}

/// From which version on the table is copied for the mapping in use. It stays the same while this process may apply.
async fn copied_since(
    kafka: &KafkaConfig,
    known: &mut HashMap<TableName, Option<Version>>,
    table: &TableName,
) -> Result<Option<Version>, ApplyError> {
    if let Some(version) = known.get(table) {
        return Ok(*version);
    }
    let version = since(read_mapping_in_use(kafka).await?.as_ref(), &table.to_string());
    known.insert(table.clone(), version);
    Ok(version)
}

/// The error of a table whose plan does not fit a definition.
fn misfit(base: &TablePlan, error: &PlanError) -> ApplyError {
    let only_new = error.problems.iter().all(|p| matches!(p.kind, PlanProblemKind::NewColumn { .. }));
    let adds = base.on_new_column() == OnNewColumn::Add && only_new;
    let reason = if adds { NEW_COLUMN } else { PLAN };
    ApplyError::of_table(&base.source().name, reason, error.clone().into())
}
