//! The loop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tandem_kafka::{GroupConsumer, KafkaConfig, SchemaStore, StartOffsets};
use tandem_model::{Disposition, TableName};
use tandem_mysql::{MysqlConfig, MysqlError, PartitionOffset, ReverseSession};
use tandem_runtime::Backoff;
use tandem_wire::log::InRecord;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::batch::{Decoder, NativeChange, by_table, needed_of, offsets, versions};
use crate::error::ReverseError;
use crate::letters::Letters;
use crate::metrics::Metrics;

/// The first and the longest pause before a transaction that another session was in the way of is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The settings of reverse.
#[derive(Debug, Clone)]
pub struct ReverseConfig {
    /// The database in MySQL for reverse's own tables.
    pub database: String,
    /// Records of one transaction at most.
    pub max_records: usize,
}

/// Brings native writes to MySQL.
pub struct Reverse {
    /// The log.
    pub kafka: KafkaConfig,
    /// Where schemas are read.
    pub schemas: SchemaStore,
    /// MySQL.
    pub mysql: MysqlConfig,
    /// The mapped tables.
    pub tables: Vec<TableName>,
    /// The settings.
    pub config: ReverseConfig,
    /// The metrics.
    pub metrics: Metrics,
}

impl Reverse {
    /// Applies native writes to MySQL until `stop`, then ends after the transaction that is under way.
    ///
    /// # Errors
    /// Kafka cannot be read or written, a record cannot be read, or the connection to MySQL is lost. Started again, it
    /// continues where MySQL is.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), ReverseError> {
        let topics = self.kafka.topics();
        let names: Vec<String> = topics.of_tables(&self.tables);
        let mut session = ReverseSession::open(&self.mysql, &self.config.database).await?;
        let letters = Letters::open(&self.kafka, self.metrics.clone()).await?;
        let starts = self.starts();
        let consumer =
            GroupConsumer::start_from(&self.kafka, &topics.reverse_group(), &names, starts).await?;
        let outcome = self.consume(&consumer, &mut session, &letters, &stop).await;
        consumer.close().await;
        outcome
    }

    async fn consume(
        &self,
        consumer: &GroupConsumer,
        session: &mut ReverseSession,
        letters: &Letters,
        stop: &CancellationToken,
    ) -> Result<(), ReverseError> {
        let mut decoder = Decoder::default();
        loop {
            let records = tokio::select! {
                records = consumer.next_batch(self.config.max_records, Duration::from_millis(100)) => records?,
                () = stop.cancelled() => return Ok(()),
            };
            if records.is_empty() {
                continue;
            }
            let changes = decoder.decode(&self.schemas, &records).await?;
            self.apply(session, letters, &records, &changes).await?;
            consumer.done(&records)?;
        }
    }

    /// Applies a batch: in one transaction, or each write in its own if MySQL refuses one of them.
    async fn apply(
        &self,
        session: &mut ReverseSession,
        letters: &Letters,
        records: &[InRecord],
        changes: &[NativeChange],
    ) -> Result<(), ReverseError> {
        let offsets = offsets(records);
        match self.write(session, changes, &offsets).await {
            Err(error) if is_of_a_row(&error) => {}
            outcome => return Ok(outcome?),
        }
        for native in changes {
            match self.write(session, std::slice::from_ref(native), &[]).await {
                Err(error) if is_of_a_row(&error) => {
                    letters.put(&records[native.record], native, error.to_string()).await?;
                }
                outcome => outcome?,
            }
        }
        Ok(self.write(session, &[], &offsets).await?)
    }

    /// Writes what MySQL needs of these changes in one transaction. Repeats it while other sessions are in its way.
    async fn write(
        &self,
        session: &mut ReverseSession,
        changes: &[NativeChange],
        offsets: &[PartitionOffset],
    ) -> Result<(), MysqlError> {
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        loop {
            session.begin().await?;
            let written = transaction(session, changes, offsets).await;
            match written {
                Ok(rows) => {
                    session.commit().await?;
                    self.metrics.rows.inc_by(rows as u64);
                    self.metrics.skipped.inc_by((changes.len() - rows) as u64);
                    self.metrics.transactions.inc();
                    return Ok(());
                }
                Err(error) => {
                    if matches!(error, MysqlError::Lost { .. }) {
                        return Err(error);
                    }
                    session.roll_back().await?;
                    // A deadlock, or a lock that was not free in time.
                    if !matches!(error, MysqlError::Server { code: 1205 | 1213, .. }) {
                        return Err(error);
                    }
                    tracing::debug!(%error, "a transaction of reverse is repeated");
                    backoff.pause().await;
                }
            }
        }
    }

    /// Reading begins where MySQL is. Where it has no offset, the group's counts.
    fn starts(&self) -> StartOffsets {
        let (mysql, database, runtime) =
            (self.mysql.clone(), self.config.database.clone(), Handle::current());
        Arc::new(move |partitions| {
            let applied = runtime
                .block_on(async { ReverseSession::open(&mysql, &database).await?.applied().await })?
                .into_iter()
                .map(|offset| ((offset.topic, offset.partition), offset.next))
                .collect::<HashMap<_, _>>();
            Ok(partitions.iter().map(|partition| applied.get(partition).copied()).collect())
        })
    }
}

/// Returns how many rows it has written.
async fn transaction(
    session: &mut ReverseSession,
    changes: &[NativeChange],
    offsets: &[PartitionOffset],
) -> Result<usize, MysqlError> {
    let rows: Vec<_> = changes.iter().map(|native| native.row).collect();
    let kept = session.kept(&rows).await?;
    let needed = needed_of(changes, &kept);
    let tables = by_table(&needed);
    // Deleted first: a row may take over a unique value of one that is gone.
    for rows in &tables {
        session.delete(rows.table, &rows.deleted).await?;
    }
    for rows in &tables {
        session.put(rows.table, &rows.put).await?;
    }
    session.keep(&versions(&needed), offsets).await?;
    Ok(needed.len())
}

/// Whether MySQL refuses a row, so that the others may go on.
fn is_of_a_row(error: &MysqlError) -> bool {
    match error {
        MysqlError::BadValue { .. } => true,
        MysqlError::Server { .. } => error.retry() == Disposition::Refuse,
        _ => false,
    }
}
