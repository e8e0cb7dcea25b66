//! The apply loop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tandem_cassandra::Target;
use tandem_kafka::{GroupConsumer, KafkaConfig, SchemaStore};
use tandem_mapping::TablePlan;
use tandem_model::{GtidSet, TableName};
use tandem_protocol::mapping_in_use::Layouts;
use tandem_protocol::table_state::{NEW_COLUMN, is_applied};
use tandem_table_states::{States, TableStates, halt};
use tandem_wire::control::TableCondition;
use tandem_wire::log::InRecord;
use tokio_util::sync::CancellationToken;

use crate::dead_letters::DeadLetterBox;
use crate::error::ApplyError;
use crate::membership::{Membership, is_not_admitted};
use crate::metrics::Metrics;
use crate::plans::{LEFT_OUT, Plans};
use crate::writer::{Mapped, Writer, map};

/// The settings of apply.
#[derive(Debug, Clone)]
pub struct ApplyConfig {
    /// Records folded and written together at most.
    pub max_records: usize,
    /// Dead letters of one table within a minute at most. The table halts at more.
    pub max_dead_letters_per_minute: usize,
}

/// When MySQL's definitions of the mapped tables were read.
#[derive(Debug, Clone)]
pub struct Definitions {
    /// The time at which reading them began, in microseconds since the epoch.
    pub read_at_us: i64,
    /// What MySQL had executed before.
    pub executed: GtidSet,
}

/// Applies changes to Cassandra.
pub struct Apply {
    /// The log.
    pub kafka: KafkaConfig,
    /// Where schemas are read.
    pub schemas: SchemaStore,
    /// Cassandra, with statements prepared for the plans' tables.
    pub target: Target,
    /// The mapped tables.
    pub plans: Vec<Arc<TablePlan>>,
    /// The mapped tables without a plan. They had halted when this process started.
    pub left_out: Vec<TableName>,
    /// Whether whoever runs apply starts it again, with the plans of then, when it ends because such a table has come back.
    pub restarts: bool,
    /// The layouts of the mapped tables.
    pub layouts: Arc<Layouts>,
    /// Where the plans come from.
    pub definitions: Definitions,
    /// The settings.
    pub config: ApplyConfig,
    /// The metrics.
    pub metrics: Metrics,
}

