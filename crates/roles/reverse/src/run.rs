//! The loop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem_kafka::{GroupConsumer, KafkaConfig, SchemaStore, StartOffsets};
use tandem_model::TableName;
use tandem_mysql::{MysqlConfig, PartitionOffset, ReverseSession};
use tandem_wire::log::InRecord;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::batch::{Decoder, NativeChange, offsets};
use crate::error::ReverseError;
use crate::letters::{Letters, Retries};
use crate::metrics::Metrics;
use crate::write::{is_of_a_row, write_all, write_what_it_takes};

/// How long reverse waits for records before it looks after its dead letters.
const WAIT: Duration = Duration::from_millis(100);

/// How often an idle reverse looks whether MySQL is there.
const IDLE: Duration = Duration::from_secs(2);

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
        let mut decoder = Decoder::of(&self.kafka.prefix);
        letters.restore(session, &self.schemas, &mut decoder).await?;
        let mut retries = Retries::default();
        let (mut idle, mut position) = (Instant::now(), Vec::new());
        loop {
            let records = tokio::select! {
                records = consumer.next_batch(self.config.max_records, WAIT) => records?,
                error = letters.ended() => return Err(error),
                () = stop.cancelled() => return Ok(()),
            };
            // A transaction that is dropped is rolled back, or its versions and offsets say that it was committed.
            let step = async {
                if retries.are_due(letters) {
                    let tried = letters.retry(session, &self.schemas, &mut decoder, retries.last).await?;
                    retries.made(tried);
                }
                if !records.is_empty() {
                    let changes = decoder.decode(&self.schemas, &records).await?;
                    self.apply(session, letters, &records, &changes).await?;
                    consumer.done(&records)?;
                } else if idle.elapsed() > IDLE {
                    idle = Instant::now();
                    self.keep_position(consumer, session, &mut position).await?;
                }
                Ok::<(), ReverseError>(())
            };
            match stop.run_until_cancelled(step).await {
                Some(done) => done?,
                None => return Ok(()),
            }
        }
    }

    /// Applies a batch in one transaction. If MySQL refuses rows of it, they become dead letters, and the others are applied.
    async fn apply(
        &self,
        session: &mut ReverseSession,
        letters: &Letters,
        records: &[InRecord],
        changes: &[NativeChange],
    ) -> Result<(), ReverseError> {
        let offsets = offsets(records);
        match write_all(session, &self.metrics, changes, &offsets).await {
            Err(error) if is_of_a_row(&error) => {}
            outcome => return Ok(outcome?),
        }
        for (index, cause) in write_what_it_takes(session, &self.metrics, changes).await? {
            let native = &changes[index];
            letters.put(&records[native.record], native, cause).await?;
        }
        Ok(write_all(session, &self.metrics, &[], &offsets).await?)
    }

    /// Keeps in MySQL how far the log is read, if that has moved without a record: past transaction markers, which retention
    /// removes like records. Notices a server that is gone.
    async fn keep_position(
        &self,
        consumer: &GroupConsumer,
        session: &mut ReverseSession,
        known: &mut Vec<(String, i32, i64)>,
    ) -> Result<(), ReverseError> {
        session.ping().await?;
        let now = consumer.done_up_to();
        let moved = now.iter().filter(|of| !known.contains(of));
        let offset = |(topic, partition, next): &(String, i32, i64)| PartitionOffset {
            topic: topic.clone(),
            partition: *partition,
            next: *next,
        };
        let moved: Vec<PartitionOffset> = moved.map(offset).collect();
        if !moved.is_empty() {
            write_all(session, &self.metrics, &[], &moved).await?;
            *known = now;
        }
        Ok(())
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
