//! Tandem's own tables in Cassandra, and the tables that are written natively.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tandem_cassandra::{SchemaError, Target};
use tandem_mapping::{TablePlan, create_table};
use tandem_model::{CqlColumn, CqlType, Epoch, Row, TargetTable, Value};
use tandem_wire::TableSchema;
use tandem_wire::log::ChangeTopic;

use crate::error::NativeWriteError;
use crate::key::GuardKey;

/// How long these tables keep tombstones. Late writes to them are at most some requests old.
const GC_GRACE_SECONDS: u32 = 864_000;

/// The size of a record key's frame in bytes.
const FRAME: usize = 5;

fn table(name: String, key: &[(&str, CqlType)], regular: &[(&str, CqlType)]) -> TargetTable {
    let columns = |columns: &[(&str, CqlType)]| {
        columns.iter().map(|&(name, ty)| CqlColumn { name: name.to_owned(), ty }).collect()
    };
    TargetTable { name, partition_key: columns(key), clustering: Vec::new(), regular: columns(regular) }
}

const ROW_KEY: [(&str, CqlType); 2] = [("source", CqlType::Text), ("key", CqlType::Blob)];

/// The guards of an epoch. A CAS compares `nonce`.
pub(crate) fn guards(epoch: Epoch) -> TargetTable {
    let regular = [("nonce", CqlType::Blob), ("version", CqlType::Bigint), ("guard", CqlType::Blob)];
    table(format!("tandem_guards_{epoch}"), &ROW_KEY, &regular)
}

/// The versions that are done, of an epoch.
pub(crate) fn done(epoch: Epoch) -> TargetTable {
    table(format!("tandem_done_{epoch}"), &ROW_KEY, &[("version", CqlType::Bigint)])
}

/// The batches of an epoch. A CAS compares `state`.
pub(crate) fn batches(epoch: Epoch) -> TargetTable {
    let regular = [("state", CqlType::Text), ("record", CqlType::Blob)];
    table(format!("tandem_batches_{epoch}"), &[("batch", CqlType::Blob)], &regular)
}

/// The answers of requests, of every epoch.
pub(crate) fn answers() -> TargetTable {
    let regular = [("epoch", CqlType::Int), ("version", CqlType::Bigint)];
    table("tandem_answers".to_owned(), &[("request", CqlType::Blob)], &regular)
}

/// Creates the tables of an epoch, and that of the answers, if they do not exist.
///
/// The guards of an epoch need tables of their own: a compare-and-set of an earlier epoch that arrives late must meet
/// none of this one's. An answer is kept for `answers_for`, in whole seconds and at least one.
///
/// # Errors
/// Cassandra does not answer, or refuses a statement.
pub async fn create_tables(target: &Target, epoch: Epoch, answers_for: Duration) -> Result<(), SchemaError> {
    let create = |table: &TargetTable| create_table(target.keyspace(), table, GC_GRACE_SECONDS);
    for table in [guards(epoch), done(epoch), batches(epoch)] {
        target.execute_ddl(&create(&table)).await?;
    }
    let answers = create(&answers());
    // A time of 0 would be for ever.
    let seconds = answers_for.as_secs().max(1);
    let with = answers.trim_end_matches(';');
    target.execute_ddl(&format!("{with} AND default_time_to_live = {seconds}")).await
}

/// A table that is written natively.
#[derive(Debug, Clone)]
pub struct NativeTable {
    pub(crate) plan: Arc<TablePlan>,
    pub(crate) topic: ChangeTopic,
    /// The target that holds every row whole, under its primary key.
    pub(crate) base: usize,
    /// `database.table`.
    pub(crate) name: String,
    /// Encodes keys without the identifier of a shared topic.
    keys: TableSchema,
}

impl NativeTable {
    /// Combines a plan with its change topic, whose schema is that of the plan's source.
    ///
    /// # Errors
    /// No target can be the base target.
    pub fn new(plan: Arc<TablePlan>, topic: ChangeTopic) -> Result<Self, NativeWriteError> {
        let source = plan.source();
        let name = source.name.to_string();
        let base =
            plan.base_target().ok_or_else(|| NativeWriteError::NoBaseTarget { table: name.clone() })?;
        let keys = TableSchema::new(Arc::clone(source), "");
        Ok(Self { plan, topic, base, name, keys })
    }

    /// The key of a row's guard.
    pub(crate) fn guard_key(&self, key: &[Value]) -> Result<GuardKey, NativeWriteError> {
        let mut bytes = Vec::new();
        self.keys.encode_key_values(key, &mut bytes)?;
        Ok(GuardKey { table: self.name.clone(), key: bytes.split_off(FRAME) })
    }

    /// Whether the row has this primary key.
    pub(crate) fn has_key(&self, row: &Row, key: &[Value]) -> bool {
        let columns = &self.plan.source().primary_key;
        columns.iter().zip(key).all(|(&column, value)| row.get(column) == Some(value))
    }
}

/// The tables by their names.
pub(crate) struct Tables(HashMap<String, NativeTable>);

impl Tables {
    pub(crate) fn new(tables: Vec<NativeTable>) -> Self {
        Self(tables.into_iter().map(|table| (table.name.clone(), table)).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Result<&NativeTable, NativeWriteError> {
        self.0.get(name).ok_or_else(|| NativeWriteError::NotMapped { table: name.to_owned() })
    }
}
