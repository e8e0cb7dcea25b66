//! Follows the states.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tandem_kafka::{Admin, ConsumeError, KafkaConfig, TailReader, read_all};
use tandem_model::TableName;
use tandem_protocol::mapping_in_use::Layouts;
use tandem_protocol::table_state;
use tandem_wire::control::{MAPPING_KEY, MappingInUse, TableState, decode_control, is_table_state_key};
use tandem_wire::log::InRecord;
use tokio::sync::watch;

use crate::error::TableStatesError;

/// How long the follower waits for records before it looks whether it is still needed.
const WAIT: Duration = Duration::from_millis(500);

/// The newest state of each table that has one, and the mapping in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct States {
    tables: HashMap<String, Arc<TableState>>,
    mapping_in_use: Option<Arc<MappingInUse>>,
}

impl States {
    /// The state of a table. A table without one is live.
    pub fn get(&self, table: &TableName) -> Option<&TableState> {
        // Most migrations have none, and this is asked for each record.
        if self.tables.is_empty() { None } else { self.tables.get(&table.to_string()).map(|state| &**state) }
    }

    /// All states, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &TableState> {
        self.tables.values().map(|state| &**state)
    }

    /// The mapping by which apply writes. `None` before the first apply has started.
    pub fn mapping_in_use(&self) -> Option<&MappingInUse> {
        self.mapping_in_use.as_deref()
    }

    /// Whether the changes of some table are skipped.
    pub fn any_halted(&self) -> bool {
        self.iter().any(|state| !table_state::is_applied(Some(state)))
    }

    /// Whether Cassandra may serve the table's rows.
    pub fn is_live(&self, table: &TableName) -> bool {
        table_state::is_live(self.get(table))
    }

    fn take(&mut self, record: &InRecord) -> Result<bool, TableStatesError> {
        let (Some(key), Some(value)) = (&record.key, &record.value) else { return Ok(false) };
        if key == MAPPING_KEY {
            let mapping =
                decode_control(value).map_err(|source| TableStatesError::decode(record.offset, source))?;
            self.mapping_in_use = Some(Arc::new(mapping));
            return Ok(true);
        }
        if !is_table_state_key(key) {
            return Ok(false);
        }
        let state: TableState =
            decode_control(value).map_err(|source| TableStatesError::decode(record.offset, source))?;
        self.tables.insert(state.table.clone(), Arc::new(state));
        Ok(true)
    }
}

/// Reads the states as they are now.
///
/// # Errors
/// The control topic cannot be read.
pub async fn read_states(kafka: &KafkaConfig) -> Result<States, TableStatesError> {
    let mut states = States::default();
    for record in read_all(kafka, &kafka.topics().control()).await? {
        states.take(&record)?;
    }
    Ok(states)
}

/// How far the control topic was read, and what it said.
type Seen = Result<(i64, Arc<States>), TableStatesError>;

/// The states as of some milliseconds ago. Cheap to clone.
#[derive(Clone)]
pub struct TableStates {
    seen: watch::Receiver<Seen>,
    admin: Arc<Admin>,
    topic: Arc<str>,
}

impl TableStates {
    /// Follows the control topic. When this returns, the states are those of now.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub async fn follow(kafka: &KafkaConfig) -> Result<Self, TableStatesError> {
        let topic: Arc<str> = kafka.topics().control().into();
        let admin = Arc::new(Admin::connect(kafka).await?);
        let first = admin.first_offsets(&topic, 1).await?[0];
        let mut reader = TailReader::start(kafka, vec![(topic.to_string(), 0, first)]).await?;
        let (sender, seen) = watch::channel(Ok((first, Arc::default())));
        let name = Arc::clone(&topic);
        tokio::spawn(async move {
            let mut states = States::default();
            while !sender.is_closed() {
                let outcome = match reader.next_batch(500, WAIT).await {
                    Ok(records) => {
                        records.iter().try_fold(false, |changed, record| Ok(states.take(record)? || changed))
                    }
                    Err(error) => Err(error.into()),
                };
                let changed = match outcome {
                    Ok(changed) => changed,
                    Err(error) => {
                        // An error only means that nobody follows any more.
                        let _ = sender.send(Err(error));
                        return;
                    }
                };
                let at = reader.consumed_to(&name, 0);
                sender.send_if_modified(|seen| {
                    let Ok((known, holds)) = seen else { return false };
                    if changed {
                        *holds = Arc::new(states.clone());
                    }
                    let moved = at.filter(|at| at > known);
                    *known = moved.unwrap_or(*known);
                    changed || moved.is_some()
                });
            }
        });
        let states = Self { seen, admin, topic };
        states.up_to_now().await?;
        Ok(states)
    }

    /// The states that are known now.
    ///
    /// # Errors
    /// The topic is no longer followed.
    pub fn now(&self) -> Result<Arc<States>, TableStatesError> {
        self.seen.borrow().as_ref().map(|(_, states)| Arc::clone(states)).map_err(Clone::clone)
    }

    /// The end of the control topic as it is on the broker now.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn end(&self) -> Result<i64, TableStatesError> {
        Ok(self.admin.end_offsets(&self.topic, 1).await?[0])
    }

    /// Whether the topic was read up to this offset.
    pub fn has_read(&self, end: i64) -> bool {
        self.seen.borrow().as_ref().is_ok_and(|(at, _)| *at >= end)
    }

    /// The states, with every record that was published before this call.
    ///
    /// # Errors
    /// Kafka does not answer, or the topic is no longer followed.
    pub async fn up_to_now(&self) -> Result<Arc<States>, TableStatesError> {
        self.up_to(self.end().await?).await
    }

    /// The states, once the topic is read up to this offset.
    ///
    /// # Errors
    /// The topic is no longer followed.
    pub async fn up_to(&self, end: i64) -> Result<Arc<States>, TableStatesError> {
        self.until(|(at, _)| *at >= end).await
    }

    /// Waits until the states are other ones than these.
    ///
    /// # Errors
    /// The topic is no longer followed.
    pub async fn other_than(&self, known: &States) -> Result<Arc<States>, TableStatesError> {
        self.until(|(_, states)| **states != *known).await
    }

    /// Waits until apply uses these layouts.
    ///
    /// # Errors
    /// The topic is no longer followed.
    pub async fn until_in_use(&self, layouts: &Layouts) -> Result<(), TableStatesError> {
        self.until(|(_, states)| layouts.are_in_use(states.mapping_in_use())).await.map(drop)
    }

    /// Waits until apply uses other layouts than these.
    ///
    /// # Errors
    /// The topic is no longer followed.
    pub async fn until_not_in_use(&self, layouts: &Layouts) -> Result<(), TableStatesError> {
        self.until(|(_, states)| !layouts.are_in_use(states.mapping_in_use())).await.map(drop)
    }

    /// Waits until the topic is no longer followed, which happens only after an error.
    pub async fn ended(&self) -> TableStatesError {
        match self.until(|_| false).await {
            Err(error) => error,
            Ok(_) => ConsumeError::Closed.into(),
        }
    }

    async fn until(
        &self,
        holds: impl Fn(&(i64, Arc<States>)) -> bool,
    ) -> Result<Arc<States>, TableStatesError> {
        let mut seen = self.seen.clone();
        let reached = seen.wait_for(|seen| seen.as_ref().map_or(true, &holds)).await;
        match reached.map(|seen| seen.clone()) {
            Ok(seen) => seen.map(|(_, states)| states),
            Err(_) => Err(ConsumeError::Closed.into()),
        }
    }
}