impl Apply {
    /// Applies changes until `stop`, then finishes the batch that is being written.
    ///
    /// # Errors
    ///
    /// Fails if Kafka cannot be read or written, if Cassandra cannot be written, and on a record that cannot be decoded.
    /// What concerns one table only halts that table.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), ApplyError> {
        let topics = self.kafka.topics();
        let tables = self.plans.iter().map(|plan| &plan.source().name).chain(&self.left_out);
        let names = topics.of_tables(tables);
        let states = TableStates::follow(&self.kafka).await?;
        // A table that is back already has no plan after this start either.
        let known = states.now()?;
        for table in self.left_out.iter().filter(|table| is_applied(known.get(table))) {
            self.halt_left_out(table, &states).await?;
        }
        // Their targets have the column by now, if this process has read MySQL's definitions since they halted.
        let waits_for_column = |table: &&TableName| {
            known.get(table).is_some_and(|state| {
                let halted = state.condition == TableCondition::Halted && state.reason == NEW_COLUMN;
                halted && state.since_us <= self.definitions.read_at_us
            })
        };
        let tables = self.plans.iter().map(|plan| &plan.source().name);
        let renewed: BTreeSet<TableName> = tables.filter(waits_for_column).cloned().collect();
        let mut writer = self.writer().await?;
        let membership =
            Membership::new(&self.kafka, &self.layouts, &self.definitions.executed, &self.metrics);
        loop {
            let Some(consumer) = membership.join(&names, &stop).await? else { return Ok(()) };
            let outcome = tokio::select! {
                outcome = self.consume(&consumer, &states, &mut writer, &stop) => outcome,
                outcome = self.replay_tables(&consumer, &states, &renewed) => outcome,
            };
            consumer.close().await;
            match outcome {
                Err(error) if is_not_admitted(&error) => {}
                outcome => return outcome,
            }
        }
    }

    pub(crate) async fn writer(&self) -> Result<Writer<'_>, ApplyError> {
        let limit = self.config.max_dead_letters_per_minute;
        Ok(Writer {
            target: &self.target,
            plans: self.plans(),
            letters: DeadLetterBox::open(&self.kafka, limit, self.metrics.clone()).await?,
            metrics: &self.metrics,
        })
    }

    async fn consume(
        &self,
        consumer: &GroupConsumer,
        states: &TableStates,
        writer: &mut Writer<'_>,
        stop: &CancellationToken,
    ) -> Result<(), ApplyError> {
        let mut plans = self.plans();
        let mut next: Option<Mapped> = None;
        loop {
            // While one batch is being written, the next one is fetched and mapped. What is written is done at once: the
            // next records may be long in coming, and clients wait for these offsets.
            let written = async {
                if let Some(batch) = next.take() {
                    let records = self.write(batch, writer, states).await?;
                    consumer.done(&records)?;
                }
                Ok::<(), ApplyError>(())
            };
            let fetched = async {
                if stop.is_cancelled() {
                    return Ok(None);
                }
                let records = tokio::select! {
                    records = consumer.next_batch(self.config.max_records, Duration::from_millis(100)) => records?,
                    () = stop.cancelled() => return Ok(None),
                };
                self.map(&mut plans, records, states).await.map(Some)
            };
            let (written, fetched) = tokio::join!(written, fetched);
            written?;
            match fetched? {
                Some(batch) => next = Some(batch),
                None => return Ok(()),
            }
        }
    }

    pub(crate) fn plans(&self) -> Plans {
        let (plans, left_out) = (self.plans.iter().cloned(), self.left_out.iter().cloned());
        Plans::new(self.kafka.clone(), self.schemas.clone(), plans, left_out)
    }

    /// Maps records that were fetched before this call. A table that cannot be mapped halts, and its changes are skipped.
    async fn map(
        &self,
        plans: &mut Plans,
        mut records: Vec<InRecord>,
        states: &TableStates,
    ) -> Result<Mapped, ApplyError> {
        loop {
            let holding = held(states).await?;
            match map(plans, records, &holding).await {
                Ok(mapped) => return Ok(mapped),
                Err((error, unmapped)) => {
                    self.halt(error, states).await?;
                    records = unmapped;
                }
            }
        }
    }

    /// Writes a batch. A table that cannot be written halts, and the rest of the batch is written again.
    async fn write(
        &self,
        mut batch: Mapped,
        writer: &mut Writer<'_>,
        states: &TableStates,
    ) -> Result<Vec<InRecord>, ApplyError> {
        loop {
            match writer.write(batch).await {
                Ok(records) => return Ok(records),
                Err((error, records)) => {
                    self.halt(error, states).await?;
                    batch = self.map(&mut writer.plans, records, states).await?;
                }
            }
        }
    }

    async fn halt_left_out(&self, table: &TableName, states: &TableStates) -> Result<(), ApplyError> {
        let left_out = ApplyError::LeftOut { table: table.clone() };
        self.halt_table(&ApplyError::of_table(table, LEFT_OUT, left_out), states).await?;
        Ok(())
    }

    /// Halts the table that an error concerns.
    ///
    /// # Errors
    /// Returns the error if it does not concern a table, or if a restart may bring the plan of the table.
    pub(crate) async fn halt(&self, error: ApplyError, states: &TableStates) -> Result<(), ApplyError> {
        match error.left_out() {
            Some(table) if !self.restarts => return self.halt_left_out(&table, states).await,
            _ => {}
        }
        if self.halt_table(&error, states).await? { Ok(()) } else { Err(error) }
    }

    /// Halts the table that an error concerns, if it is one.
    async fn halt_table(&self, error: &ApplyError, states: &TableStates) -> Result<bool, ApplyError> {
        let Some((table, fault)) = error.table_fault() else { return Ok(false) };
        tracing::error!(%table, %error, "the table halts; the others go on");
        halt(&self.kafka, &table, &fault).await?;
        states.up_to_now().await?;
        Ok(true)
    }
}

/// The states by which changes are skipped that were fetched before this call. Skipping a change of a table that is halted
/// no more would lose it, so the control topic is read to its end first.
async fn held(states: &TableStates) -> Result<Arc<States>, ApplyError> {
    let known = states.now()?;
    if known.any_halted() { Ok(states.up_to_now().await?) } else { Ok(known) }
}
