//! The retry of a dead letter.

use std::collections::HashMap;
use std::sync::Arc;

use tandem_cassandra::{SchemaError, Target, WriteError};
use tandem_kafka::{ConsumeError, KafkaConfig, Producer, PublishError, SchemaStore, read_at};
use tandem_mapping::TablePlan;
use tandem_model::{Disposition, Remedy, TableName, Version};
use tandem_mysql::{MysqlError, Reader};
use tandem_protocol::dead_letter::{former_keys, least_version, retry};
use tandem_protocol::mapping_in_use::Layouts;
use tandem_table_states::{TableStates, TableStatesError};
use tandem_watermarks::{WatermarkError, Watermarks};
use tandem_wire::WireError;
use tandem_wire::control::{DeadLetter, decode_control, settled};

use crate::open::OpenLetter;

/// Why a dead letter could not be retried. It stays open.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each variant is the error of the part it names
pub enum RetryError {
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    #[error(transparent)]
    Write(WriteError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    States(#[from] TableStatesError),
    #[error(transparent)]
    Owners(#[from] SchemaError),
    #[error("table `{0}` in Cassandra does not belong to this migration any more: nothing is written there")]
    NotOwned(String),
    #[error(
        "apply uses another mapping than this tandem.toml: a retry by this one could leave out columns. Retry with the \
         tandem.toml that apply has"
    )]
    OtherMapping,
    #[error("table {0} is not in this tandem.toml: map it, or discard its dead letters")]
    NotMapped(String),
}

impl RetryError {
    /// What the caller does next. A retry needs a new connection to MySQL.
    pub fn retry(&self) -> Disposition {
        match self {
            Self::Mysql(error) => error.retry(),
            Self::Watermark(error) => error.retry(),
            Self::Consume(error) => error.retry(),
            Self::Write(error) => error.retry(),
            Self::Publish(error) => error.retry(),
            Self::Wire(error) => error.retry(),
            Self::States(error) => error.retry(),
            Self::Owners(error) => error.retry(),
            Self::OtherMapping => Disposition::Stop,
            Self::NotMapped(_) | Self::NotOwned(_) => Disposition::Refuse,
        }
    }

    /// What an operator does about it, where the message does not say so.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Watermark(error) => error.remedy(),
            Self::Consume(error) => error.remedy(),
            Self::States(error) => error.remedy(),
            Self::Mysql(_)
            | Self::Write(_)
            | Self::Publish(_)
            | Self::Wire(_)
            | Self::Owners(_)
            | Self::NotOwned(_)
            | Self::OtherMapping
            | Self::NotMapped(_) => None,
        }
    }
}

/// The outcome of a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// The row is in Cassandra as MySQL has it now, and the dead letter is settled.
    Settled,
    /// The row as MySQL has it now cannot be written either, for this reason.
    Refused(String),
}

/// Retries dead letters.
pub struct Retrier {
    kafka: KafkaConfig,
    topic: String,
    schemas: SchemaStore,
    target: Target,
    watermarks: Watermarks,
    states: TableStates,
    layouts: Arc<Layouts>,
    plans: HashMap<String, Arc<TablePlan>>,
    producer: Producer,
}

impl Retrier {
    /// Prepares retries for these tables. Their targets are prepared in `target`, and their layouts are those of `mapping`.
    ///
    /// # Errors
    /// Kafka cannot be reached.
    pub async fn start(
        (kafka, schemas): (&KafkaConfig, SchemaStore),
        target: Target,
        watermarks: Watermarks,
        (states, layouts): (TableStates, Arc<Layouts>),
        plans: impl IntoIterator<Item = Arc<TablePlan>>,
    ) -> Result<Self, PublishError> {
        Ok(Self {
            kafka: kafka.clone(),
            topic: kafka.topics().dead_letters(),
            schemas,
            target,
            watermarks,
            states,
            layouts,
            plans: plans.into_iter().map(|plan| (plan.source().name.to_string(), plan)).collect(),
            producer: Producer::start(kafka).await?,
        })
    }

    /// Reads the row of a dead letter from MySQL and writes it to Cassandra. If that succeeds, settles the dead letter.
    ///
    /// The row is read at a watermark above the change, so it contains the change or a later one. It is written at that
    /// watermark's version with explicit NULLs, and its former keys get row tombstones.
    ///
    /// Two retries of one dead letter at a time do no harm.
    ///
    /// # Errors
    /// A store or Kafka does not answer, the table is not mapped any more, apply uses another mapping, or a target belongs to
    /// another migration.
    pub async fn retry(&self, reader: &mut Reader, letter: &OpenLetter) -> Result<Retried, RetryError> {
        let Some(record) = read_at(&self.kafka, &self.topic, 0, letter.offset).await? else {
            // Compaction removes a dead letter only after it is settled.
            return Ok(Retried::Settled);
        };
        let Some(value) = &record.value else { return Ok(Retried::Settled) };
        let stored: DeadLetter = decode_control(value)?;
        let plan =
            self.plans.get(&stored.table).ok_or_else(|| RetryError::NotMapped(stored.table.clone()))?;
        let schema = self.schemas.get(tandem_wire::schema_id(&stored.record_value)?).await?;
        let change = schema.decode(&stored.record_value)?;
        let former = former_keys(plan, &change);
        let Some(key) = plan.source_key_under(&change.table, change.image()) else {
            return Ok(Retried::Refused(
                "the table has another primary key now: copy the table again".into(),
            ));
        };
        let table: &TableName = &plan.source().name;
        let least = least_version(Version(stored.version));
        let watermark = self.watermarks.borrow_from(reader, table, least).await?;
        let row = reader.read_keys(plan.source(), &[key]).await?.pop().flatten();
        let mutations = match retry(plan, row.as_ref(), &former, watermark.version) {
            Ok(mutations) => mutations,
            Err(error) => return Ok(Retried::Refused(error.to_string())),
        };
        // After the borrowed watermark: if the mapping changes after this, its copy is newer than what is written here.
        if !self.layouts.is_table_in_use(table, self.states.up_to_now().await?.mapping_in_use()) {
            return Err(RetryError::OtherMapping);
        }
        let targets = plan.targets().iter().map(|target| &*target.table().name);
        if let Some(name) = self.target.owned_by_another(&self.kafka.prefix, targets).await? {
            return Err(RetryError::NotOwned(name));
        }
        match self.target.write(mutations).await {
            Ok(()) => {}
            Err(error) if error.retry() == Disposition::Refuse => {
                return Ok(Retried::Refused(error.to_string()));
            }
            Err(error) => return Err(RetryError::Write(error)),
        }
        self.producer.send(vec![settled(&self.topic, &letter.place)]).await?;
        Ok(Retried::Settled)
    }
}
