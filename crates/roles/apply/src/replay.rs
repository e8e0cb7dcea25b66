//! Replays the changes of a table that resumes.
//!
//! The replay reads the table's topics from the offsets that its state holds to the ends that the topics have after the
//! state says "replaying", and applies the table's changes. New changes are applied by the loop at the same time: versions
//! make the order irrelevant. A replay that is broken off begins again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem_kafka::{Admin, GroupConsumer, TailReader};
use tandem_model::TableName;
use tandem_protocol::table_state::{self, Changes, NEW_COLUMN, TableFault, is_applied};
use tandem_runtime::now_us;
use tandem_table_states::{States, TableStates, TableStatesError, change, halt};
use tandem_wire::control::{TableCondition, TableState};
use tandem_wire::log::TableOfKey;

use crate::error::ApplyError;
use crate::run::Apply;
use crate::writer::{Writer, map};

/// How often an idle member looks whether a replay has become its own, after a rebalance.
const LOOK: Duration = Duration::from_secs(1);

/// How often the progress is logged.
const REPORT: Duration = Duration::from_secs(5);

impl Apply {
    /// Replays the tables whose first partition this member has, one after the other. A table that has come back and that
    /// this process has no plan for is halted again, unless a restart may bring its plan. `renewed` are the tables that had
    /// halted for a new column when apply started, and that resume. Returns only an error.
    pub(crate) async fn replay_tables(
        &self,
        consumer: &GroupConsumer,
        states: &TableStates,
        renewed: &BTreeSet<TableName>,
    ) -> Result<(), ApplyError> {
        let mut renewed = renewed.clone();
        loop {
            let known = states.now()?;
            let assigned = |table: &TableName| consumer.is_assigned(&self.kafka.topics().changes(table), 0);
            if let Some(table) = renewed.iter().find(|table| assigned(table)).cloned() {
                self.resume(&table).await?;
                states.up_to_now().await?;
                renewed.remove(&table);
                continue;
            }
            for table in self.left_out.iter().filter(|table| is_applied(known.get(table))) {
                self.halt(ApplyError::LeftOut { table: table.clone() }, states).await?;
            }
            let mut due = None;
            for plan in &self.plans {
                let table = &plan.source().name;
                let topic = self.kafka.topics().changes(table);
                if let Some(state) = known.get(table).filter(|s| s.condition == TableCondition::Replaying)
                    && consumer.is_assigned(&topic, 0)
                {
                    due = Some((table.clone(), state.clone()));
                    break;
                }
            }
            let Some((table, state)) = due else {
                let changed = tokio::time::timeout(LOOK, states.other_than(&known)).await;
                changed.map_or(Ok(known), |changed| changed)?;
                continue;
            };
            let mut writer = self.writer().await?;
            if let Err(error) = self.replay(&table, &state, states, &mut writer).await {
                self.halt(error, states).await?;
            }
        }
    }

    /// Resumes a table that has halted for a new column, unless somebody else has.
    async fn resume(&self, table: &TableName) -> Result<(), ApplyError> {
        change(&self.kafka, |all| {
            let state = all.get(table).filter(|state| state.reason == NEW_COLUMN);
            Ok::<_, TableStatesError>(table_state::resume(state, table, "apply", now_us()).ok())
        })
        .await?;
        Ok(())
    }

    async fn replay(
        &self,
        table: &TableName,
        state: &TableState,
        states: &TableStates,
        writer: &mut Writer<'_>,
    ) -> Result<(), ApplyError> {
        let mut left = BTreeMap::new();
        let mut starts = Vec::new();
        let admin = Admin::connect(&self.kafka).await?;
        for (topic, from) in &state.from {
            let count = from.len() as i32;
            let ends = admin.end_offsets(topic, count).await?;
            let firsts = admin.first_offsets(topic, count).await?;
            for (partition, ((&from, end), first)) in (0..).zip(from.iter().zip(ends).zip(firsts)) {
                if from < first {
                    let cause = format!(
                        "{topic}[{partition}] begins at offset {first}, and the changes from {from} on were not applied"
                    );
                    return self.expired(table, cause, states).await;
                }
                if from < end {
                    starts.push((topic.clone(), partition, from));
                    left.insert((topic.clone(), partition), (from, end));
                }
            }
        }
        let records: i64 = left.values().map(|(from, end)| end - from).sum();
        tracing::info!(%table, records, "the changes that were not applied are replayed");
        let finder = TableOfKey::new(&self.kafka.topics(), std::slice::from_ref(table));
        let mut reader =
            if starts.is_empty() { None } else { Some(TailReader::start(&self.kafka, starts).await?) };
        let (mut applied, mut reported) = (0_u64, Instant::now());
        let none: Arc<States> = Arc::default();
        while let (false, Some(reader)) = (left.is_empty(), &mut reader) {
            let mut records = reader.next_batch(self.config.max_records, Duration::from_millis(100)).await?;
            records.retain(|record| {
                record.key.as_ref().is_some_and(|key| finder.table(&record.topic, key).is_some())
            });
            applied += records.len() as u64;
            let mapped = map(&mut writer.plans, records, &none).await.map_err(|(error, _)| error)?;
            writer.write(mapped).await.map_err(|(error, _)| error)?;
            left.retain(|(topic, partition), (_, end)| {
                reader.consumed_to(topic, *partition).is_none_or(|at| at < *end)
            });
            // Whoever has halted the table meanwhile has kept the offsets of this replay.
            if states.now()?.get(table).is_none_or(|now| now.incarnation != state.incarnation) {
                tracing::warn!(%table, "the replay is broken off: the state of the table has changed");
                return Ok(());
            }
            if reported.elapsed() > REPORT {
                reported = Instant::now();
                let at = |(topic, partition): &(String, i32)| reader.consumed_to(topic, *partition);
                let records: i64 =
                    left.iter().map(|(place, (from, end))| end - at(place).unwrap_or(*from)).sum();
                tracing::info!(%table, left = records, "the replay goes on");
            }
        }
        change(&self.kafka, |all| {
            Ok::<_, TableStatesError>(table_state::replayed(
                all.get(table),
                state.incarnation,
                "apply",
                now_us(),
            ))
        })
        .await?;
        states.up_to_now().await?;
        tracing::info!(%table, applied, "the replay is complete");
        Ok(())
    }

    /// The log does not hold the changes any more that the table lacks.
    async fn expired(
        &self,
        table: &TableName,
        cause: String,
        states: &TableStates,
    ) -> Result<(), ApplyError> {
        let (reason, by) = ("expired-from-the-log".to_owned(), "apply".to_owned());
        let changes = Changes::Expired;
        halt(&self.kafka, table, &TableFault { reason, cause, by, changes }).await?;
        states.up_to_now().await?;
        Ok(())
    }
}
